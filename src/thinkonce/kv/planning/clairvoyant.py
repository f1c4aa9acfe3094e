"""The policy that knows the future: what no other can reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import ClassVar

from thinkonce.kv.prefix.eviction import Ranked

__all__ = ("Clairvoyant",)


class Clairvoyant:
    """The leaf goes that is used again the latest (Belady 1966, for leaves of a tree).

    `uses`: the blocks of each request, in the order in which they come.
    """

    name: ClassVar[str] = "clairvoyant"

    def __init__(self, uses: Iterable[Sequence[bytes]]) -> None:
        self._uses: dict[bytes, deque[int]] = {}
        self._now = -1  # the number of the request that was the last
        for number, ids in enumerate(uses):
            for id in ids:
                self._uses.setdefault(id, deque()).append(number)

    @property
    def turns(self) -> int:
        return 0

    def touch(self, path: Sequence[Ranked], now: float) -> None:
        self._now += 1
        for block in path:
            coming = self._uses[block.id]
            while coming and coming[0] <= self._now:
                coming.popleft()
            block.rank = coming[0] if coming else inf

    def key(self, block: Ranked) -> tuple[float, ...]:
        return (-block.rank, -block.start)
