"""What was counted, in Prometheus' text form, and every metric's definition.

`FAMILIES` is all there is: the page of a gateway and docs/metrics.md are both made of it.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics_text
from prometheus_client.registry import Collector

from thinkonce.gateway.numbers import Numbers, Timings
from thinkonce.insight.savings import (
    BILLION,
    CALLS,
    ITEMS,
    MICROS,
    MILLION,
    NANOS,
    TOKENS,
    UNPRICED,
    Book,
)
from thinkonce.meaning.compared import worst
from thinkonce.tiers.tier import TierStats
from thinkonce.version import __version__

__all__ = ("FAMILIES", "PREFIX", "Family", "exposition")

PREFIX = "thinkonce_"
TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

Values = dict[tuple[str, ...], float | Timings]  # by the values of the labels, in their order


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name without the prefix, what it is, its labels, what it tells."""

    name: str
    kind: str  # counter, gauge or histogram
    about: str
    labels: tuple[str, ...] = ()


_SERVER = ("pool", "server")
FAMILIES = (
    Family(
        "requests_total",
        "counter",
        "Requests answered. Models that nobody configured and no upstream served are `other`; "
        "the outcome `error` stands for requests that were refused before the cache was asked.",
        ("endpoint", "model", "outcome", "match"),
    ),
    Family("request_seconds", "histogram", "Time to answer a request.", ("outcome",)),
    Family(
        "refused_total",
        "counter",
        "Answers of status 400 and above, by who chose the status: the gateway, or the upstream "
        "whose answer was passed on. 499: the client left before there was an answer.",
        ("status", "by"),
    ),
    Family(
        "limited_total",
        "counter",
        "Of those refused by the gateway: beyond which limit of [clients.NAME] or [gateway].",
        ("reason",),
    ),
    Family("inflight", "gauge", "Requests being answered now."),
    Family("body_bytes", "gauge", "Bytes of request bodies that are held for them."),
    Family("following", "gauge", "Of these, requests that wait for a call of an upstream."),
    Family("coalesced_total", "counter", "Requests that joined another's call."),
    Family("connections", "gauge", "Connections of clients."),
    Family("connections_ended_total", "counter", "Connections refused or cut off.", ("reason",)),
    Family("upstream_seconds", "histogram", "Time upstreams took to answer."),
    Family("upstream_requests_total", "counter", "Attempts at a server of a pool.", _SERVER),
    Family(
        "upstream_failures_total",
        "counter",
        "Of these, attempts that ended without an answer, or with 5xx.",
        _SERVER,
    ),
    Family("upstream_busy", "gauge", "Requests a server works on now.", _SERVER),
    Family(
        "upstream_open",
        "gauge",
        "1 while a server is left alone: after failures (its circuit is open), or because it said "
        "Retry-After. With several workers, how many of them leave it alone.",
        _SERVER,
    ),
    Family("upstream_down", "gauge", "1 while a server fails its health check.", _SERVER),
    Family("saved_tokens_total", "counter", "Tokens that hits did not cost."),
    Family("saved_usd_total", "counter", "US dollars that hits did not cost, at known prices."),
    Family("saved_seconds_total", "counter", "Model time that hits did not take."),
    Family(
        "saved_calls_total",
        "counter",
        "Calls of upstreams that were not made, by what answered instead.",
        ("outcome",),
    ),
    Family(
        "saved_items_total", "counter", "Inputs of embeddings requests that were not asked for."
    ),
    Family("saved_unpriced_total", "counter", "Answers whose saved money is not known."),
    Family("entries", "gauge", "Entries held.", ("tier",)),
    Family("bytes", "gauge", "Bytes held.", ("tier",)),
    Family("evictions_total", "counter", "Entries removed.", ("reason",)),
    Family("tier_errors_total", "counter", "Failures of a tier.", ("tier",)),
    Family("store_dropped_total", "counter", "Writes given up."),
    Family(
        "cache_failures_total",
        "counter",
        "Requests forwarded untouched because the cache itself failed.",
    ),
    Family("feedback_total", "counter", "Answers that people judged.", ("verdict",)),
    Family(
        "semantic_missed_total",
        "counter",
        "Questions that were compared with stored ones and not answered, by why.",
        ("why",),
    ),
    Family(
        "semantic_vetoes_total", "counter", "Guards that objected to a stored question.", ("veto",)
    ),
    Family("semantic_passed_over_total", "counter", "Questions that are never compared.", ("why",)),
    Family(
        "semantic_error_bound",
        "gauge",
        "Share of wrong answers among hits in other words that audits have not excluded, of the "
        "tenant where it is largest; 1 before there is evidence. Namespaces that the "
        "settings do not name are `other`.",
        ("namespace",),
    ),
    Family(
        "semantic_audits",
        "gauge",
        "Audits that this bound rests on, of that tenant. It begins anew after an alarm.",
        ("namespace",),
    ),
    Family("build_info", "gauge", "Always 1; the labels say what runs.", ("version", "python")),
)


def exposition(numbers: Numbers, saved: Book, accept: bytes = b"") -> tuple[bytes, bytes]:
    """Content type and text: OpenMetrics where the header `Accept` names it, else Prometheus'."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(_values(numbers, saved)))
    if b"application/openmetrics-text" in accept:
        written: bytes = openmetrics_text.generate_latest(registry)  # type: ignore[no-untyped-call]
        return OPENMETRICS_TYPE, written
    return TEXT_TYPE, generate_latest(registry)


class _Page(Collector):
    def __init__(self, values: Mapping[str, Values]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield _metric(family, self._values[family.name])


def _metric(family: Family, values: Values) -> Metric:
    name, about, labels = PREFIX + family.name, family.about, family.labels
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, about, labels=labels)
        for said, timings in values.items():
            assert isinstance(timings, Timings)
            histogram.add_metric(said, timings.buckets(), timings.sum)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    simple = kind(name, about, labels=labels)
    for said, number in values.items():
        assert not isinstance(number, Timings)
        simple.add_metric(said, number)
    return simple


def _values(numbers: Numbers, saved: Book) -> dict[str, Values]:
    counted = numbers.counted
    return {
        "requests_total": {(*labels,): count for labels, count in counted.requests.items()},
        "request_seconds": _labelled(counted.seconds),
        "refused_total": {(*labels,): count for labels, count in counted.refused.items()},
        "inflight": {(): numbers.inflight},
        "following": {(): numbers.following},
        "coalesced_total": {(): counted.coalesced},
        "connections": {(): numbers.connections},
        "connections_ended_total": _labelled(counted.connections_ended),
        "limited_total": _labelled(counted.limited),
        "body_bytes": {(): numbers.body_bytes},
        "upstream_seconds": {(): counted.upstream},
        "cache_failures_total": {(): counted.cache_failures},
        "feedback_total": _labelled(counted.feedback),
        "build_info": {(__version__, platform.python_version()): 1},
        **_of_meaning(numbers),
        **_of_servers(numbers),
        **_of_savings(saved),
        **_of_tiers(numbers.tiers, counted.tier_errors),
    }


def _of_meaning(numbers: Numbers) -> dict[str, Values]:
    compared, promises = numbers.compared, worst(numbers.promises).items()
    return {
        "semantic_missed_total": _labelled(compared.missed),
        "semantic_vetoes_total": _labelled(compared.vetoes),
        "semantic_passed_over_total": _labelled(compared.passed_over),
        "semantic_error_bound": {(name,): promise.bound for name, promise in promises},
        "semantic_audits": {(name,): promise.audits for name, promise in promises},
    }


def _of_servers(numbers: Numbers) -> dict[str, Values]:
    servers = numbers.servers.items()
    return {
        "upstream_requests_total": {name: server.requests for name, server in servers},
        "upstream_failures_total": {name: server.failures for name, server in servers},
        "upstream_busy": {name: server.busy for name, server in servers},
        "upstream_open": {name: server.open for name, server in servers},
        "upstream_down": {name: server.down for name, server in servers},
    }


def _of_savings(saved: Book) -> dict[str, Values]:
    total, outcomes = saved.total(), saved.rows["outcome"].items()
    return {
        "saved_tokens_total": {(): total[TOKENS]},
        "saved_usd_total": {(): total[NANOS] / BILLION},
        "saved_seconds_total": {(): total[MICROS] / MILLION},
        "saved_calls_total": {(outcome,): row[CALLS] for outcome, row in outcomes},
        "saved_items_total": {(): total[ITEMS]},
        "saved_unpriced_total": {(): total[UNPRICED]},
    }


def _of_tiers(stats: Mapping[str, TierStats], failed: Mapping[str, int]) -> dict[str, Values]:
    reasons = Counter[str]()
    for stat in stats.values():
        reasons.update(stat.evictions)
    # Not every name is a tier's: the flight table fails under one of its own.
    errors = {name: failed.get(name, 0) for name in {**stats, **failed}}
    return {
        "entries": {(name,): stat.entries for name, stat in stats.items()},
        "bytes": {(name,): stat.bytes for name, stat in stats.items()},
        "evictions_total": _labelled(reasons),
        "tier_errors_total": {
            (name,): count + (stats[name].errors if name in stats else 0)
            for name, count in errors.items()
        },
        "store_dropped_total": {(): sum(stat.dropped_writes for stat in stats.values())},
    }


def _labelled(counts: Mapping[str, float | Timings]) -> Values:
    return {(name,): count for name, count in counts.items()}
