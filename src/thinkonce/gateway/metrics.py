"""What was counted, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from thinkonce.gateway.numbers import Numbers, Timings
from thinkonce.insight.savings import BILLION, MICROS, MILLION, NANOS, TOKENS, Book

__all__ = ("CONTENT_TYPE", "exposition")

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def exposition(numbers: Numbers, saved: Book) -> bytes:
    """`numbers` in Prometheus' text form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(numbers, saved))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, numbers: Numbers, saved: Book) -> None:
        self._numbers, self._counted, self._saved = numbers, numbers.counted, saved

    def collect(self) -> Iterator[Metric]:
        yield self._requests()
        yield self._seconds()
        about = "Time upstreams took to answer."
        yield _histogram("upstream_seconds", about, self._counted.upstream)
        yield from self._savings()
        yield from self._connections()
        yield from self._tier_numbers()

    def _requests(self) -> Metric:
        names = ("endpoint", "model", "outcome", "match")
        family = CounterMetricFamily("thinkonce_requests_total", "Requests answered.", labels=names)
        for labels, count in self._counted.requests.items():
            family.add_metric(labels, count)
        return family

    def _seconds(self) -> Metric:
        family = HistogramMetricFamily(
            "thinkonce_request_seconds", "Time to answer a request.", labels=("outcome",)
        )
        for outcome, timings in self._counted.seconds.items():
            family.add_metric((outcome,), timings.buckets(), timings.sum)
        return family

    def _savings(self) -> Iterator[Metric]:
        counted = self._counted
        total = self._saved.total()
        yield _counter("saved_tokens_total", "Tokens that hits did not cost.", total[TOKENS])
        usd = total[NANOS] / BILLION
        yield _counter("saved_usd_total", "US dollars that hits did not cost.", usd)
        seconds = total[MICROS] / MILLION
        yield _counter("saved_seconds_total", "Model time hits did not take.", seconds)
        about = "Requests that joined another's call."
        yield _counter("coalesced_total", about, counted.coalesced)
        about = "Requests forwarded untouched because the cache itself failed."
        yield _counter("cache_failures_total", about, counted.cache_failures)
        feedback = CounterMetricFamily(
            "thinkonce_feedback_total", "Answers that people judged.", labels=("verdict",)
        )
        for verdict, count in counted.feedback.items():
            feedback.add_metric((verdict,), count)
        yield feedback
        inflight = self._numbers.inflight
        yield GaugeMetricFamily(
            "thinkonce_inflight", "Requests being answered now.", value=inflight
        )

    def _connections(self) -> Iterator[Metric]:
        held = self._numbers.connections
        yield GaugeMetricFamily("thinkonce_connections", "Connections of clients.", value=held)
        ended = CounterMetricFamily(
            "thinkonce_connections_ended_total",
            "Connections refused or cut off.",
            labels=("reason",),
        )
        for reason, count in self._counted.connections_ended.items():
            ended.add_metric((reason,), count)
        yield ended

    def _tier_numbers(self) -> Iterator[Metric]:
        stats = self._numbers.tiers
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
        failed = self._counted.tier_errors
        for name in {**stats, **failed}:
            unheard = stats[name].errors if name in stats else 0
            errors.add_metric((name,), failed.get(name, 0) + unheard)
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
