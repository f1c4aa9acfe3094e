"""The families of models whose attention state may be reused. Importing this loads no torch.

A family is here because the tests show, for it, that reading a prefix from memory gives the bits
that reading it anew gives. What else a loaded model must be is `support.unsupported`.
"""

from __future__ import annotations

__all__ = ("FAMILIES",)

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
