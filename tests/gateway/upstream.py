"""A provider on a socket that does what a test tells it, byte for byte, and counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Out:
    """What a script writes its answer with."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.chunked = False

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def whole(
        self, body: bytes, status: int = 200, kind: str = "application/json", **more: str
    ) -> None:
        headers = {"content-type": kind, "content-length": str(len(body))}
        more = {name.replace("_", "-"): value for name, value in more.items()}
        await self.head(status, headers | more)
        await self.raw(body)

    async def json(self, body: Any, status: int = 200, **more: str) -> None:
        await self.whole(json.dumps(body).encode(), status, **more)

    async def begin_stream(self, **more: str) -> None:
        more = {name.replace("_", "-"): value for name, value in more.items()}
        await self.head(
            200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"} | more
        )

    async def piece(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, data: Any, name: str = "") -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        named = f"event: {name}\n" if name else ""
        await self.piece(f"{named}data: {text}\n\n".encode())

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def cut(self) -> None:
        """Break the connection in the middle of what was promised."""
        self.writer.transport.abort()


Script = Callable[[Seen, Out], Awaitable[None]]


def completion(text: str = "hello", **more: Any) -> dict[str, Any]:
    """A whole chat answer. `more` replaces members; `finish` and `message` reach inside."""
    finish = more.pop("finish", "stop")
    message = {"role": "assistant", "content": text} | more.pop("message", {})
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    } | more


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }


def chunks(*texts: str, finish: str = "stop") -> list[dict[str, Any]]:
    first = chunk({"role": "assistant", "content": ""})
    return [first, *(chunk({"content": text}) for text in texts), chunk({}, finish)]


USAGE_CHUNK = chunk({}) | {
    "choices": [],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}


def text_completion(*texts: str, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    """A whole text completion with one choice for each text; none: one that says hello."""
    choices = [
        {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
        for index, text in enumerate(texts or ("hello",))
    ]
    return {
        "id": "cmpl-upstream",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "gpt-3.5-turbo-instruct",
        "choices": choices,
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    } | more


def text_chunks(*texts: str) -> list[dict[str, Any]]:
    """`texts` one after the other, each a chunk of the only choice."""
    said = [text_completion(text, finish=None) for text in texts]
    whole = [*said, text_completion("")]
    return [{name: value for name, value in each.items() if name != "usage"} for each in whole]


def said(text: str = "hello") -> dict[str, Any]:
    """An item of a response: a message."""
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    told = {"id": "msg_upstream", "type": "message", "status": "completed"}
    return {**told, "role": "assistant", "content": [part]}


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole answer of the Responses API; without `output` it says hello."""
    return {
        "id": "resp_upstream",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4o-mini",
        "output": list(output) or [said()],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 18,
        },
    } | more


def response_events(*texts: str, **more: Any) -> list[dict[str, Any]]:
    """The events of one message, said in `texts`. `more` replaces members of the answer."""
    message = said("".join(texts))
    whole = response(message, **more)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    part = message["content"][0]
    item: dict[str, Any] = {"item_id": message["id"], "output_index": 0}
    place = {**item, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "created", "response": begun},
        {"type": "in_progress", "response": begun},
        {
            "type": "output_item.added",
            "output_index": 0,
            "item": {**message, "status": "in_progress", "content": []},
        },
        {"type": "content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "output_text.delta", **place, "delta": t, "logprobs": []} for t in texts),
        {"type": "output_text.done", **place, "text": "".join(texts), "logprobs": []},
        {"type": "content_part.done", **place, "part": part},
        {"type": "output_item.done", "output_index": 0, "item": message},
        {"type": whole["status"], "response": whole},
    ]
    return [
        {**event, "type": f"response.{event['type']}", "sequence_number": number}
        for number, event in enumerate(events)
    ]


async def answer(seen: Seen, out: Out) -> None:
    """What a provider does: JSON or a stream as asked, with usage if asked for."""
    path = seen.path.partition("?")[0]
    for end, speak in _SPEAKERS.items():
        if path.endswith(end):
            await speak(seen, out)
            return
    await out.json({"path": seen.path, "you": "asked"})


async def _chat(seen: Seen, out: Out) -> None:
    if seen.json.get("stream"):
        await stream(out, with_usage(seen, chunks("hel", "lo")))
    else:
        await out.json(completion())


async def _text(seen: Seen, out: Out) -> None:
    if seen.json.get("stream"):
        await stream(out, with_usage(seen, text_chunks("hel", "lo")))
    else:
        await out.json(text_completion())


async def _respond(seen: Seen, out: Out) -> None:
    if seen.json.get("stream"):
        await stream_named(out, response_events("hel", "lo"))
    else:
        await out.json(response())


_SPEAKERS: dict[str, Script] = {
    "/chat/completions": _chat,
    "/completions": _text,
    "/responses": _respond,
}


def with_usage(seen: Seen, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """And the usage, if it was asked for."""
    if (seen.json.get("stream_options") or {}).get("include_usage"):
        head = {name: events[0][name] for name in ("id", "object", "created", "model")}
        return [*events, {**head, "choices": [], "usage": USAGE_CHUNK["usage"]}]
    return events


def saying(body: Any, status: int = 200, **more: str) -> Script:
    async def say(seen: Seen, out: Out) -> None:
        await out.json(body, status, **more)

    return say


def telling(say: Callable[[Seen], str]) -> Script:
    """A chat answer, in the shape asked for, that `say` puts into words."""

    async def tell(seen: Seen, out: Out) -> None:
        text = say(seen)
        if seen.json.get("stream"):
            await stream(out, chunks(text))
        else:
            await out.json(completion(text))

    return tell


def once(gate: asyncio.Event, script: Script) -> Script:
    """`script`, once `gate` is set."""

    async def late(seen: Seen, out: Out) -> None:
        await gate.wait()
        await script(seen, out)

    return late


def broken_off(event: Any) -> Script:
    """A stream whose connection breaks behind its first event."""

    async def break_off(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.event(event)
        out.cut()

    return break_off


def endless(event: Any) -> Script:
    """A stream of which nothing comes behind its first event."""

    async def go_on(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.event(event)
        await asyncio.Event().wait()

    return go_on


async def stream(out: Out, events: list[Any], *, done: bool = True) -> None:
    await out.begin_stream()
    for event in events:
        await out.event(event)
    if done:
        await out.event(DONE)
    await out.end()


async def stream_named(out: Out, events: list[Any]) -> None:
    """Events that carry their type as their name, and no end mark."""
    await out.begin_stream()
    for event in events:
        await out.event(event, event["type"])
    await out.end()


@dataclass
class Upstream:
    """`script` answers each request; `seen` holds them. `arrived` wakes whoever waits for one."""

    script: Script = answer
    seen: list[Seen] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    gone: int = 0  # answers whose reader left before their end
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> int:
        return len(self.seen)

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def called(self, times: int = 1) -> None:
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: self.calls >= times)

    async def left(self, times: int = 1) -> None:
        """Wait until a reader has gone away in the middle of its answer."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: self.gone >= times)

    async def deserted(self) -> None:
        """Wait until nobody is connected, whether what he asked came whole or not."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: not self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (seen := await _read(reader)) is not None:
                async with self.arrived:
                    self.seen.append(seen)
                    self.arrived.notify_all()
                await self._answer(seen, Out(writer), reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            async with self.arrived:
                self.arrived.notify_all()

    async def _answer(self, seen: Seen, out: Out, reader: asyncio.StreamReader) -> None:
        """Run the script; end it if the reader goes away first."""
        script = asyncio.ensure_future(self.script(seen, out))
        leaving = asyncio.ensure_future(_left(reader))
        try:
            await asyncio.wait((script, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not script.done():
                async with self.arrived:
                    self.gone += 1
                    self.arrived.notify_all()
        finally:
            script.cancel()
            leaving.cancel()
            results = await asyncio.gather(script, leaving, return_exceptions=True)
        if isinstance(results[0], Exception) and not isinstance(results[0], ConnectionError):
            raise results[0]


async def _left(reader: asyncio.StreamReader) -> None:
    """Nobody sends the next request before he has this answer, so news means the end."""
    with suppress(ConnectionError):
        assert await reader.read(1) == b"", "the gateway pipelines requests"


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method, path, headers, body)
