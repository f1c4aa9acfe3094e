"""What a chat request's hit costs in process: the key, the look-up and the caller's own copy.

Beside it the usual way: sorted JSON, SHA-256, a dict that holds the answer as text. Both are
given the same messages and hand out a new dict for every caller.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from record import Goal, Table, interleaved, record, spread

from thinkonce import cached

GOAL = 4.0
REPLY = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 1800}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 400, "total_tokens": 412},
}
SIZES = {"0.5 KB": 200, "9 KB": 4_400, "108 KB": 54_000}  # characters of each of two messages
CLAIM = "A chat request's key and look-up cost a fraction of sorted JSON and SHA-256."
NOTES = [
    "`key and look-up` returns a text, so that only the key differs; `with a dict answer` adds "
    "the caller's own copy: msgpack on our side, `json.loads` on the other."
]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rounds; nothing is recorded")
    quick = options.parse_args(argv).quick
    tables, goals = [], []
    for title, value in (("Key and look-up", "an answer"), ("With a dict answer", REPLY)):
        rows: list[list[str | float | int | None]] = []
        for size, length in SIZES.items():
            ours, theirs = measure(messages_of(length), value, 3 if quick else 31)
            ratio = median(t / o for o, t in zip(ours, theirs, strict=True))
            goals.append(Goal(f"{title.lower()}, {size}", f">= {GOAL}", ratio, ratio >= GOAL))
            rows.append([f"{size}, thinkonce", *micro(ours), None])
            rows.append([f"{size}, sorted JSON + SHA-256", *micro(theirs), ratio])
        columns = ["case", "p50", "p90", "p99", "times thinkonce"]
        tables.append(Table(title, columns, rows, "µs a hit", "p50", log=True))
    if not quick:
        record("request", CLAIM, tables, goals, NOTES, packages=["msgspec"])
    for goal in goals:
        print(f"{goal.what}: {goal.measured:.2f} (wanted {goal.goal})")
    return 0


def messages_of(length: int) -> list[dict[str, str]]:
    text = "What does this function do, and why? 这个函数做什么？ " * (length // 40)
    return [
        {"role": "system", "content": "You are a careful reviewer. " + text[: length // 2]},
        {"role": "user", "content": text[:length]},
    ]


def measure(
    messages: list[dict[str, str]], value: Any, rounds: int
) -> tuple[list[float], list[float]]:
    cases = {"ours": ours(messages, value), "theirs": theirs(messages, value)}
    for case in cases.values():
        assert case() == value
    seconds = interleaved(cases, rounds, 200 if len(messages[0]["content"]) > 9000 else 2000)
    return seconds["ours"], seconds["theirs"]


def ours(messages: list[dict[str, str]], value: Any) -> Callable[[], object]:
    @cached(ttl=3600)
    def chat(messages: list[dict[str, str]], *, model: str, temperature: float = 0.7) -> Any:
        return value

    return lambda: chat(messages, model="m", temperature=0.7)


def theirs(messages: list[dict[str, str]], value: Any) -> Callable[[], object]:
    store: dict[str, str] = {}

    def chat(messages: list[dict[str, str]], *, model: str, temperature: float = 0.7) -> Any:
        body = {"messages": messages, "model": model, "temperature": temperature}
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        found = store.get(key)
        if found is None:
            found = store[key] = value if isinstance(value, str) else json.dumps(value)
        return found if isinstance(value, str) else json.loads(found)

    return lambda: chat(messages, model="m", temperature=0.7)


def micro(seconds: list[float]) -> list[float]:
    times = spread([1e6 * value for value in seconds])
    return [times.p50, times.p90, times.p99]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
