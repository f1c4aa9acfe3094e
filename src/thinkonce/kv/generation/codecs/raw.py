"""Keys and values as they were computed: the same bits."""

from __future__ import annotations

import torch

from thinkonce.kv.generation.slab import KvShape

__all__ = ("Raw",)


class Raw:
    """See `Codec`. What is kept is the state."""

    name = "raw"
    is_exact = True

    def __init__(self, shape: KvShape) -> None:
        self._shape = shape

    def encode(self, state: torch.Tensor) -> torch.Tensor:
        return state

    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        return kept

    def kept_of(self, data: memoryview, tokens: int) -> torch.Tensor | None:
        # What has another length was not written by this model, whatever its name says.
        if not data or len(data) != self.size(tokens):
            return None
        shape = self._shape
        flat = torch.frombuffer(data, dtype=torch.uint8).view(shape.dtype)
        return flat.reshape(shape.layers, 2, shape.kv_heads, tokens, shape.head_dim)

    def size(self, tokens: int) -> int:
        return self._shape.bytes_a_token * tokens
