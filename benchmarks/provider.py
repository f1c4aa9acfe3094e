"""The provider that benchmarks put behind a gateway: it says what it was asked, at a given pace.

`max_tokens` is the size of the answer in bytes. In `metadata`, all texts: `chunks` of a stream,
`pause` between them in seconds. The model `broken` answers 500. Every chunk and every answer
names the question's last word, so that whoever asks can tell whose answer it got.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from servers import CLIENT_CORE, free_port, pin, process, wait_for

__all__ = ("app", "expected", "provider")

FILLING = "an answer that goes on "


@contextmanager
def provider() -> Iterator[int]:
    """Its port. It shares the other core with whoever asks: servers have one to themselves."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "provider:app", "--port", str(port)]
    command += ["--app-dir", str(Path(__file__).parent), "--log-level", "critical"]
    command += ["--no-access-log", "--lifespan", "off", "--ws", "none", "--backlog", "4096"]
    command += ["--timeout-keep-alive", "1"]  # so that idle connections are soon gone
    with process(command) as pid:
        wait_for(port)
        pin(pid, CLIENT_CORE)
        pin(os.getpid(), CLIENT_CORE)
        yield port


def expected(word: str, size: int, chunks: int = 0) -> str:
    """What it answers to a question that ends in `word`."""
    if chunks:
        return "".join(f"{word}-{number} " for number in range(chunks))
    return (f"{word} " + FILLING * (size // len(FILLING) + 1))[: max(size, len(word) + 1)]


async def app(scope: Any, receive: Any, send: Any) -> None:
    asked = msgspec.json.decode(await body_of(receive))
    word = str(asked["messages"][-1]["content"]).rsplit(" ", 1)[-1]
    if asked["model"] == "broken":
        error = {"error": {"message": "broken", "type": "server_error", "code": None}}
        await whole(send, 500, error)
    elif asked.get("stream"):
        more = asked.get("metadata", {})
        await stream(send, asked["model"], word, int(more["chunks"]), float(more["pause"]))
    else:
        said = expected(word, int(asked.get("max_tokens", 500)))
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100}
        await whole(send, 200, head(asked["model"], "") | {"choices": [choice], "usage": usage})


async def body_of(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": f"chat.completion{kind}",
        "created": 1_700_000_000,
        "model": model,
    }


async def whole(send: Any, status: int, answer: dict[str, Any]) -> None:
    body = msgspec.json.encode(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Any, model: str, word: str, chunks: int, pause: float) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    base = head(model, ".chunk")
    for number in range(chunks):
        if pause:
            await asyncio.sleep(pause)
        delta = {"content": f"{word}-{number} "}
        last = "stop" if number == chunks - 1 else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": last}
        data = msgspec.json.encode(base | {"choices": [choice]})
        event = b"data: %b\n\n" % data
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
