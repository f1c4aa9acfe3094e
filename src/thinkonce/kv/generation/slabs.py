"""Slabs of the sequences under way, and the one budget they share with the blocks that are kept.

    memory    |  sequences under way  |  spare  |  blocks, and room for more  |

A sequence takes its slab, for the prompt and the longest answer asked for, before it begins; the
blocks get what is left. So memory never holds more than its budget, and nothing that has begun
runs out of it.
"""

from __future__ import annotations

import threading

import torch

from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.generation.slab import KvShape, Slab, in_steps
from thinkonce.kv.prefix.index import PrefixIndex

__all__ = ("Slabs",)

# A slab that was used before needs no new pages. This part of the budget may lie spare for it.
_SPARE_PART = 1 / 8


class Slabs:
    """Lends slabs within `max_bytes`, which `kept` shares; None: no bound, and `kept` has its own.

    Thread-safe: one thread takes and gives back, others may look and resize.
    """

    def __init__(
        self,
        shape: KvShape,
        kept: PrefixIndex[torch.Tensor] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.shape, self._kept, self._max_bytes = shape, kept, max_bytes
        self._lent: list[Slab] = []
        self._spare: list[Slab] = []
        self._lock = threading.Lock()

    @property
    def max_bytes(self) -> int | None:
        return self._max_bytes

    @property
    def under_way(self) -> int:
        """Sequences that hold a slab."""
        return len(self._lent)

    @property
    def bytes(self) -> int:
        """Of slabs that are lent or spare."""
        return sum(slab.bytes for slab in (*self._lent, *self._spare))

    @property
    def most_tokens(self) -> int | None:
        """The longest sequence that could ever fit; None: no bound."""
        if self._max_bytes is None:
            return None
        step = in_steps(1)
        return self._max_bytes // (self.shape.bytes_a_token * step) * step

    def check(self, tokens: int, more: int = 0) -> None:
        """Raises TooLong where a sequence of so many tokens, and `more`, can never fit."""
        most = self.most_tokens
        if most is not None and in_steps(tokens) + in_steps(more) > most:
            needed = (in_steps(tokens) + in_steps(more)) * self.shape.bytes_a_token
            raise TooLong(
                f"the prompt and its answer may take {tokens + more} tokens, {needed} bytes of "
                f"attention state; [kv] memory is {self._max_bytes} bytes, which hold {most} "
                f"tokens. Shorten the prompt, lower max_tokens, or give [kv] memory {needed} bytes"
            )

    def take(self, tokens: int) -> Slab | None:
        """A slab with room for so many tokens; None as long as others hold the memory.

        Raises TooLong where waiting would not help, MemoryError or RuntimeError where the
        machine has less than the budget says.
        """
        with self._lock:
            self.check(tokens)
            slab = self._from_spare(tokens) or self._new(tokens)
            if slab is not None:
                self._lent.append(slab)
            return slab

    def take_two(self, tokens: int, more: int) -> tuple[Slab, Slab | None] | None:
        """Slabs for so many tokens and for so many more, none for 0; as `take`, of both or none."""
        if not more:
            slab = self.take(tokens)
            return None if slab is None else (slab, None)
        self.check(tokens, more)
        if (slab := self.take(tokens)) is None:
            return None
        try:
            second = self.take(more)
        except BaseException:
            self.give_back(slab)
            raise
        if second is None:
            self.give_back(slab)
            return None
        return slab, second

    def give_back(self, slab: Slab) -> None:
        """The sequence is over. Call it once."""
        with self._lock:
            self._lent = [other for other in self._lent if other is not slab]
            self._spare.append(slab)
            self._settle()

    def resize(self, max_bytes: int) -> None:
        """Change the budget. Sequences under way keep what they have until they end."""
        with self._lock:
            self._max_bytes = max_bytes
            self._settle()

    def _from_spare(self, tokens: int) -> Slab | None:
        fitting = [slab for slab in self._spare if slab.capacity >= tokens]
        if not fitting:
            return None
        slab = min(fitting, key=lambda slab: slab.capacity)
        self._spare = [other for other in self._spare if other is not slab]
        return slab

    def _new(self, tokens: int) -> Slab | None:
        # Those are too small: one of this size will be spare in their place.
        self._spare.clear()
        needed = in_steps(tokens) * self.shape.bytes_a_token
        if not self._leave_to_blocks(self.bytes + needed):
            self._leave_to_blocks(self.bytes)
            return None
        slab = Slab(self.shape)
        try:
            with torch.inference_mode():
                slab.reserve(tokens)
        except BaseException:
            self._leave_to_blocks(self.bytes)
            raise
        return slab

    def _settle(self) -> None:
        """Give up spare slabs beyond their part; the blocks get what is free."""
        if self._max_bytes is not None:
            most = int(self._max_bytes * _SPARE_PART)
            while self._spare and sum(slab.bytes for slab in self._spare) > most:
                self._spare.pop(0)
        if self._max_bytes is not None and self._kept is not None:
            self._kept.resize(max(0, self._max_bytes - self.bytes), at_once=True)

    def _leave_to_blocks(self, taken: int) -> bool:
        """Whether the blocks fit beside `taken` bytes of slabs; then they keep to it."""
        if self._max_bytes is None:
            return True
        left = self._max_bytes - taken
        if self._kept is None:
            return left >= 0
        return left >= 0 and self._kept.resize(left)
