"""A gateway in front of a provider, each in a process of its own: for tests that block.

Run as a program it is the provider: it prints its address and answers until its stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.anthropic_upstream import events, message
from gateway.upstream import Out, Seen, Upstream, answer, stream_named

READY = "thinkonce ready on "
STOP_SECONDS = 30


async def provide(seen: Seen, out: Out) -> None:
    """What providers answer, whatever they are asked: always a 200."""
    path = seen.path.partition("?")[0]
    try:
        body = seen.json
    except (ValueError, RecursionError):
        body = None
    if seen.method == "HEAD":
        await out.head(200, {"content-type": "application/json"})
        out.cut()
    elif path.endswith("/models"):
        await out.json({"object": "list", "data": []})
    elif not isinstance(body, dict):
        await out.json({"path": path})
    elif path.endswith("/messages"):
        await _message(body, out)
    elif path.endswith("/embeddings"):
        await _embeddings(body, out)
    else:
        plain = seen.method == "POST" and isinstance(body.get("stream_options") or {}, dict)
        await (answer(seen, out) if plain else out.json({"path": path, "data": []}))


async def _message(body: dict[str, Any], out: Out) -> None:
    if body.get("stream"):
        await stream_named(out, events(message()))
    else:
        await out.json(message())


async def _embeddings(body: dict[str, Any], out: Out) -> None:
    asked = body.get("input")
    count = len(asked) if isinstance(asked, list) else 1
    rows = [
        {"object": "embedding", "index": index, "embedding": [0.5, -1.0]} for index in range(count)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    await out.json({"object": "list", "data": rows, "model": "e", "usage": usage})


@contextlib.contextmanager
def provider() -> Iterator[str]:
    """Its address."""
    child = subprocess.Popen(
        [sys.executable, "-m", "gateway.served"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        yield child.stdout.readline().strip()
        child.stdin.close()
        assert child.wait(STOP_SECONDS) == 0


@contextlib.contextmanager
def served(folder: Path, *arguments: str, **environ: str) -> Iterator[str]:
    """Its address. `folder/log` holds what it wrote to stderr. It must drain and exit with 0."""
    command = [sys.executable, "-m", "thinkonce", "serve", "--port", "0", *arguments]
    with (folder / "log").open("w", encoding="utf-8") as log:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "THINKONCE_DATA_DIR": str(folder), **environ},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert child.stdout is not None
        with child.stdout:
            try:
                yield next(
                    line.partition(READY)[2].strip() for line in child.stdout if READY in line
                )
            finally:
                child.send_signal(signal.SIGTERM)
                code = child.wait(STOP_SECONDS)
    assert code == 0, (folder / "log").read_text(encoding="utf-8")


async def _provide_until_told() -> None:
    upstream = Upstream(provide)
    await upstream.start()
    print(upstream.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await upstream.stop()


if __name__ == "__main__":
    asyncio.run(_provide_until_told())
