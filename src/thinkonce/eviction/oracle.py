"""What a cache that knows the future would reach: the bounds that policies are measured against.

For reference only; nothing here can run live.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from math import inf, log2

from thinkonce.eviction.cost import density
from thinkonce.eviction.simulate import Access, Replay

__all__ = ("belady", "dearest_per_byte", "next_uses")

NEVER = 1 << 62
STEPS_PER_DOUBLING = 16  # density classes of the oracle; 32 moves its result by less than 1e-4


def next_uses(keys: Sequence[Hashable]) -> list[int]:
    """For each position the position of the next access to the same key, or `NEVER`."""
    upcoming: dict[Hashable, int] = {}
    result = [NEVER] * len(keys)
    for position in range(len(keys) - 1, -1, -1):
        result[position] = upcoming.get(keys[position], NEVER)
        upcoming[keys[position]] = position
    return result


def belady(keys: Sequence[Hashable], capacity: int) -> Replay:
    """Drop what is needed again the latest (Belady, IBM Systems Journal 5, 1966). The newcomer
    may be that one. Exact for entries of equal size."""
    following = next_uses(keys)
    replay = Replay(requests=len(keys), bytes_asked=len(keys), cost_asked=float(len(keys)))
    due: dict[Hashable, int] = {}  # held key -> its next use
    farthest: list[tuple[int, int]] = []  # (-next use, position it was noted at)
    for position, key in enumerate(keys):
        if due.pop(key, None) is not None:
            replay.hits += 1
        if following[position] == NEVER:
            continue
        due[key] = following[position]
        heappush(farthest, (-following[position], position))
        if len(due) > capacity:
            # Rows of past uses have the smallest next use: they never reach the top.
            del due[keys[heappop(farthest)[1]]]
            replay.evictions += 1
    replay.bytes_hit, replay.cost_saved = replay.hits, float(replay.hits)
    return replay


def dearest_per_byte(accesses: Sequence[Access], max_bytes: int) -> Replay:
    """Drop what pays least: smallest cost / (size x time until the next use), in requests.

    A greedy rule, so no proof of an optimum; where everything that returns fits, it saves all
    that can be saved. Entries are classed by density (6 % wide) so that the time until the next
    use orders each class once and for all; between classes the exact value decides.
    """
    return _Clairvoyant(accesses, max_bytes).run()


class _Clairvoyant:
    def __init__(self, accesses: Sequence[Access], max_bytes: int) -> None:
        self.accesses, self.max_bytes = accesses, max_bytes
        self.following = next_uses([access.key for access in accesses])
        self.held: dict[Hashable, int] = {}  # key -> position of its last use
        self.num_bytes = 0
        self.classes: dict[int, list[tuple[int, int]]] = {}  # -> heap of (-next use, position)
        self.replay = Replay()

    def run(self) -> Replay:
        for position, access in enumerate(self.accesses):
            self._count(access, self._take(access))
            if self.following[position] != NEVER and access.size <= self.max_bytes:
                self._keep(position, access)
        return self.replay

    def _count(self, access: Access, hit: bool) -> None:
        replay = self.replay
        replay.requests += 1
        replay.bytes_asked += access.size
        replay.cost_asked += access.cost
        if hit:
            replay.hits += 1
            replay.bytes_hit += access.size
            replay.cost_saved += access.cost

    def _take(self, access: Access) -> bool:
        last = self.held.pop(access.key, None)
        if last is None:
            return False
        self.num_bytes -= self.accesses[last].size
        return True

    def _keep(self, position: int, access: Access) -> None:
        self.held[access.key] = position
        self.num_bytes += access.size
        level = round(STEPS_PER_DOUBLING * log2(density(access.cost, access.size, 1.0)))
        heappush(self.classes.setdefault(level, []), (-self.following[position], position))
        while self.num_bytes > self.max_bytes:
            self._drop_least(position)

    def _drop_least(self, now: int) -> None:
        worst, worst_value = -1, inf
        for heap in self.classes.values():
            while heap and self.held.get(self.accesses[heap[0][1]].key) != heap[0][1]:
                heappop(heap)
            if heap:
                position = heap[0][1]
                access = self.accesses[position]
                value = density(access.cost, access.size, 1.0) / (self.following[position] - now)
                if value < worst_value:
                    worst, worst_value = position, value
        access = self.accesses[worst]
        del self.held[access.key]
        self.num_bytes -= access.size
        self.replay.evictions += 1
