"""Counts of what the gateway does: plain addition on the event loop's thread.

What a client chooses (the model's name) is a label only if the configuration or the upstream
knows it; anything else counts as `other`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable

from thinkonce.gateway.numbers import BOUNDS, Counted, Labels, ServerNumbers, Timings
from thinkonce.gateway.saving import Keeper
from thinkonce.insight.savings import Savings
from thinkonce.web.bodies import Bodies

__all__ = ("OTHER", "Counts")

OTHER = "other"  # stands for models that nobody knows

# Models whose names answers have taught us, besides configured ones.
MAX_MODELS = 200
MAX_NAME = 128  # characters


class Counts:
    """A `Counting`. Not thread-safe: one event loop counts, in `counted`.

    What hits saved is counted in `savings`, and kept by `keeper`.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self.keeper = keeper or Keeper(Savings(time.time), None)
        self.savings = self.keeper.savings
        self.counted = Counted()
        self.upstream_took = self.counted.upstream.add
        # The same dicts, one step nearer: every hit counts here.
        self._requests, self._seconds = self.counted.requests, self.counted.seconds
        self._models: set[str] = set()
        self.inflight = 0
        self.bodies = Bodies()  # of requests being answered now
        self.connections: Callable[[], int] = int  # how many clients hold now
        self.servers: Callable[[], dict[tuple[str, str], ServerNumbers]] = dict
        if self.keeper.is_alone:
            self.counted.savings = self.savings.book.rows

    def coalesced(self) -> None:
        self.counted.coalesced += 1

    def cache_failed(self) -> None:
        self.counted.cache_failures += 1

    def count(self, labels: Labels, seconds: float) -> None:
        """One answered request. `labels` in the order of `Labels`."""
        requests = self._requests
        requests[labels] = requests.get(labels, 0) + 1
        timings = self._seconds.get(labels[2])
        if timings is None:
            timings = self.timings(labels[2])
        timings.counts[bisect_left(BOUNDS, seconds)] += 1  # as `add` does, which takes as long
        timings.sum += seconds

    def count_answers(self, labels: Labels, times: int) -> None:
        """So many answered requests, whose time was told to `timings`."""
        self._requests[labels] = self._requests.get(labels, 0) + times

    def timings(self, outcome: str) -> Timings:
        """How long answers of this outcome took."""
        timings = self._seconds.get(outcome)
        if timings is None:
            timings = self._seconds[outcome] = Timings()
        return timings

    def refused(self, status: int, *, by_us: bool) -> None:
        """An answer of status 400 or more; `by_us`: no upstream chose it."""
        refused, labels = self.counted.refused, (str(status), "gateway" if by_us else "upstream")
        refused[labels] = refused.get(labels, 0) + 1

    def limited(self, limit: str) -> None:
        """A request was beyond this limit."""
        limited = self.counted.limited
        limited[limit] = limited.get(limit, 0) + 1

    def tier_failed(self, tier: str) -> None:
        failed = self.counted.tier_errors
        failed[tier] = failed.get(tier, 0) + 1

    def know(self, models: Iterable[str]) -> None:
        """The configuration names them."""
        self._models.update(models)

    def learn_model(self, model: str) -> None:
        """An upstream answered for `model`, so it exists; unless it answers for any name."""
        if len(self._models) < MAX_MODELS and len(model) <= MAX_NAME and model.isprintable():
            self._models.add(model)

    def model(self, name: str) -> str:
        """The label for a model a client named."""
        return name if name in self._models else OTHER
