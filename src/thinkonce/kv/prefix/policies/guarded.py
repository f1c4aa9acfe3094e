"""Forward decay as long as it pays: beside it runs LRU by name alone, and takes over if ahead.

A path is used from its end to its root, so the names that LRU would hold are one list: no parent
leaves it before its child. What each of the two knew of every request is counted in blocks:

    lead = min(capacity, lead + known - LRU's + ALLOWANCE * asked)

Below 0 what LRU does not hold goes first, so that memory becomes what LRU's would be; from
RESUME of the capacity on forward decay decides again. Over any time LRU is therefore ahead by at
most ALLOWANCE of all blocks asked for, twice the capacity (a lead that is lost, and what memory
lacks of LRU's when it takes over) and the longest prompt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import inf
from typing import ClassVar, Self

from thinkonce.kv.prefix.eviction import UNUSED, Ranked, Room
from thinkonce.kv.prefix.policies.forward_decay import HALF_LIFE, ForwardDecay

__all__ = ("ALLOWANCE", "Guarded")

ALLOWANCE = 0.002  # of all blocks asked for
RESUME = 0.25  # of the capacity


class Guarded:
    """See `eviction.TreePolicy`. `blocks`: how many fit; `most`: as `ForwardDecay` has it."""

    name: ClassVar[str] = "guarded"

    def __init__(self, blocks: int, most: int, half_life: float = HALF_LIFE) -> None:
        self._blocks = blocks
        self._decay = ForwardDecay(most, half_life)
        self._lru: OrderedDict[bytes, float] = OrderedDict()  # unused for longest first
        self._lead = RESUME * blocks
        self._turns = 0
        self._as_lru = False
        self.known = self.wanted = 0  # blocks of the last request that were here, and LRU's

    @classmethod
    def of(cls, room: Room) -> Self:
        return cls(room.blocks, room.remembered)

    @property
    def turns(self) -> int:
        """How often the order of all blocks has changed at once."""
        return self._turns

    def touch(self, path: Sequence[Ranked], now: float) -> None:
        self.known = known = _leading(block.rank > UNUSED for block in path)
        self.wanted = wanted = _leading(block.id in self._lru for block in path)
        self._decay.touch(path, now)
        for block in reversed(path):
            self._lru[block.id] = now
            self._lru.move_to_end(block.id)
        while len(self._lru) > self._blocks:
            self._lru.popitem(last=False)
        self._account(known - wanted + ALLOWANCE * len(path))

    def key(self, block: Ranked) -> tuple[float, ...]:
        rank = self._lru.get(block.id, -inf) if self._as_lru else block.rank
        return (rank, -block.start)

    def _account(self, gained: float) -> None:
        self._lead = min(self._blocks, self._lead + gained)
        turn = self._lead >= RESUME * self._blocks if self._as_lru else self._lead < 0
        if turn:
            self._as_lru = not self._as_lru
            self._turns += 1


def _leading(known: Iterable[bool]) -> int:
    """How many there are before the first that is not."""
    return sum(1 for _ in takewhile(bool, known))
