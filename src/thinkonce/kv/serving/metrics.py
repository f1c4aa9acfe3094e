"""The model server's numbers, in Prometheus' text form. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

__all__ = ("FAMILIES", "PREFIX", "TEXT_TYPE", "exposition")

PREFIX = "thinkonce_"
TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
# Name without the prefix, kind, labels, what it tells.
FAMILIES = (
    ("kv_prompts_total", "counter", "", "Prompts that were begun."),
    ("kv_prompt_tokens_total", "counter", "", "Their tokens."),
    ("kv_cached_tokens_total", "counter", "tier", "Of those, the ones that were loaded."),
    ("kv_reused_tokens_total", "counter", "method", "The same, by how they were reused."),
    ("kv_recomputed_tokens_total", "counter", "", "Of moved chunks, tokens computed again."),
    ("kv_blocks", "gauge", "tier", "Blocks that are kept."),
    ("kv_bytes", "gauge", "tier", "Bytes that they take."),
    ("kv_max_bytes", "gauge", "tier", "Bytes that they may take."),
    ("kv_evictions_total", "counter", "tier", "Blocks that made room for others."),
    ("kv_dropped_total", "counter", "tier", "Blocks that were not kept: no room, or a failure."),
    ("kv_damaged_total", "counter", "tier", "Blocks found and not what was written."),
    ("kv_prefill_seconds", "summary", "", "Time to compute a piece of a prompt."),
    ("kv_load_seconds", "summary", "", "Time to load a block from disk."),
    ("kv_fidelity_answers_total", "counter", "setting", "Answers of prompts with marked parts."),
    ("kv_fidelity_audits", "gauge", "setting", "Audits of approximate answers that count now."),
    ("kv_fidelity_agreement", "gauge", "setting", "Tokens on which they agree with exact ones."),
    ("kv_fidelity_agreement_low", "gauge", "setting", "The lower end of its 95 % interval."),
    ("kv_fidelity_kl", "gauge", "setting", "KL of the next token from the exact one, in nats."),
    ("kv_fidelity_kl_high", "gauge", "setting", "The upper end of its 95 % interval."),
    ("kv_fidelity_in_force", "gauge", "setting", "Tenants' namespaces it was served to last."),
    ("kv_fidelity_bound", "gauge", "measure", "Least agreement and most KL that are served."),
    ("kv_fidelity_alarms_total", "counter", "", "Settings that were served and left the bounds."),
    ("kv_fidelity_saved_tokens_total", "counter", "", "Tokens that approximate reuse saved."),
    ("kv_fidelity_audit_tokens_total", "counter", "", "Tokens that audits computed."),
    ("waiting", "gauge", "", "Requests in the line."),
    ("max_waiting", "gauge", "", "Requests that may be in the line."),
    ("running", "gauge", "", "Requests that are answered, by turns."),
    ("line_refused_total", "counter", "", "Requests that found no place in the line."),
    ("line_late_total", "counter", "", "Requests that were given up at their deadline."),
    ("model_alive", "gauge", "", "0 once the thread that runs the model has died."),
)

Values = dict[str, Any]  # by tier, or of "" alone


def exposition(stats: Mapping[str, Any], line: Mapping[str, Any], *, alive: bool) -> bytes:
    """`stats` and `line` are what `/kv/stats` answers. Where nothing is kept, the families of
    what is are empty.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(_values(stats) | _of_line(line) | {"model_alive": {"": alive}}))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, values: Mapping[str, Values]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for name, kind, label, about in FAMILIES:
            yield _metric(name, kind, label, about, self._values.get(name, {}))


def _metric(name: str, kind: str, label: str, about: str, values: Values) -> Metric:
    labels = [label] if label else []
    if kind == "summary":
        summary = SummaryMetricFamily(PREFIX + name, about)
        for count, seconds in values.values():
            summary.add_metric([], count, seconds)
        return summary
    made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    simple = made(PREFIX + name, about, labels=labels)
    for said, number in values.items():
        simple.add_metric([said] if label else [], number)
    return simple


def _values(stats: Mapping[str, Any]) -> dict[str, Values]:
    if not stats["reuse"]:
        return {}
    memory, disk = stats["memory"], stats["disk"]
    on_disk = 0 if disk is None else disk["tokens_loaded"]
    found: dict[str, Values] = {
        "kv_prompts_total": {"": stats["prompts"]},
        "kv_prompt_tokens_total": {"": stats["prompt_tokens"]},
        "kv_cached_tokens_total": {"memory": stats["cached_tokens"] - on_disk},
        "kv_reused_tokens_total": stats["by_method"],
        "kv_recomputed_tokens_total": {"": stats["recomputed_tokens"]},
        "kv_evictions_total": {"memory": stats["blocks_evicted"]},
        "kv_dropped_total": {"memory": stats["blocks_refused"]},
        "kv_damaged_total": {"memory": stats["collisions"]},
        "kv_prefill_seconds": {"": _summed(stats["prefill"])},
        "kv_load_seconds": {"": _summed(stats["load"])},
    } | {f"kv_{name}": {"memory": memory[name]} for name in ("blocks", "bytes", "max_bytes")}
    found |= _fidelity(stats["fidelity"])
    if disk is not None:
        found["kv_cached_tokens_total"]["disk"] = on_disk
        of_disk = {"evictions_total": "evicted", "dropped_total": "dropped"}
        of_disk |= {"damaged_total": "damaged"}
        of_disk |= {name: name for name in ("blocks", "bytes", "max_bytes")}
        for name, told in of_disk.items():
            found[f"kv_{name}"]["disk"] = disk[told]
    return found


def _of_line(line: Mapping[str, Any]) -> dict[str, Values]:
    return {
        "waiting": {"": len(line["waiting"])},
        "max_waiting": {"": line["max_waiting"]},
        "running": {"": line["under_way"]},
        "line_refused_total": {"": line["refused"]},
        "line_late_total": {"": line["late"]},
    }


def _fidelity(told: Mapping[str, Any] | None) -> dict[str, Values]:
    if told is None:
        return {}
    found: dict[str, Values] = {
        "kv_fidelity_alarms_total": {"": told["alarms"]},
        "kv_fidelity_saved_tokens_total": {"": told["saved_tokens"]},
        "kv_fidelity_audit_tokens_total": {"": told["audit_tokens"]},
        "kv_fidelity_bound": told["bounds"],
    }
    for setting, numbers in told["settings"].items():
        for name in ("audits", "agreement", "agreement_low", "kl", "kl_high", "in_force"):
            if numbers.get(name) is not None:
                found.setdefault(f"kv_fidelity_{name}", {})[setting] = numbers[name]
        found.setdefault("kv_fidelity_answers_total", {})[setting] = numbers["answers"]
    return found


def _summed(measured: Mapping[str, Any]) -> tuple[int, float]:
    return measured["count"], measured["seconds"]
