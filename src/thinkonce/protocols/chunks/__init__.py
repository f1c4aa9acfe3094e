"""Chat and text completions: answers that may come in chunks and end in `[DONE]`."""
