"""What is counted of requests and their answers: plain addition on the event loop's thread.

What a client chooses (the model's name) is a label only if the configuration or the upstream
knows it; anything else counts as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from thinkonce.outcome import Outcome

__all__ = ("Counts", "Labels", "Timings")

# Seconds. A memory hit takes less than a millisecond, a long answer minutes.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
# Models whose names answers have taught us, besides configured ones.
MAX_MODELS = 200
_ANSWERED = (Outcome.HIT, Outcome.STALE, Outcome.COALESCED)

Labels = tuple[str, str, str, str]  # endpoint, model, outcome, match


class Timings:
    """A histogram: how many took up to each bound, and their sum in seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class Counts:
    """Not thread-safe: one event loop counts. `models`: names that clients may see as labels."""

    def __init__(self, models: Iterable[str] = ()) -> None:
        self._models = set(models)
        self.requests: dict[Labels, int] = {}
        self.seconds: dict[str, Timings] = {}
        self.upstream = Timings()
        self.saved_tokens = 0
        self.saved_usd = self.saved_seconds = 0.0
        self.inflight = self.coalesced = 0
        self.tier_errors: dict[str, int] = {}
        self.cache_failures = 0
        self.feedback = {"wrong": 0, "right": 0}

    def count(self, labels: Labels, seconds: float) -> None:
        """One answered request. `labels` in the order of `Labels`."""
        requests = self.requests
        requests[labels] = requests.get(labels, 0) + 1
        timings = self.seconds.get(labels[2])
        if timings is None:
            timings = self.seconds[labels[2]] = Timings()
        timings.add(seconds)

    def saved(self, tokens: int, usd: float | None, seconds: float) -> None:
        self.saved_tokens += tokens
        self.saved_seconds += seconds
        if usd is not None:
            self.saved_usd += usd

    def tier_failed(self, tier: str) -> None:
        self.tier_errors[tier] = self.tier_errors.get(tier, 0) + 1

    def learn_model(self, model: str) -> None:
        """An upstream answered for `model`, so it exists."""
        if len(self._models) < MAX_MODELS:
            self._models.add(model)

    def model(self, name: str) -> str:
        """The label for a model a client named."""
        return name if name in self._models else "other"

    def summary(self) -> dict[str, Any]:
        """Requests by outcome, the share that the cache answered, and what that saved.

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
            "saved_seconds": self.saved_seconds,
            "saved_tokens": self.saved_tokens,
            "saved_usd": self.saved_usd,
        }
