"""Whether a gateway's memory stays flat over 200,000 mixed requests of several tenants.

Hits, misses, streams, refusals and failures of the upstream, in a fixed order; each answer is
checked. Resident memory is sampled as it goes; a line is laid through the second half, when every
bound is reached, and its slope told with the interval in which it lies.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from statistics import fmean
from typing import Any

import aiohttp
import psutil
from provider import expected, provider
from record import Goal, Table, record
from servers import thinkonce

REQUESTS, CONNECTIONS, SAMPLES = 200_000, 16, 100
TENANTS = 5
KNOWN = 500  # questions that come again
# What of a hundred requests is which; all else are hits.
MISSES, STREAMS, NEW_STREAMS, WRONG, BROKEN = 20, 15, 4, 3, 2
GOAL = 64.0  # bytes a request, the upper end of the interval
BOUNDS = {
    "THINKONCE_CACHE_MAX_BYTES": "8MiB",
    "THINKONCE_STORE_MAX_BYTES": "16MiB",
    "THINKONCE_GATEWAY_ACCESS_LOG": "false",
    "THINKONCE_LOG_LEVEL": "error",
}
CLAIM = "Memory stays where its bounds put it, however long a gateway runs."


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--requests", type=int, default=REQUESTS, help="fewer: nothing is recorded"
    )
    options.add_argument("--json", action="store_true", help="print what was measured as JSON")
    given = options.parse_args(argv)
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        store = f"sqlite:///{folder}/answers.db"
        port, server = stack.enter_context(thinkonce(upstream, BOUNDS, store=store))
        measured = asyncio.run(drive(port, psutil.Process(server), given.requests))
    if given.json:
        print(json.dumps(measured))
        return 0
    slope, least, most = measured["slope"]
    print(f"{measured['answers']} answers, wrong ones: {measured['wrong']}")
    print(f"RSS {measured['rss'][0]} to {measured['rss'][-1]} MiB; a request: {slope:.1f} bytes")
    print(f"interval {least:.1f} to {most:.1f} (wanted <= {GOAL})")
    if given.requests == REQUESTS:
        write(measured)
    return int(bool(measured["wrong"]))


def write(measured: dict[str, Any]) -> None:
    slope, least, most = measured["slope"]
    every = REQUESTS // SAMPLES
    rows: list[list[str | float | int | None]] = [
        [f"{(at + 1) * every:,}", measured["rss"][at]] for at in range(9, SAMPLES, 10)
    ]
    table = Table("Resident memory", ["requests", "MiB"], rows, unit="MiB", chart="MiB")
    goals = [
        Goal("wrong answers", "= 0", measured["wrong"], not measured["wrong"]),
        Goal(
            "growth a request, bytes, upper end of 95 %", f"<= {GOAL}", round(most, 1), most <= GOAL
        ),
    ]
    notes = [
        f"The line through the second half rises by {slope:.1f} bytes a request (95 % of what "
        f"fits: {least:.1f} to {most:.1f}). Memory tier 8 MiB, store 16 MiB, {TENANTS} tenants; "
        f"{measured['seconds']:.0f} seconds."
    ]
    record("memory", CLAIM, [table], goals, notes, packages=["uvicorn", "aiohttp", "apsw"])


# -- what is asked -----------------------------------------------------------------------------


def kind_of(number: int) -> str:
    at = number * 37 % 100  # spread, and the same in each run
    for kind, share in (
        ("miss", MISSES),
        ("stream", STREAMS),
        ("new stream", NEW_STREAMS),
        ("wrong", WRONG),
        ("broken", BROKEN),
    ):
        if at < share:
            return kind
        at -= share
    return "hit"


def body_of(kind: str, word: str, size: int) -> bytes:
    if kind == "wrong":
        return b'{"model": "m", "messages": [}'
    model = "broken" if kind == "broken" else "gpt-4o-mini"
    messages = [{"role": "user", "content": f"what is {word}"}]
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": size}
    if kind.endswith("stream"):
        body |= {"stream": True, "metadata": {"chunks": "20", "pause": "0"}}
    return json.dumps(body).encode()


async def drive(port: int, server: psutil.Process, requests: int) -> dict[str, Any]:
    numbers, rss, wrong = itertools.count(), list[float](), 0
    every = max(requests // SAMPLES, 1)
    began = time.monotonic()
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS))

    async def one() -> None:
        nonlocal wrong
        while (number := next(numbers)) < requests:
            wrong += not await is_right(session, port, number)
            if (number + 1) % every == 0:
                rss.append(round(server.memory_info().rss / 2**20, 2))

    async with session:
        await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    half = rss[len(rss) // 2 :]
    slope, error = line(half)
    slopes = [(slope + sign * 1.96 * error) * 2**20 / every for sign in (0, -1, 1)]
    seconds = time.monotonic() - began
    return {"answers": requests, "wrong": wrong, "rss": rss, "slope": slopes, "seconds": seconds}


async def is_right(session: aiohttp.ClientSession, port: int, number: int) -> bool:
    kind = kind_of(number)
    is_new = kind in ("miss", "new stream", "broken")
    word = f"n{number}" if is_new else f"k{number % KNOWN}"
    size = 200 + number % 7 * 300 if is_new else 800
    headers = {"authorization": f"Bearer sk-{number % TENANTS}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    data = body_of(kind, word, size)
    async with session.post(url, data=data, headers=headers) as answer:
        body = await answer.read()
        status = {"wrong": 400, "broken": 500}.get(kind, 200)
        if answer.status != status or status != 200:
            return answer.status == status
    if kind.endswith("stream"):
        return streamed(body) == expected(word, 0, 20)
    return bool(json.loads(body)["choices"][0]["message"]["content"] == expected(word, size))


def streamed(body: bytes) -> str:
    """The text of a stream that ended as it should, else nothing."""
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        return ""
    deltas = (choice["delta"] for each in events[:-1] for choice in json.loads(each)["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


def line(values: list[float]) -> tuple[float, float]:
    """Slope of the least squares through `values`, one apart, and its standard error."""
    count = len(values)
    if count < 3:
        return 0.0, 0.0
    middle, mean = (count - 1) / 2, fmean(values)
    spread = sum((at - middle) ** 2 for at in range(count))
    slope = sum((at - middle) * (value - mean) for at, value in enumerate(values)) / spread
    rest = sum((value - mean - slope * (at - middle)) ** 2 for at, value in enumerate(values))
    return slope, (rest / (count - 2) / spread) ** 0.5


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
