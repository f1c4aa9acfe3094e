"""A block's state as bytes, and back: the same bits."""

from __future__ import annotations

import torch

from thinkonce.kv.generation.slab import KvShape

__all__ = ("bytes_of", "state_of")


def bytes_of(state: torch.Tensor) -> memoryview:
    """No copy of what is on the CPU: `state` is contiguous and must not change."""
    return state.cpu().reshape(-1).view(torch.uint8).numpy().data.cast("B")


def state_of(data: memoryview, shape: KvShape) -> torch.Tensor | None:
    """The block of as many tokens as `data` holds; None where it is no whole number of them.

    No copy: the tensor lives in `data`.
    """
    if not data or len(data) % shape.bytes_a_token:
        return None
    flat = torch.frombuffer(data, dtype=torch.uint8).view(shape.dtype)
    return flat.reshape(shape.layers, 2, shape.kv_heads, -1, shape.head_dim)
