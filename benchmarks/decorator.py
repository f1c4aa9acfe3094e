"""What a hit of `@cached` costs, beside the decorators people use today.

All cases run in turns inside each round, over the same function and arguments: one positional and
two keyword arguments. Times are CPU time of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import importlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from record import Goal, Table, interleaved, record, spread

from thinkonce import cached

TTL = 3600.0
REPLY = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 1800}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 400, "total_tokens": 412},
}
SYNC_GOAL, NAIVE_GOAL, ASYNC_GOAL = 1.3, 10.0, 2.0


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rounds; nothing is recorded")
    quick = options.parse_args(argv).quick
    rounds, repeats = (3, 2000) if quick else (31, 20_000)
    tables, goals = [], []
    for measure in (sync_text, sync_lengths, sync_dict, asynchronous):
        table, more = measure(rounds, repeats)
        tables.append(table)
        goals += more
    if not quick:
        packages = ["cachetools", "cachebox", "diskcache"]
        record("decorator", CLAIM, tables, goals, NOTES, packages=packages)
    for goal in goals:
        print(f"{goal.what}: {goal.measured:.2f} (wanted {goal.goal})")
    return 0


CLAIM = (
    "A hit of the decorator costs about what `functools.lru_cache` costs, with expiry, bounds in "
    "bytes and counters on top."
)
NOTES = [
    "`lru_cache` has no expiry; it is the floor. The plain decorator is the usual recipe: "
    "md5 of the arguments' text, a dict, a lock, a time stamp.",
    "For dicts, `lru_cache` hands out the one object it holds, which any caller can change for "
    "the next; `@cached` rebuilds it for each.",
]


# -- the cases -------------------------------------------------------------------------------


def answer_text(prompt: str, *, model: str = "m", temperature: float = 0.7) -> str:
    return "the answer to " + prompt


def answer_dict(prompt: str, *, model: str = "m", temperature: float = 0.7) -> dict[str, Any]:
    return REPLY


def decorators() -> dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Each way to cache, those that are installed."""
    ways: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        "functools.lru_cache": functools.lru_cache(maxsize=1000),
        "thinkonce": cached(ttl=TTL, max_size=1000),
        "thinkonce, no expiry": cached,
        "plain dict + md5": plain_md5,
    }
    ways |= optional("cachetools", with_cachetools)
    ways |= optional("cachebox", with_cachebox)
    ways |= optional("diskcache", with_diskcache)
    return ways


def optional(package: str, make: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    try:
        return make(importlib.import_module(package))
    except ImportError:
        print(f"{package} is not installed and left out; `make bench-tools` installs it")
        return {}


def with_cachetools(cachetools: Any) -> dict[str, Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        store = cachetools.TTLCache(1000, TTL)
        return cachetools.cached(store, lock=threading.RLock())(function)

    return {"cachetools TTL + lock": decorate}


def with_cachebox(cachebox: Any) -> dict[str, Any]:
    return {"cachebox TTL": cachebox.cached(cachebox.TTLCache(1000, TTL))}


def with_diskcache(diskcache: Any) -> dict[str, Any]:
    folder = tempfile.mkdtemp(prefix="thinkonce-bench-")
    return {"diskcache": diskcache.Cache(folder).memoize(expire=TTL)}


def plain_md5(function: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator of the usual article on caching model calls."""
    store: dict[str, tuple[float, Any]] = {}
    lock = threading.Lock()

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        text = f"{function.__name__}:{args!s}:{sorted(kwargs.items())!s}"
        key = hashlib.md5(text.encode()).hexdigest()
        with lock:
            found = store.get(key)
            if found is not None and time.time() - found[0] < TTL:
                return found[1]
        value = function(*args, **kwargs)
        with lock:
            store[key] = (time.time(), value)
        return value

    return wrapper


# -- the measurements ------------------------------------------------------------------------


def sync_text(rounds: int, repeats: int) -> tuple[Table, list[Goal]]:
    seconds = timed({name: way(answer_text) for name, way in decorators().items()}, rounds, repeats)
    own = ratio(seconds, "thinkonce", "functools.lru_cache")
    endless = ratio(seconds, "thinkonce, no expiry", "functools.lru_cache")
    naive = ratio(seconds, "plain dict + md5", "thinkonce")
    goals = [
        Goal(
            "sync hit without expiry / functools.lru_cache, which has none",
            f"<= {SYNC_GOAL}",
            endless,
            endless <= SYNC_GOAL,
        ),
        Goal("sync hit with a ttl / functools.lru_cache", f"<= {SYNC_GOAL}", own, own <= SYNC_GOAL),
        Goal("plain dict + md5 / sync hit", f">= {NAIVE_GOAL}", naive, naive >= NAIVE_GOAL),
    ]
    return table_of("Sync hit, a text", seconds), goals


def sync_lengths(rounds: int, repeats: int) -> tuple[Table, list[Goal]]:
    """A prompt in the same string object keeps its hash; one that came over the network has none
    yet. Making the new string is counted too, for all alike."""
    names = ("functools.lru_cache", "thinkonce", "plain dict + md5")
    rows: list[list[str | float | int | None]] = []
    for length in (16, 500, 9_000):
        for kind, prompts in (("same string", same), ("new string", made_anew)):
            ways = {name: way(answer_text) for name, way in decorators().items() if name in names}
            text = ("what is a cache? " * length)[:length]
            cases = {name: prompts(way, text) for name, way in ways.items()}
            for case in cases.values():
                case()
            seconds = interleaved(cases, rounds, repeats // 4)
            middles = [1e9 * median(seconds[name]) for name in names]
            times = ratio(seconds, "plain dict + md5", "thinkonce")
            rows.append([f"{length:,} characters, {kind}", *middles, round(times, 1)])
    columns = ["prompt", *names, "plain / thinkonce"]
    return Table("Sync hit by the length of the prompt", columns, rows, "ns a hit"), []


def same(way: Callable[..., Any], text: str) -> Callable[[], object]:
    return lambda: way(text, model="m", temperature=0.7)


def made_anew(way: Callable[..., Any], text: str) -> Callable[[], object]:
    raw = text.encode()
    return lambda: way(raw.decode(), model="m", temperature=0.7)


def sync_dict(rounds: int, repeats: int) -> tuple[Table, list[Goal]]:
    ways = {name: way(answer_dict) for name, way in decorators().items()}
    seconds = timed(ways, rounds, repeats)
    return table_of("Sync hit, a dict of 2 KB", seconds), []


def asynchronous(rounds: int, repeats: int) -> tuple[Table, list[Goal]]:
    async def ask(prompt: str, *, model: str = "m", temperature: float = 0.7) -> str:
        return "the answer to " + prompt

    ways: dict[str, Any] = {"no cache at all": ask, "thinkonce": cached(ttl=TTL)(ask)}
    ways |= optional(
        "cachebox",
        lambda box: {"cachebox TTL": box.cached(box.TTLCache(1000, TTL))(ask)},
    )
    seconds: dict[str, list[float]] = {name: [] for name in ways}

    async def measure() -> None:
        for _ in range(rounds):
            for name, way in ways.items():
                began = time.process_time()
                for _ in range(repeats):
                    await way("what is a cache?", model="m", temperature=0.7)
                seconds[name].append((time.process_time() - began) / repeats)

    asyncio.run(measure())
    goals = []
    if "cachebox TTL" in seconds:
        faster = ratio(seconds, "cachebox TTL", "thinkonce")
        goals = [Goal("cachebox / async hit", f">= {ASYNC_GOAL}", faster, faster >= ASYNC_GOAL)]
    return table_of("Async hit, a text", seconds), goals


def timed(ways: dict[str, Callable[..., Any]], rounds: int, repeats: int) -> dict[str, list[float]]:
    def hit(way: Callable[..., Any]) -> Callable[[], object]:
        return lambda: way("what is a cache?", model="m", temperature=0.7)

    cases = {name: hit(way) for name, way in ways.items()}
    for case in cases.values():
        case()
    return interleaved(cases, rounds, repeats)


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> float:
    """The median over rounds: what disturbs one round disturbs both of its cases."""
    return median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))


def table_of(title: str, seconds: dict[str, list[float]]) -> Table:
    rows: list[list[str | float | int | None]] = []
    for name, values in seconds.items():
        times = spread([1e9 * value for value in values])
        rows.append([name, times.p50, times.p90, times.p99])
    return Table(title, ["way", "p50", "p90", "p99"], rows, "ns a hit", "p50", log=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
