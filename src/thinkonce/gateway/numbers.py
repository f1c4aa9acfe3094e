"""What a gateway has counted, in a form that can be added up over the workers that counted it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from functools import reduce
from typing import Any

import msgspec

from thinkonce.engine.counting import Labels
from thinkonce.meaning.compared import Compared, Promise, Promises
from thinkonce.outcome import Outcome
from thinkonce.sums import added
from thinkonce.tiers.tier import TierStats

__all__ = (
    "BOUNDS",
    "Counted",
    "Labels",
    "Numbers",
    "ServerNumbers",
    "Timings",
    "of_the_gone",
    "total",
)

# Seconds. A memory hit takes less than a millisecond, a long answer minutes.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_ANSWERED = (Outcome.HIT, Outcome.STALE, Outcome.COALESCED)


class Timings(msgspec.Struct):
    """A histogram: how many took up to each bound, and their sum in seconds."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class ServerNumbers(msgspec.Struct):
    """Of one server of a pool: attempts and failed ones, and how it is now."""

    requests: int = 0
    failures: int = 0
    busy: int = 0
    open: int = 0  # its circuit
    down: int = 0


class Counted(msgspec.Struct):
    """What only grows: sums of `total` go on with what a worker that ended had counted.

    Fields are numbers, `Timings`, or dicts of these by their labels.
    """

    requests: dict[Labels, int] = msgspec.field(default_factory=dict)
    seconds: dict[str, Timings] = msgspec.field(default_factory=dict)  # by outcome
    upstream: Timings = msgspec.field(default_factory=Timings)
    refused: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)  # status, by whom
    coalesced: int = 0
    tier_errors: dict[str, int] = msgspec.field(default_factory=dict)
    cache_failures: int = 0
    # What hits saved, where no store adds that up: by dimension and name; see `insight.savings`.
    savings: dict[str, dict[str, list[int]]] = msgspec.field(default_factory=dict)
    feedback: dict[str, int] = msgspec.field(default_factory=lambda: {"wrong": 0, "right": 0})
    connections_ended: dict[str, int] = msgspec.field(default_factory=dict)  # by reason
    limited: dict[str, int] = msgspec.field(default_factory=dict)  # refused requests, by limit

    def summary(self) -> dict[str, Any]:
        """Requests by outcome, and the share that the cache answered.

        `hit_rate` is of look-ups, as `Cache.stats()` has it: errors and bypasses are none.
        """
        requests: dict[str, int] = {}
        for (_, _, outcome, _), count in self.requests.items():
            requests[outcome] = requests.get(outcome, 0) + count
        answered = sum(requests.get(outcome, 0) for outcome in _ANSWERED)
        asked = answered + requests.get(Outcome.MISS, 0)
        return {
            "requests": requests,
            "hit_rate": answered / asked if asked else 0.0,
        }


class Numbers(msgspec.Struct):
    """All of one gateway, or of one of its workers. `tiers` by name.

    `inflight` are requests being answered now, `following` those of them that wait for a call;
    `connections` are those of clients, `body_bytes` what is held of their requests' bodies;
    `servers` are told by their pool's name and their own; `compared` are questions, `promises`
    what audits say of hits in other words.
    """

    counted: Counted
    tiers: dict[str, TierStats]
    inflight: int = 0
    following: int = 0
    connections: int = 0
    servers: dict[tuple[str, str], ServerNumbers] = msgspec.field(default_factory=dict)
    compared: Compared = msgspec.field(default_factory=Compared)
    promises: Promises = msgspec.field(default_factory=dict)
    body_bytes: int = 0


def total(numbers: Iterable[Numbers]) -> Numbers:
    """The sum, of one or more. Shares parts with what it was made of: treat all as read-only."""
    return reduce(_plus, numbers)


def of_the_gone(numbers: Numbers) -> Numbers:
    """What is left of a worker's numbers once it has ended: what only grows."""
    tiers = {
        name: msgspec.structs.replace(stats, entries=0, bytes=0)
        for name, stats in numbers.tiers.items()
    }
    servers = {
        name: ServerNumbers(server.requests, server.failures)
        for name, server in numbers.servers.items()
    }
    return Numbers(numbers.counted, tiers, servers=servers, compared=numbers.compared)


def _plus(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        both = {name: _plus(one[name], other[name]) for name in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list):
        return added(one, other)
    if isinstance(one, Promise):
        return one.joined(other)
    if isinstance(one, msgspec.Struct):
        fields = one.__struct_fields__
        return type(one)(*(_plus(getattr(one, name), getattr(other, name)) for name in fields))
    return one + other
