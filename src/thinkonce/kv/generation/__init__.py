"""Tokens from a model, with attention state reused where that is exact."""
