"""Counters of the gateway in Prometheus' text form.

What is counted is in `counts`; the Prometheus objects are made when they are scraped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from thinkonce.gateway.counts import Counts, Timings
from thinkonce.tiers.tier import TierStats

__all__ = ("CONTENT_TYPE", "Metrics")

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics(Counts, Collector):
    """`tiers` are asked for their numbers at a scrape."""

    def __init__(
        self,
        tiers: Callable[[], Mapping[str, TierStats]] = dict,
        models: Iterable[str] = (),
    ) -> None:
        super().__init__(models)
        self._tiers = tiers
        self._counted: Mapping[str, TierStats] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def page(self) -> bytes:
        """`text`, with the tiers asked in a thread: counting a large store's rows takes long."""
        return self.text(await asyncio.to_thread(self._tiers))

    def text(self, tiers: Mapping[str, TierStats] | None = None) -> bytes:
        """`tiers`: their numbers, where they were asked already."""
        self._counted = self._tiers() if tiers is None else tiers
        return generate_latest(self._registry)

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
