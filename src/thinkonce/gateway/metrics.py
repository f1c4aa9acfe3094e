"""Counters of the gateway in Prometheus' text form.

Counting is plain addition on the event loop's thread; the Prometheus objects are made when they
are scraped. What a client chooses (the model's name) is a label only if the configuration or the
upstream knows it; anything else counts as `other`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from thinkonce.outcome import Outcome
from thinkonce.tiers.tier import TierStats

__all__ = ("CONTENT_TYPE", "Metrics", "Timings")

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
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


class Metrics(Collector):
    """Not thread-safe: one event loop counts. `tiers` are asked for their numbers at a scrape."""

    def __init__(
        self,
        tiers: Callable[[], Mapping[str, TierStats]] = dict,
        models: Iterable[str] = (),
    ) -> None:
        self._tiers = tiers
        self._counted: Mapping[str, TierStats] = {}
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
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    # -- counting ------------------------------------------------------------------------

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

    # -- telling -------------------------------------------------------------------------

    async def page(self) -> bytes:
        """`text`, with the tiers asked in a thread: counting a large store's rows takes long."""
        return self.text(await asyncio.to_thread(self._tiers))

    def text(self, tiers: Mapping[str, TierStats] | None = None) -> bytes:
        """`tiers`: their numbers, where they were asked already."""
        self._counted = self._tiers() if tiers is None else tiers
        return generate_latest(self._registry)

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

    def collect(self) -> Iterator[Metric]:
        yield self._requests()
        yield self._seconds()
        yield _histogram("upstream_seconds", "Time upstreams took to answer.", self.upstream)
        yield from self._savings()
        yield from self._tier_numbers()

    def _requests(self) -> Metric:
        names = ("endpoint", "model", "outcome", "match")
        family = CounterMetricFamily("thinkonce_requests_total", "Requests answered.", labels=names)
        for labels, count in self.requests.items():
            family.add_metric(labels, count)
        return family

    def _seconds(self) -> Metric:
        family = HistogramMetricFamily(
            "thinkonce_request_seconds", "Time to answer a request.", labels=("outcome",)
        )
        for outcome, timings in self.seconds.items():
            family.add_metric((outcome,), timings.buckets(), timings.sum)
        return family

    def _savings(self) -> Iterator[Metric]:
        yield _counter("saved_tokens_total", "Tokens that hits did not cost.", self.saved_tokens)
        yield _counter("saved_usd_total", "US dollars that hits did not cost.", self.saved_usd)
        yield _counter("saved_seconds_total", "Model time hits did not take.", self.saved_seconds)
        yield _counter("coalesced_total", "Requests that joined another's call.", self.coalesced)
        yield _counter(
            "cache_failures_total",
            "Requests forwarded untouched because the cache itself failed.",
            self.cache_failures,
        )
        feedback = CounterMetricFamily(
            "thinkonce_feedback_total", "Answers that people judged.", labels=("verdict",)
        )
        for verdict, count in self.feedback.items():
            feedback.add_metric((verdict,), count)
        yield feedback
        yield GaugeMetricFamily(
            "thinkonce_inflight", "Requests being answered now.", value=self.inflight
        )

    def _tier_numbers(self) -> Iterator[Metric]:
        stats = self._counted
        entries = GaugeMetricFamily("thinkonce_entries", "Entries held.", labels=("tier",))
        size = GaugeMetricFamily("thinkonce_bytes", "Bytes held.", labels=("tier",))
        evictions = CounterMetricFamily(
            "thinkonce_evictions_total", "Entries removed.", labels=("reason",)
        )
        errors = CounterMetricFamily(
            "thinkonce_tier_errors_total", "Failures of a tier.", labels=("tier",)
        )
        reasons: dict[str, int] = {}
        for name, stat in stats.items():
            entries.add_metric((name,), stat.entries)
            size.add_metric((name,), stat.bytes)
            for reason, count in stat.evictions.items():
                reasons[reason] = reasons.get(reason, 0) + count
        # Not every name is a tier's: the flight table fails under one of its own.
        for name in {**stats, **self.tier_errors}:
            unheard = stats[name].errors if name in stats else 0
            errors.add_metric((name,), self.tier_errors.get(name, 0) + unheard)
        for reason, count in reasons.items():
            evictions.add_metric((reason,), count)
        dropped = sum(stat.dropped_writes for stat in stats.values())
        yield from (entries, size, evictions, errors)
        yield _counter("store_dropped_total", "Writes given up.", dropped)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"thinkonce_{name}", about, value=value)


def _histogram(name: str, about: str, timings: Timings) -> Metric:
    return HistogramMetricFamily(
        f"thinkonce_{name}", about, buckets=timings.buckets(), sum_value=timings.sum
    )
