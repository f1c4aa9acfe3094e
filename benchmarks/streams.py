"""A thousand streams at a time through one gateway: live, followed, and replayed.

Each client checks every word of its answer. Told are the CPU time and the resident memory that a
stream takes while it runs, and what is left of both connections and memory afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import aiohttp
import psutil
from memory import streamed
from provider import expected, provider
from record import Goal, Table, record
from servers import thinkonce

STREAMS, CHUNKS, PAUSE = 1000, 50, 0.2
CLAIM = "A thousand answers arrive at a time, whole, each its own."
# KiB of resident memory for one open stream: both of its connections, and what was said so far.
MEMORY_GOAL = 200.0
LEFT_OPEN = 8  # descriptors that may stay: connections to the upstream are kept for a while
Row = dict[str, float]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--streams", type=int, default=STREAMS, help="fewer: nothing is recorded")
    options.add_argument("--chunks", type=int, default=CHUNKS)
    options.add_argument("--pause", type=float, default=PAUSE, help="seconds between two chunks")
    options.add_argument("--json", action="store_true", help="print what was measured as JSON")
    given = options.parse_args(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * given.streams)), hard))
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        environ = {"THINKONCE_LOG_LEVEL": "error"}
        port, pid = stack.enter_context(thinkonce(upstream, environ))
        server = psutil.Process(pid)
        measured = asyncio.run(drive(port, server, given.streams, given.chunks, given.pause))
    if given.json:
        print(json.dumps(measured))
        return 0
    for name, row in measured.items():
        print(name, json.dumps(row))
    if given.streams == STREAMS:
        write(measured)
    return int(any(row["right"] != given.streams for row in measured.values()))


def write(measured: dict[str, Row]) -> None:
    columns = ["streams", "right", "ms CPU each", "KiB each", "seconds", "descriptors left"]
    rows: list[list[str | float | int | None]] = [
        [name, row["right"], row["cpu_ms"], row["kib"], row["seconds"], row["left_open"]]
        for name, row in measured.items()
    ]
    goals = []
    for name, row in measured.items():
        right = row["right"] == STREAMS
        goals.append(Goal(f"{name}: whole and right", "= 1000", row["right"], right))
    kib = measured["live"]["kib"]
    goals.append(Goal("KiB for a live stream", f"<= {MEMORY_GOAL}", kib, kib <= MEMORY_GOAL))
    left = max(row["left_open"] for row in measured.values())
    goals.append(Goal("descriptors left", f"<= {LEFT_OPEN}", left, left <= LEFT_OPEN))
    notes = [
        f"{STREAMS} connections at a time, {CHUNKS} chunks {PAUSE} s apart; live: as many upstream "
        "calls; followed: all ask the same; replayed: all are hits."
    ]
    table = Table("A thousand streams at a time", columns, rows)
    record("streams", CLAIM, [table], goals, notes, packages=["uvicorn", "uvloop", "aiohttp"])


async def drive(
    port: int, server: psutil.Process, count: int, chunks: int, pause: float
) -> dict[str, Row]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        def ask(word: str) -> Any:
            return is_right(session, port, word, chunks, pause)

        for n in range(20):  # what is made once is made now
            await ask(f"warm{n}")
        return {
            "live": await run(server, count, lambda n: ask(f"word{n}")),
            "followed": await run(server, count, lambda _: ask("same")),
            "replayed": await run(server, count, lambda n: ask(f"word{n}")),
        }


async def run(server: psutil.Process, count: int, ask: Callable[[int], Any]) -> Row:
    before, cpu, began = server.memory_info().rss, server.cpu_times(), time.monotonic()
    open_before = server.num_fds()
    asked = [asyncio.ensure_future(ask(n)) for n in range(count)]
    everything, most = asyncio.gather(*asked), before
    while not everything.done():
        await asyncio.wait([everything], timeout=0.2)
        most = max(most, server.memory_info().rss)
    spent = server.cpu_times()
    seconds = time.monotonic() - began
    for _ in range(150):  # connections of clients that left, and idle ones to the provider
        if (left := server.num_fds() - open_before) <= LEFT_OPEN:
            break
        await asyncio.sleep(0.1)
    return {
        "right": sum(everything.result()),
        "cpu_ms": round((spent.user - cpu.user + spent.system - cpu.system) / count * 1e3, 3),
        "kib": round((most - before) / 1024 / count, 1),
        "seconds": round(seconds, 1),
        "left_open": max(left, 0),
    }


async def is_right(
    session: aiohttp.ClientSession, port: int, word: str, chunks: int, pause: float
) -> bool:
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": f"what is {word}"}],
        "stream": True,
        "metadata": {"chunks": str(chunks), "pause": str(pause)},
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"authorization": "Bearer sk-benchmark"}
    async with session.post(url, json=body, headers=headers) as answer:
        text = streamed(await answer.read())
    return answer.status == 200 and text == expected(word, 0, chunks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
