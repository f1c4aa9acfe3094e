"""The paths below /kv: purges, limits, entries, schemas, and prompts that are read ahead."""
