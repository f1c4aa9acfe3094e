"""Whether two questions ask the same, and whether that may be acted on."""
