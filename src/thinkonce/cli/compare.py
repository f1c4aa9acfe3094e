"""`bench --prompts`: one's own prompts, asked without the cache and with it.

Each prompt is asked with the cache switched off and then, at once, with it on: a slow minute of
the machine or the provider hits both alike. Then the whole file is asked again with the cache.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import msgspec

from thinkonce.cli.gateway_view import UNREACHED, GatewayError, reason_in
from thinkonce.cli.output import print_json, print_table, progress
from thinkonce.errors import ConfigError
from thinkonce.settings.check import check_upstream_url

__all__ = ("read_prompts", "run")

# A local model on a slow machine takes minutes for a long prompt.
TIMEOUT_SECONDS = 600.0
OFF = {"enabled": False}


class Lap(msgspec.Struct, frozen=True):
    """One prompt's answer."""

    seconds: float
    outcome: str


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Report(msgspec.Struct, frozen=True):
    """Seconds; `again` are the laps of the second time through."""

    prompts: int
    without: list[float]
    first: list[float]
    again: list[float]
    hits_first: int
    hits_again: int


def read_prompts(file: Path) -> list[dict[str, Any]]:
    """Chat request bodies from `file`: a prompt a line, or JSON lines.

    A JSON line is a request body, an OpenAI Batch line (its `body`), or has a `prompt`. Raises
    ConfigError naming the line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("--prompts", str(file), f"a readable text file ({error})") from None
    bodies = [
        _body(f"--prompts {file.name}:{number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not bodies:
        raise ConfigError("--prompts", str(file), "a file with at least one prompt")
    return bodies


def _body(where: str, line: str) -> dict[str, Any]:
    if not line.lstrip().startswith("{"):
        return {"messages": [{"role": "user", "content": line.strip()}]}
    accepts = "a JSON object with messages, body or prompt"
    try:
        found: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        raise ConfigError(where, line[:60], accepts) from None
    found = found.get("body", found)
    if isinstance(found, dict) and isinstance(found.get("prompt"), str):
        found = {"messages": [{"role": "user", "content": found["prompt"]}]}
    if not isinstance(found, dict) or not isinstance(found.get("messages"), list):
        raise ConfigError(where, line[:60], accepts)
    return found


def run(bodies: Sequence[dict[str, Any]], url: str, model: str | None, as_json: bool) -> None:
    """Ask, then print. Raises GatewayError where `url` is no gateway or answers an error.

    `model` is for bodies that name none; None: the first one the gateway has.
    """
    check_upstream_url("--url", url)
    if model is None and not all("model" in body for body in bodies):
        model = _first_model(url)
    bodies = [{"model": model, **body} for body in bodies]
    without, first, again = [], [], []
    with progress() as bar:
        task = bar.add_task("asking", total=2 * len(bodies))
        for body in bodies:
            without.append(_ask(url, {**body, "kv_cache": OFF}))
            first.append(_ask(url, body))
            bar.advance(task)
        for body in bodies:
            again.append(_ask(url, body))
            bar.advance(task)
    report = Report(
        prompts=len(bodies),
        without=_seconds(without),
        first=_seconds(first),
        again=_seconds(again),
        hits_first=_hits(first),
        hits_again=_hits(again),
    )
    print_json(_summary(report)) if as_json else _print(report)


def _first_model(url: str) -> str:
    """The first model the gateway at `url` names. Raises GatewayError."""
    raw, _ = _exchange(url, "GET", "/v1/models")
    try:
        models = msgspec.json.decode(raw, type=_Models).data
    except msgspec.DecodeError:
        models = []
    if not models:
        raise GatewayError(f"{url} names no models; choose one with --model")
    return models[0].id


def _ask(url: str, body: dict[str, Any]) -> Lap:
    began = time.perf_counter()
    _, headers = _exchange(url, "POST", "/v1/chat/completions", msgspec.json.encode(body))
    seconds = time.perf_counter() - began
    outcome = headers.get("x-cache")
    if outcome is None:
        raise GatewayError(f"{url} sent no x-cache header: is it a thinkonce gateway?")
    return Lap(seconds, outcome)


def _exchange(url: str, method: str, path: str, body: bytes | None = None) -> tuple[bytes, Message]:
    """The body and the headers of a 200, on a connection of its own."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)
    headers = {"content-type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    try:
        connection.request(method, parts.path.rstrip("/").removesuffix("/v1") + path, body, headers)
        response = connection.getresponse()
        raw = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(UNREACHED.format(url, "serve")) from error
    finally:
        connection.close()
    if response.status != 200:
        raise GatewayError(f"{url} answered {response.status}: {reason_in(raw)}")
    return raw, response.headers


def _seconds(laps: Sequence[Lap]) -> list[float]:
    return [lap.seconds for lap in laps]


def _hits(laps: Sequence[Lap]) -> int:
    return sum(lap.outcome in ("HIT", "STALE", "COALESCED") for lap in laps)


def _summary(report: Report) -> dict[str, Any]:
    return {
        "prompts": report.prompts,
        "without_cache": _spread(report.without),
        "with_cache": {**_spread(report.first), "hits": report.hits_first},
        "again": {**_spread(report.again), "hits": report.hits_again},
        "speedup_first": sum(report.without) / sum(report.first),
        "speedup_again": sum(report.without) / sum(report.again),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Total, and the time of the 50th, 90th and 99th of a hundred, in seconds."""
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    return {"total": sum(seconds), "p50": median(seconds), "p90": cuts[89], "p99": cuts[98]}


def _print(report: Report) -> None:
    rows = (
        ("without cache", report.without, "-"),
        ("with cache, first time", report.first, f"{report.hits_first}/{report.prompts}"),
        ("with cache, second time", report.again, f"{report.hits_again}/{report.prompts}"),
    )
    print_table(
        ("", "HITS", "TOTAL", "P50", "P90", "P99", "SPEED"),
        [
            (
                name,
                hits,
                *(f"{value * 1000:.1f} ms" for value in _spread(seconds).values()),
                f"{sum(report.without) / sum(seconds):.1f}x",
            )
            for name, seconds, hits in rows
        ],
    )
