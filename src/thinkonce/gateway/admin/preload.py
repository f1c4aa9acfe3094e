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
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from thinkonce.errors import RequestError, UpstreamError
from thinkonce.gateway.admin.desk import Desk
from thinkonce.gateway.admin.lines import Line, lines_of
from thinkonce.gateway.admin.whose import Whose, whose
from thinkonce.gateway.asking import version_free
from thinkonce.gateway.endpoint import Endpoint
from thinkonce.gateway.http import Call, ClientGone, HttpError, Message, Scope
from thinkonce.insight.explain import look
from thinkonce.outcome import Outcome
from thinkonce.request.controls import DEFAULTS, Controls
from thinkonce.request.headers import take_headers
from thinkonce.tiers.tier import Key

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
LINES_TYPE = (b"content-type", b"application/jsonl")
DEFAULT_CONCURRENCY, MOST_CONCURRENCY = 8, 256
# What Anthropic's SDKs send; it is in the key.
ANTHROPIC_VERSION = (b"anthropic-version", b"2023-06-01")


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
    lines = lines_of(call, desk.settings.gateway.body_limit)
    call.status, call.outcome = 200, "admin"
    await call.send(
        {"type": "http.response.start", "status": 200, "headers": desk.head(call, LINES_TYPE)}
    )
    counts = dict.fromkeys(("lines", "stored", "already", "failed"), 0)
    async for result in batch.results(lines, concurrency):
        counts["lines"] += 1
        name = "failed" if not result.stored else "already" if result.outcome == "hit" else "stored"
        counts[name] += 1
        await _send(call, result)
    await _send(call, {"done": True, **counts})
    call.answered = True
    await call.send({"type": "http.response.body", "body": b""})
    desk.audit(call, "preload: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


class Batch:
    """The lines of one call. Belongs to one event loop."""

    def __init__(self, desk: Desk, call: Call, whose: Whose, pace: Pace) -> None:
        self._desk, self._call, self._whose, self._pace = desk, call, whose, pace

    async def results(self, lines: AsyncIterator[Line], concurrency: int) -> AsyncIterator[Result]:
        """In the order in which they are done; at most `concurrency` lines are held at a time.

        Raises ClientGone; what is under way is then given up.
        """
        under_way: set[asyncio.Task[Any]] = set()
        following: asyncio.Task[Any] | None = _next(lines)
        try:
            while following or under_way:
                reading = {following} if following and len(under_way) < concurrency else set()
                done, _ = await asyncio.wait(
                    under_way | reading, return_when=asyncio.FIRST_COMPLETED
                )
                if following in done:
                    line = following.result()
                    following = _next(lines) if line else None
                    if line:
                        under_way.add(asyncio.ensure_future(self.one(*line)))
                for task in done & under_way:
                    under_way.discard(task)
                    yield task.result()
        finally:
            await _end([*under_way, *([following] if following else [])])

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
        endpoint, query = endpoint_of(self._desk, line)
        raw = bytes(line.body)
        inner = call_for(self._call, endpoint, query, self._whose)
        asking = endpoint.reader.read(inner, raw)
        if asking.key is None or not asking.controls.store:
            raise HttpError(400, f"it would not be stored: {asking.bypass or 'no-store'}")
        result.key = asking.key.digest.hex()
        if asking.controls.read and await self._is_stored(asking.key, asking.controls):
            result.outcome, result.stored, result.status = "hit", True, 200
            return
        await self._pace.turn()
        began = self._desk.shelf.clock.wall()
        capture = Capture()
        inner.send = capture
        await endpoint(inner, {"type": "http.request", "body": raw, "more_body": False})
        result.status, result.outcome = capture.status, str(inner.outcome)
        if capture.status != 200:
            raise HttpError(capture.status, capture.error())
        result.stored = await self._is_stored(asking.key)
        if not result.stored:
            result.error = self._why_not(asking.key, began)

    async def _is_stored(self, key: Key, controls: Controls = DEFAULTS) -> bool:
        shelf = self._desk.shelf
        found = await asyncio.to_thread(look, shelf, key, controls)
        return found.outcome is Outcome.HIT

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
        raise RequestError("line", raw[:60].decode(errors="replace"), accepts) from error


def endpoint_of(desk: Desk, line: BatchLine) -> tuple[Endpoint, bytes]:
    """Where the line goes, and its URL's query. Raises RequestError for what is never cached."""
    parts = urlsplit(line.url)
    endpoint = desk.endpoints.get(version_free(parts.path))
    if endpoint is None or line.method.upper() != "POST":
        known = ", ".join(f"/v1/{name}" for name in sorted(desk.endpoints))
        raise RequestError("url", f"{line.method} {line.url}"[:200], f"POST to one of {known}")
    return endpoint, parts.query.encode("latin-1", "replace")


def call_for(outer: Call, endpoint: Endpoint, query: bytes, whose: Whose) -> Call:
    """The request as the client itself would send it.

    Headers that count are those of the administrator's call: `anthropic-beta`, say.
    """
    name = endpoint.dialect.name
    taken = take_headers(outer.headers, endpoint.reader.forward_headers)
    headers = [pair for pair in taken.forward if pair[0] not in (b"content-type", b"accept")]
    headers += [pair for pair in taken.credential if pair[0].startswith(b"openai-")]
    headers += [(b"content-type", b"application/json"), *whose.credential(name)]
    if name == "messages" and all(pair[0] != ANTHROPIC_VERSION[0] for pair in headers):
        headers.append(ANTHROPIC_VERSION)
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
    inner.id, inner.tenant = outer.id, whose.tenant
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


async def _send(call: Call, row: Any) -> None:
    line = msgspec.json.encode(row) + b"\n"
    await call.send({"type": "http.response.body", "body": line, "more_body": True})


def _limits(call: Call) -> tuple[int, Pace]:
    query = parse_qs(call.query.decode("latin-1"), keep_blank_values=True)
    unknown = sorted(query.keys() - {"concurrency", "rate"})
    if unknown:
        raise RequestError(unknown[0], query[unknown[0]][0], "concurrency or rate")
    text = query.get("concurrency", [str(DEFAULT_CONCURRENCY)])[0]
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CONCURRENCY:
        raise RequestError("concurrency", text, f"1 to {MOST_CONCURRENCY}")
    rate = query.get("rate", [None])[0]
    return int(text), Pace(None if rate is None else _rate(rate))


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
        except (msgspec.DecodeError, KeyError, TypeError):
            return self._body[:200].decode(errors="replace") or f"answered {self.status}"
