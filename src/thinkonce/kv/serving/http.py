"""The little of HTTP the model server needs: bodies in, JSON and event streams out, errors."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from urllib.parse import parse_qs

from thinkonce.errors import RequestError
from thinkonce.web.exchange import (
    Header,
    HttpError,
    Receive,
    Scope,
    Send,
    error_body,
    is_request_id,
    read_whole,
)

__all__ = ("Incoming", "Reply", "header", "read_body")


class Incoming:
    """One request on its way in, as what reads lines and what tells who asks want it."""

    cors = ()  # no other site's page is let in

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self.receive = scope, receive
        self.path: str = scope["path"]
        self.headers: list[Header] = list(scope["headers"])
        self.head: dict[bytes, bytes] = dict(self.headers)

    async def body(self, limit: int) -> bytes:
        """See `read_body`."""
        return await read_body(self.scope, self.receive, limit)

    def query(self, *known: str) -> dict[str, str]:
        """What the URL says. Raises RequestError for a name that is not one of `known`."""
        given = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        for name, values in given.items():
            if name not in known:
                raise RequestError(name, values[0], f"one of {', '.join(known)}")
        return {name: values[-1] for name, values in given.items()}

    def flag(self, name: str) -> bool:
        """Whether the URL says `name=true`. Raises RequestError for another name or word."""
        said = self.query(name).get(name, "false")
        if said not in ("true", "false"):
            raise RequestError(name, said, "true or false")
        return said == "true"


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def read_body(
    scope: Scope, receive: Receive, limit: int, count: Callable[[int], None] | None = None
) -> bytes:
    """The whole body; `count` is told the bytes of each part and may raise.

    Raises ClientGone, HttpError 413 beyond `limit` bytes, and 415 for a body that says it is not
    plain JSON.
    """
    _check_type(scope)
    declared = header(scope, b"content-length")
    return await read_whole(
        receive, limit, declared=declared, state=scope.get("state", {}), count=count
    )


def _check_type(scope: Scope) -> None:
    kind = _word(header(scope, b"content-type") or b"application/json")
    if kind != "application/json" and not kind.endswith("+json"):
        raise HttpError(415, f"content-type {kind!r} is not read here; it accepts application/json")
    encoding = _word(header(scope, b"content-encoding") or b"identity")
    if encoding != "identity":
        raise HttpError(415, f"content-encoding {encoding!r} is not read here; send it as it is")


def _word(value: bytes) -> str:
    return value.decode("latin-1").partition(";")[0].strip().lower()


class Reply:
    """One answer on its way out: JSON at once, or an event stream piece by piece."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.told = error_body  # an error, in the protocol's shape
        given = header(scope, b"x-request-id") or b""
        self.request_id = given if is_request_id(given) else uuid.uuid4().hex.encode()

    @property
    def started(self) -> bool:
        """True once the status has gone out and can no longer be changed."""
        return self.status is not None

    async def json(self, body: bytes, status: int = 200, headers: tuple[Header, ...] = ()) -> None:
        await self.whole(b"application/json", body, status, headers)

    async def whole(
        self, kind: bytes, body: bytes, status: int = 200, headers: tuple[Header, ...] = ()
    ) -> None:
        """`body`, of the content type `kind`."""
        length = (b"content-length", b"%d" % len(body))
        await self._start(status, ((b"content-type", kind), length, *headers))
        await self._send({"type": "http.response.body", "body": body})

    async def error(self, error: HttpError) -> None:
        await self.json(self.told(error), error.status, error.headers)

    async def open_stream(self) -> None:
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        # The second header asks nginx and its like not to collect the stream.
        quick = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
        await self._start(200, (kind, *quick))

    async def open_lines(self) -> None:
        """Lines of JSON, as they come; `event` and `close_stream` as of a stream."""
        kind = (b"content-type", b"application/jsonl")
        await self._start(200, (kind, (b"cache-control", b"no-store")))

    async def event(self, data: bytes) -> None:
        """`data` as the stream frames it."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: tuple[Header, ...]) -> None:
        self.status = status
        pairs = [*headers, (b"x-request-id", self.request_id)]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
