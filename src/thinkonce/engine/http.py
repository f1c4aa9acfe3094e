"""HTTP as the engine sees it: one request read within its limits, one answer sent."""

from __future__ import annotations

import zlib
from asyncio import to_thread
from collections.abc import AsyncIterator, Container
from typing import TYPE_CHECKING

from thinkonce.request.headers import Taken, take_headers
from thinkonce.web.at_once import CYCLE, lines_of, send_at_once
from thinkonce.web.exchange import (
    HEAD,
    READ,
    ClientGone,
    Header,
    HttpError,
    Limited,
    Message,
    Receive,
    Scope,
    Send,
    error_body,
    read_whole,
    too_large,
)

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from thinkonce.engine.client_rules import ClientRules
    from thinkonce.engine.marks import Ready
    from thinkonce.tiers.tier import Key
    from thinkonce.upstream.room import Room
    from thinkonce.web.bodies import Bodies

__all__ = (
    "Call",
    "ClientGone",
    "Head",
    "HttpError",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "check_length",
    "error_body",
    "read_body",
    "send_pieces",
    "send_ready",
    "send_whole",
)

_BODY_SETTING = "[gateway] body_limit"
# Of a compressed body, what is unpacked on the event loop itself, bytes.
AT_ONCE = 256 * 1024
# And what is unpacked elsewhere before it is counted.
STEP = 4 * 2**20
# What a compressed body may unfold to, in times its size, above that: conversations come to ten,
# deflate's most is 1,032. What is unfolded is held for as long as the upstream is asked.
MOST_TIMES = 100
_CODINGS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Head:
    """What reading a request needs of its head. `client`: whose it is, where that is known."""

    __slots__ = ("_taken", "client", "head", "headers", "query")
    tenant = ""  # named by an administrator, in place of the credential's
    counts = True  # False: no client asked, so it saves nothing and is not remembered
    sample: int | None = None  # named by an administrator, in place of whose turn it is

    def __init__(
        self, headers: list[Header], query: bytes, client: ClientRules | None = None
    ) -> None:
        self.headers, self.query, self.client = headers, query, client
        self.head: dict[bytes, bytes] = dict(headers)
        self._taken: tuple[Container[bytes], Taken] | None = None

    def taken(self, extra: Container[bytes]) -> Taken:
        """See `take_headers`. Taken once: the fast lane has one head for many requests."""
        if self._taken is None or self._taken[0] is not extra:
            self._taken = extra, take_headers(self.headers, extra)
        return self._taken[1]


class Call(Head):
    """One request to the gateway. What is filled in here is for the access log."""

    id = b""
    status = 0
    answered = False  # the last byte was handed to the server
    outcome: str = ""
    reason: str = ""
    not_stored: str = ""  # why what was asked for anew is not kept; of a stream, once it ended
    match: str = ""
    refuses = False  # its answer is an error of the gateway's own
    renews = False  # a new answer is made in the background because of it
    tier: str = ""  # where a hit lay
    whose: str = ""  # the tenant
    tokens_saved = 0
    key: Key | Ready | None = None  # what has the answer's digest
    marks: tuple[Header, ...] = ()  # headers of its answer, whatever that will be
    cors: tuple[Header, ...] = ()  # of these, what a browser is told of other sites' pages
    whole_at = 0.0  # when all of it was there, for whoever waits as long as a new call takes
    veiled = False  # `send` takes marks off: nothing may be written past it
    cuts = False  # an answer that breaks off is cut; else its last event says so
    endpoint = ""  # "" for pages of the gateway itself: they are not counted
    model = ""
    room: Room | None = None  # in which it has a place until it ends: its client's
    bodies: Bodies | None = None  # in which `held` bytes of its body count until it ends
    held = 0

    def __init__(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        known: Head | None = scope["state"].pop(HEAD, None)
        if known is None:
            super().__init__(scope["headers"], scope["query_string"])
        else:  # the client is not taken over: a request is let in by itself
            self.headers, self.query, self.head = known.headers, known.query, known.head
            self.client, self._taken = None, known._taken
        self.scope, self.receive, self.send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.started = started
        # Out of the scope, which they hold.
        self.cycle: RequestResponseCycle | None = scope["state"].pop(CYCLE, None)
        self.read: object | None = scope["state"].pop(READ, None)

    def hold(self, size: int) -> None:
        """Count `size` bytes more of its body. Raises Limited where there is no room for them."""
        if self.bodies is not None:
            if not self.bodies.take(size, self.held):
                raise _no_room()
            self.held += size

    def let_go(self) -> None:
        """It has ended: what it held is others'."""
        if self.bodies is not None:
            self.bodies.give_back(self.held)
            self.held = 0
        if self.room is not None:
            self.room.give_back()
            self.room = None


async def read_body(
    call: Call, limit: int, message: Message | None = None, *, decompress: bool = True
) -> bytes:
    """The request's body. Raises HttpError 413, 415, 400, 401, 503; ClientGone.

    `message`: the first part of it, where that was received before.
    """
    if message is None:
        check_length(call, limit)
    declared = call.head.get(b"content-length")
    state = call.scope["state"]
    body = await read_whole(
        call.receive,
        limit,
        declared=declared,
        first=message,
        setting=_BODY_SETTING,
        state=state,
        count=call.hold,
    )
    if call.client is not None and call.client.is_gone:
        said = "the API key is not known to this gateway any more"
        raise HttpError(401, said, code="invalid_api_key")
    coding = call.head.get(b"content-encoding") if decompress else None
    return body if coding is None else await _decompress(call, body, coding.lower(), limit)


def check_length(call: Call, limit: int) -> None:
    """Look at what is announced of a body, before it is asked for.

    Raises HttpError 413 for one that is larger than `limit`, Limited where there is no room now.
    """
    declared = call.head.get(b"content-length", b"")
    if not declared.isdigit():
        return
    if int(declared) > limit:
        raise too_large(limit, _BODY_SETTING)
    if call.bodies is not None and not call.bodies.has_room(int(declared), call.held):
        raise _no_room()


def _no_room() -> Limited:
    return Limited(
        503,
        "bodies_limit",
        "the bodies of requests under way take all the room there is for them "
        "([gateway] bodies_limit)",
        code="bodies_limit_exceeded",
    )


async def _decompress(call: Call, body: bytes, coding: bytes, limit: int) -> bytes:
    if coding in (b"", b"identity"):
        return body
    if coding not in _CODINGS:
        raise HttpError(
            415,
            f"content-encoding: got {coding.decode('latin-1')!r}; it accepts gzip, deflate "
            "or identity",
            param="content-encoding",
        )
    unpacker, allowed = zlib.decompressobj(wbits=_CODINGS[coding]), limit
    limit = min(limit, max(AT_ONCE, MOST_TIMES * len(body)))
    try:
        pieces = [unpacker.decompress(body, min(limit + 1, AT_ONCE))]
        call.hold(size := len(pieces[0]))
        while unpacker.unconsumed_tail and size <= limit:  # the loop has others to serve
            most = min(limit + 1 - size, STEP)
            more = await to_thread(unpacker.decompress, unpacker.unconsumed_tail, most)
            call.hold(len(more))
            pieces.append(more)
            size += len(more)
    except zlib.error as error:
        raise HttpError(400, f"body: not {coding.decode()}: {error}", param="body") from error
    if size > allowed:
        raise too_large(allowed, _BODY_SETTING)
    if size > limit:
        said = f"body: {len(body)} bytes unfold to more than {MOST_TIMES} times their size"
        raise HttpError(413, said, code="body_too_large", param="body")
    if not unpacker.eof:
        raise HttpError(400, f"body: {coding.decode()} data is cut off", param="body")
    return b"".join(pieces)


async def send_ready(call: Call, lines: bytes, *pieces: bytes) -> None:
    """Send a 200 whose header lines are complete: in one write where the server offers it."""
    call.status, call.answered = 200, True
    if call.marks:
        lines += b"".join(b"%b: %b\r\n" % mark for mark in call.marks)
    if call.cycle is None or not send_at_once(call.cycle, lines, *pieces):
        pairs = [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")[:-1]]
        await call.send({"type": "http.response.start", "status": 200, "headers": pairs})
        await call.send({"type": "http.response.body", "body": b"".join(pieces)})


async def send_whole(call: Call, status: int, headers: list[Header], body: bytes) -> None:
    """Send an answer that is complete: in one write where the server offers it."""
    call.status, call.answered = status, True
    headers += (*call.marks, (b"content-length", b"%d" % len(body)))
    if status == 200 and call.cycle is not None and call.method != "HEAD" and not call.veiled:
        lines = lines_of(headers)
        if lines is not None and send_at_once(call.cycle, lines, body):
            return
    await call.send({"type": "http.response.start", "status": status, "headers": headers})
    await call.send({"type": "http.response.body", "body": body})


async def send_pieces(
    call: Call, status: int, headers: list[Header], pieces: AsyncIterator[bytes]
) -> None:
    """Send an answer as it comes. If `pieces` raises, the answer stays without an end."""
    call.status = status
    headers += call.marks
    await call.send({"type": "http.response.start", "status": status, "headers": headers})
    async for piece in pieces:
        await call.send({"type": "http.response.body", "body": piece, "more_body": True})
    call.answered = True
    await call.send({"type": "http.response.body", "body": b""})
