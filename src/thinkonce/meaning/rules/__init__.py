"""The tables: which words count, deny, oppose, name and ask. Read once, when first needed."""
