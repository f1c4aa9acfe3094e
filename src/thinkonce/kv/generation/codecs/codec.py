"""The seam between a block's state and the form in which it is kept, in memory and below it.

    slab ── copy ──► state ── encode ──► kept ── bytes_of ──► record on disk
    slab ◄── load ── state ◄── decode ── kept ◄── kept_of ──┘

A codec's name enters the model's fingerprint: what one has kept, another never finds.
"""

from __future__ import annotations

from typing import Protocol

import torch

from thinkonce.kv.generation.slab import KvShape

__all__ = ("Codec", "bytes_of")


class Codec(Protocol):
    """For one model's blocks. Stateless: any thread may use it."""

    name: str
    is_exact: bool
    """Whether `decode` gives the bits that `encode` was given."""

    def __init__(self, shape: KvShape) -> None: ...

    def encode(self, state: torch.Tensor) -> torch.Tensor:
        """What is kept of a state [layers, 2, kv_heads, tokens, head_dim] in main memory:
        contiguous, and `state` itself where that is what is kept.
        """
        ...

    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        """A state of that shape, to be read and not written."""
        ...

    def kept_of(self, data: memoryview, tokens: int) -> torch.Tensor | None:
        """What `bytes_of` made bytes of, where it is a block of so many tokens; else None.

        No copy: the tensor lives in `data`.
        """
        ...

    def size(self, tokens: int) -> int:
        """Bytes that a block of so many tokens takes."""
        ...


def bytes_of(kept: torch.Tensor) -> memoryview:
    """No copy of what is on the CPU: `kept` is contiguous and must not change."""
    return kept.cpu().reshape(-1).view(torch.uint8).numpy().data.cast("B")
