"""Forward decay: blocks that were used often stay longer than their last use alone would let them.

    first use          T = now
    each one after     T = now + h * log2(1 + 2 ** (-(now - T) / h))     the smallest goes first

h seconds is the half-life of a use: towards 0 it is LRU, towards infinity LFU. The number stands
still between uses, so no key ever falls (Cormode, Shkapenyuk, Srivastava, Xu: Forward Decay,
ICDE 2009). T outlives its block in a ghost memory; without it, what comes back would begin anew
and any count of uses would starve what is fresh.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import log2
from typing import ClassVar, Self

from thinkonce.kv.prefix.eviction import Ranked, Room

__all__ = ("HALF_LIFE", "ForwardDecay")

HALF_LIFE = 300.0  # seconds
_LONG_AGO = 60.0  # half-lives, after which a use counts for nothing


class ForwardDecay:
    """See `eviction.TreePolicy`. `most`: blocks whose T is remembered, about 150 bytes each."""

    name: ClassVar[str] = "forward_decay"

    def __init__(self, most: int, half_life: float = HALF_LIFE) -> None:
        self._most, self._half_life = most, half_life
        self._known: OrderedDict[bytes, float] = OrderedDict()  # unused for longest first

    @classmethod
    def of(cls, room: Room) -> Self:
        return cls(room.remembered)

    @property
    def turns(self) -> int:
        return 0

    def touch(self, path: Sequence[Ranked], now: float) -> None:
        for block in path:
            block.rank = self._known[block.id] = self._counted(block.id, now)
            self._known.move_to_end(block.id)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def key(self, block: Ranked) -> tuple[float, ...]:
        return (block.rank, -block.start)

    def _counted(self, id: bytes, now: float) -> float:
        before = self._known.get(id)
        if before is None:
            return now
        past = (now - before) / self._half_life
        if past > _LONG_AGO:
            return now
        return now + self._half_life * log2(1 + 2**-past)
