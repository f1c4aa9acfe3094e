"""Requests asked ahead of time: each line of a batch goes the way of a client's request.

    line ──► read as the endpoint reads it ──► stored already? ──► say so
                                                     │ no
                                     the pace allows it ──► endpoint ──► stored? why not?

What is stored already costs nothing and does not count for the pace, so a batch that was broken
off is sent again from its beginning. Nothing of it counts in the requests and savings of /metrics.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from thinkonce.engine.asking import Asking, version_free
from thinkonce.engine.http import Call, ClientGone, HttpError, Message, Scope
from thinkonce.errors import RequestError, UpstreamError
from thinkonce.gateway.admin.desk import Desk
from thinkonce.gateway.admin.look import whole
from thinkonce.gateway.admin.questions import parts_of
from thinkonce.gateway.admin.whose import Whose, whose
from thinkonce.insight.explain import look
from thinkonce.outcome import Outcome, Reason
from thinkonce.protocols.registry import facts_of
from thinkonce.request.controls import DEFAULTS, Controls
from thinkonce.request.headers import take_headers
from thinkonce.shelf import Shelf
from thinkonce.tiers.tier import Key
from thinkonce.web.lines import Line, lines_of, reading_ahead

__all__ = (
    "Batch",
    "BatchLine",
    "Pace",
    "Result",
    "call_for",
    "endpoint_of",
    "preload",
    "read_line",
)

MOST_SAID = 300  # characters of an error
DEFAULT_CONCURRENCY, MOST_CONCURRENCY = 8, 256


class BatchLine(msgspec.Struct, kw_only=True):
    """One line of OpenAI's Batch format."""

    url: str
    body: msgspec.Raw
    custom_id: str = ""
    method: str = "POST"


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of a line. `stored`: the answer is there now; else `error` says why not."""

    line: int
    stored: bool
    custom_id: str = ""
    outcome: str = ""  # "hit": it was there already
    key: str = ""
    status: int = 0
    error: str = ""


_decode_line = msgspec.json.Decoder(BatchLine).decode


class Pace:
    """At most `rate` turns a second, evenly; None: at once. Belongs to one event loop."""

    def __init__(
        self,
        rate: float | None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._gap = 0.0 if rate is None else 1 / rate
        self._now, self._sleep, self._next = now, sleep, 0.0

    async def turn(self) -> None:
        now = self._now()
        wait = self._next - now
        self._next = max(self._next, now) + self._gap
        if wait > 0:
            await self._sleep(wait)


async def preload(desk: Desk, call: Call) -> None:
    """POST preload?concurrency=8&rate=5: one JSON line back for each, as it is done; then sums."""
    concurrency, pace = _limits(call)
    batch = Batch(desk, call, await whose(desk, call), pace)
    limit = desk.settings.gateway.body_limit
    counts = dict.fromkeys(("lines", "stored", "already", "failed"), 0)
    try:
        async with reading_ahead(call) as ahead:
            lines = lines_of(call, limit, ahead.receive)
            results = batch.results(lines, concurrency, ahead.gone)
            await desk.begin_lines(call)
            async with aclosing(results):
                async for result in results:
                    counts["lines"] += 1
                    there = "already" if result.outcome == "hit" else "stored"
                    counts[there if result.stored else "failed"] += 1
                    await desk.send_line(call, result)
        await desk.send_line(call, {"done": True, **counts})
    finally:  # a batch that was broken off has changed something too
        desk.audit(call, "preload: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    await desk.end_lines(call)


class Batch:
    """The lines of one call. Belongs to one event loop."""

    def __init__(self, desk: Desk, call: Call, whose: Whose, pace: Pace) -> None:
        self._desk, self._call, self._whose, self._pace = desk, call, whose, pace

    async def results(
        self, lines: AsyncIterator[Line], concurrency: int, gone: asyncio.Task[None]
    ) -> AsyncGenerator[Result, None]:
        """In the order in which they are done; at most `concurrency` lines are held at a time.

        Raises ClientGone once `gone` is done; what is under way is then given up.
        """
        under_way: set[asyncio.Task[Result]] = set()
        reading: asyncio.Task[Line | None] | None = _next(lines)
        try:
            while reading or under_way:
                awaited: set[asyncio.Task[Any]] = {*under_way, gone}
                if reading and len(under_way) < concurrency:
                    awaited.add(reading)
                done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if gone in done:
                    raise ClientGone
                if reading in done:
                    line = reading.result()
                    reading = None if line is None else _next(lines)
                    if line is not None:
                        under_way.add(asyncio.ensure_future(self.one(*line)))
                for task in [each for each in under_way if each in done]:
                    under_way.discard(task)
                    yield task.result()
        finally:
            await _end([*under_way, *([reading] if reading else [])])

    async def one(self, number: int, raw: bytes | None) -> Result:
        """Raises nothing: whatever goes wrong is the line's own."""
        result = Result(line=number, stored=False)
        try:
            line = read_line(raw)
            result.custom_id = line.custom_id
            await self._ask(line, result)
        except (HttpError, RequestError, UpstreamError) as error:
            result.status = getattr(error, "status", 400)
            result.error = f"{error!s:.{MOST_SAID}}"
        except ClientGone:
            result.error = "broken off"
        return result

    async def _ask(self, line: BatchLine, result: Result) -> None:
        name, query = endpoint_of(self._desk, line)
        reader, raw = self._desk.readers[name], bytes(line.body)
        inner = call_for(self._call, name, query, self._whose, reader.forward_headers)
        asking = reader.read(inner, raw)
        questions = parts_of(reader, name, query, asking)
        if not questions or not asking.controls.store:
            raise HttpError(400, f"it would not be stored: {_why_never(asking)}")
        keys = [self._desk.shelf.keyer.key_of(parts) for parts in questions]
        result.key = keys[0].digest.hex() if len(keys) == 1 else ""
        result.outcome, result.stored, result.status = "hit", True, 200
        wanted = [(None, keys)] if asking.draw is None else [*enumerate([key] for key in keys)]
        for sample, mine in wanted:
            if asking.controls.read and await self._missing(mine, asking.controls) is None:
                continue
            await self._pace.turn()
            inner = call_for(self._call, name, query, self._whose, reader.forward_headers)
            inner.sample = sample
            await self._ask_endpoint(name, inner, raw, mine, result)

    async def _ask_endpoint(
        self, name: str, inner: Call, raw: bytes, keys: Sequence[Key], result: Result
    ) -> None:
        began = self._desk.shelf.clock.wall()
        capture = Capture()
        inner.send = capture
        message = {"type": "http.request", "body": raw, "more_body": False}
        await self._desk.endpoints[name](inner, message)
        result.status, result.outcome = capture.status, str(inner.outcome)
        if capture.status != 200:
            result.stored = False
            raise HttpError(capture.status, capture.error())
        missing = await self._missing(keys)
        if missing is not None:
            result.stored, result.error = False, self._why_not(missing, began)

    async def _missing(self, keys: Sequence[Key], controls: Controls = DEFAULTS) -> Key | None:
        """The first that would not be a hit."""
        return await asyncio.to_thread(_first_missing, self._desk.shelf, keys, controls)

    def _why_not(self, key: Key, began: float) -> str:
        refusal = self._desk.world.refusals.of(key.digest)
        if refusal is not None and refusal.at >= began:
            return f"not stored: {refusal.reason}"
        reason = self._desk.shelf.setting.why_gone(key)
        return f"not stored: {reason}" if reason else "not stored"


def read_line(raw: bytes | None) -> BatchLine:
    """Raises RequestError for what is no line of a batch, HttpError for one that is too long."""
    if raw is None:
        raise HttpError(413, "the line is longer than [gateway] body_limit")
    try:
        return _decode_line(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        accepts = f"custom_id, method, url and body of OpenAI's Batch format ({error})"
        raise RequestError("JSON", raw[:60].decode(errors="replace"), accepts) from error


def _first_missing(shelf: Shelf, keys: Sequence[Key], controls: Controls) -> Key | None:
    hit = Outcome.HIT
    return next((key for key in keys if look(shelf, key, controls).outcome is not hit), None)


def _why_never(asking: Asking) -> str:
    return str(asking.bypass or (Reason.UNKEYABLE if asking.controls.store else Reason.NO_STORE))


def endpoint_of(desk: Desk, line: BatchLine) -> tuple[str, bytes]:
    """Where the line goes, and its URL's query. Raises RequestError for what is never cached."""
    try:
        parts = urlsplit(line.url)
    except ValueError:  # it names a host that is none
        parts = urlsplit("")
    name = version_free(parts.path)
    if name not in desk.endpoints or line.method.upper() != "POST":
        known = ", ".join(f"/v1/{name}" for name in sorted(desk.endpoints))
        raise RequestError("url", f"{line.method} {line.url}"[:200], f"POST to one of {known}")
    return name, parts.query.encode("latin-1", "replace")


def call_for(
    outer: Call, name: str, query: bytes, whose: Whose, forwarded: Container[bytes]
) -> Call:
    """The request as the client itself would send it.

    Headers that count are those of the administrator's call: `anthropic-beta`, say.
    """
    taken = take_headers(outer.headers, forwarded)
    headers = [pair for pair in taken.forward if pair[0] not in (b"content-type", b"accept")]
    headers += [(b"content-type", b"application/json"), *whose.credential(name)]
    there = {pair[0] for pair in headers}
    headers += [pair for pair in facts_of(name).sent if pair[0] not in there]
    path = f"/v1/{name}"
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers,
        "client": outer.scope.get("client"),
        "state": {},
    }
    inner = Call(scope, _stays, Capture(), outer.started)
    inner.id, inner.tenant, inner.counts = outer.id, whose.tenant, False
    return inner


async def _stays() -> Message:
    """A client that never leaves: whoever sent the batch is watched in its place."""
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never


def _next(lines: AsyncIterator[Line]) -> asyncio.Task[Line | None]:
    async def read() -> Line | None:
        return await anext(lines, None)

    return asyncio.ensure_future(read())


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _limits(call: Call) -> tuple[int, Pace]:
    query = parse_qs(call.query.decode("latin-1"), keep_blank_values=True)
    unknown = sorted(query.keys() - {"concurrency", "rate"})
    if unknown:
        raise RequestError(unknown[0], query[unknown[0]][0], "concurrency or rate")
    text = query.get("concurrency", [str(DEFAULT_CONCURRENCY)])[0]
    at_once = whole("concurrency", text, MOST_CONCURRENCY)
    rate = query.get("rate", [None])[0]
    return at_once, Pace(None if rate is None else _rate(rate))


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise RequestError("rate", text, "requests a second, more than 0")
    return rate


class Capture:
    """Stands in for a client that reads everything and keeps the beginning of an error."""

    MOST = 2000

    def __init__(self) -> None:
        self.status, self._body = 0, b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif self.status != 200 and len(self._body) < self.MOST:
            self._body += message.get("body", b"")[: self.MOST]

    def error(self) -> str:
        try:
            return str(msgspec.json.decode(self._body)["error"]["message"])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            return self._body[:200].decode(errors="replace") or f"answered {self.status}"
