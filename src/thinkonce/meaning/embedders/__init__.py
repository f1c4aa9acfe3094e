"""Embedders, one a file. Each has a function `embedder` that opens it; see `meaning.embedder`."""
