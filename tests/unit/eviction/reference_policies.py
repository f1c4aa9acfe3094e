"""Each policy as a list and the words of its paper: slow, and too simple to be wrong.

`access(key)` answers (was it a hit, which key went). All evict first and insert then, as the
papers do; entries are of one size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from thinkonce.entry import Entry, Meta
from thinkonce.eviction import Limits, Note, Policy, make_policy

Step = tuple[bool, int | None]


def new_entry(key: int, size: int = 1, cost: float = 1.0, weight: float = 1.0) -> Entry:
    return Entry(key=key, payload=None, meta=Meta(), size=size, cost=cost, weight=weight)


def note(policy: Policy, entry: Entry) -> None:
    """A hit answered outside the lock, drained at once where the policy buffers."""
    if policy.note is Note.COUNT:
        entry.hits += 1
        entry.floor = policy.floor
    elif policy.note is Note.BIT:
        entry.hits = min(entry.hits + 1, 3)
    else:
        policy.hit(entry)


def replay(name: str, keys: Sequence[int], limits: Limits, size: int = 1) -> list[Step]:
    """What the real policy decides on `keys`; its invariants hold after every step."""
    policy = make_policy(name, limits)
    max_entries = limits.max_entries or (limits.max_bytes or 0) // size
    held: dict[int, Entry] = {}
    steps: list[Step] = []
    for key in keys:
        gone: int | None = None
        hit = key in held
        if hit:
            note(policy, held[key])
        else:
            held[key] = new_entry(key, size)
            policy.insert(held[key])
            if len(held) > max_entries:
                victim = policy.evict()
                assert victim is not None
                gone = int(str(victim.key))
                assert held.pop(gone) is victim
        steps.append((hit, gone))
        assert len(policy) == len(held)
        policy.check()
    return steps


def skewed_keys(seed: int, count: int, distinct: int) -> list[int]:
    """A log with favourites that drift, scans and one-off keys."""
    pick = random.Random(seed)
    keys: list[int] = []
    while len(keys) < count:
        shift = len(keys) // 500
        if pick.random() < 0.02:
            start = pick.randrange(distinct)
            keys += range(start, start + distinct // 3)
        keys += [int(pick.paretovariate(0.7)) % distinct + shift for _ in range(20)]
    return keys[:count]


def restless_keys(seed: int, count: int, capacity: int) -> list[int]:
    """Turns between what is asked twice, scans that come back, and noise: ARC's target swings."""
    pick = random.Random(seed)
    keys: list[int] = []
    while len(keys) < count:
        kind, start = pick.random(), pick.randrange(10) * capacity // 2
        if kind < 0.5:
            keys += list(range(start, start + capacity)) * 2
        elif kind < 0.8:
            keys += range(100, 100 + 2 * capacity)
        else:
            keys += [pick.randrange(4 * capacity) for _ in range(2 * capacity)]
    return keys[:count]


class Reference(Protocol):
    def __init__(self, capacity: int) -> None: ...

    def access(self, key: int) -> Step: ...


class ReferenceLru:
    def __init__(self, capacity: int) -> None:
        self.capacity, self.order = capacity, list[int]()  # oldest first

    def access(self, key: int) -> Step:
        if key in self.order:
            self.order.remove(key)
            self.order.append(key)
            return True, None
        gone = self.order.pop(0) if len(self.order) == self.capacity else None
        self.order.append(key)
        return False, gone


class ReferenceSieve:
    def __init__(self, capacity: int) -> None:
        self.capacity, self.queue = capacity, list[int]()  # tail first
        self.visited: set[int] = set()
        self.hand: int | None = None  # the key it points at

    def access(self, key: int) -> Step:
        if key in self.queue:
            self.visited.add(key)
            return True, None
        gone = self.evict() if len(self.queue) == self.capacity else None
        self.queue.append(key)
        return False, gone

    def evict(self) -> int:
        at = 0 if self.hand is None else self.queue.index(self.hand)
        while self.queue[at] in self.visited:
            self.visited.remove(self.queue[at])
            at = (at + 1) % len(self.queue)  # beyond the head the hand is back at the tail
        self.hand = self.queue[at + 1] if at + 1 < len(self.queue) else None
        return self.queue.pop(at)


class ReferenceS3Fifo:
    """Below ten entries: one queue with a second chance."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.small, self.main, self.ghost = list[int](), list[int](), list[int]()
        self.uses: dict[int, int] = {}

    def access(self, key: int) -> Step:
        if key in self.uses:
            self.uses[key] = min(self.uses[key] + 1, 3)
            return True, None
        known = key in self.ghost
        if known:
            self.ghost.remove(key)
        gone = self.evict() if len(self.uses) == self.capacity else None
        (self.main if known or self.capacity < 10 else self.small).append(key)
        self.uses[key] = 0
        return False, gone

    def evict(self) -> int:
        while True:
            if self.small and (len(self.small) >= self.capacity / 10 or not self.main):
                key = self.small.pop(0)
                if self.uses[key] > 1:
                    self.uses[key] = 0
                    self.main.append(key)
                    continue
                self.ghost.append(key)
                del self.ghost[: -(self.capacity * 9 // 10)]
            else:
                key = self.main.pop(0)
                if self.uses[key] > 0:
                    self.uses[key] = 0 if self.capacity < 10 else self.uses[key] - 1
                    self.main.append(key)
                    continue
            del self.uses[key]
            return key


class ReferenceArc:
    """Figure 4 of the paper, case by case; lists are LRU first."""

    def __init__(self, capacity: int) -> None:
        self.c, self.p = capacity, 0.0
        self.t1, self.t2, self.b1, self.b2 = list[int](), list[int](), list[int](), list[int]()

    def access(self, key: int) -> Step:
        gone: int | None = None
        hit = key in self.t1 or key in self.t2
        if hit:  # case I
            (self.t1 if key in self.t1 else self.t2).remove(key)
        elif key in self.b1:  # case II
            self.p = min(self.c, self.p + max(1.0, len(self.b2) / len(self.b1)))
            gone = self.replace(key)
            self.b1.remove(key)
        elif key in self.b2:  # case III
            self.p = max(0.0, self.p - max(1.0, len(self.b1) / len(self.b2)))
            gone = self.replace(key)
            self.b2.remove(key)
        else:  # case IV
            gone = self.make_room(key)
            self.t1.append(key)
            self.check()
            return False, gone
        self.t2.append(key)
        self.check()
        return hit, gone

    def make_room(self, key: int) -> int | None:
        if len(self.t1) + len(self.b1) == self.c:
            if len(self.t1) == self.c:
                return self.t1.pop(0)
            self.b1.pop(0)
            return self.replace(key)
        everything = len(self.t1) + len(self.t2) + len(self.b1) + len(self.b2)
        if everything == 2 * self.c:
            self.b2.pop(0)
        return self.replace(key) if everything >= self.c else None

    def replace(self, key: int) -> int:
        above = len(self.t1) > self.p or (key in self.b2 and len(self.t1) == self.p)
        if self.t1 and (above or not self.t2):
            self.b1.append(self.t1.pop(0))
            return self.b1[-1]
        self.b2.append(self.t2.pop(0))
        return self.b2[-1]

    def check(self) -> None:
        assert len(self.t1) + len(self.t2) <= self.c
        assert len(self.t1) + len(self.b1) <= self.c
        assert len(self.t1) + len(self.t2) + len(self.b1) + len(self.b2) <= 2 * self.c


REFERENCES: dict[str, type[Reference]] = {
    "lru": ReferenceLru,
    "sieve": ReferenceSieve,
    "s3fifo": ReferenceS3Fifo,
    "arc": ReferenceArc,
}
