"""How the tokens of an answer attend to what was read: the seam behind which decoding may differ.

Reading is a reader's (`reader.py`). Without a decoder every token attends to all before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.attended import Attended

__all__ = ("Decoder", "Step")

Step = Callable[[int, int], torch.Tensor]
"""The logits after one more token: its id, its position."""


class Decoder(Protocol):
    """Used by one thread, except where a method says otherwise."""

    def room(self, tokens: int) -> int:
        """Tokens of memory that an answer to a prompt of so many takes besides its own; 0 where
        this decoder leaves it alone. From any thread.
        """
        ...

    def attended(self, prompt: Sequence[int]) -> Attended | None:
        """What is told of an answer to it; None where it is exact. From any thread."""
        ...

    def step(self, prompt: Sequence[int], slab: Slab, memory: Slab) -> Step:
        """What makes the answer to a prompt that `slab` holds, in `memory` of `room` tokens.

        It appends to the slab. Nothing is computed before its first call.
        """
        ...
