"""The little of HTTP the model server needs: bodies in, JSON and event streams out, errors."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from thinkonce.errors import RequestError, ThinkOnceError

__all__ = ("HttpError", "Receive", "Reply", "Scope", "Send", "error_body", "header", "read_body")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class HttpError(ThinkOnceError):
    """An answer that is an error; becomes OpenAI's error object with this status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code, self.headers = code, headers

    @classmethod
    def of(cls, wrong: RequestError) -> HttpError:
        return cls(400, str(wrong), param=wrong.field)


def error_body(error: HttpError) -> bytes:
    """OpenAI's error object."""
    kind = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": kind.get(error.status, "invalid_request_error"),
                "param": error.param,
                "code": error.code,
            }
        }
    )


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that lower-case name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The whole body, None where the client left before it was complete.

    Raises HttpError 413 beyond `limit` bytes, as soon as that is known, and 415 for a body that
    says it is not plain JSON.
    """
    _check_type(scope)
    too_large = HttpError(
        413,
        f"the body is larger than the {limit} bytes this server reads",
        headers=(("connection", "close"),),
    )
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise too_large
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts += message.get("body", b"")
        if len(parts) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(parts)


def _check_type(scope: Scope) -> None:
    kind = (header(scope, b"content-type") or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HttpError(415, f"content-type {kind!r} is not read here; it accepts application/json")
    encoding = (header(scope, b"content-encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise HttpError(415, f"content-encoding {encoding!r} is not read here; send it as it is")


class Reply:
    """One answer on its way out: JSON at once, or an event stream piece by piece."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        given = header(scope, b"x-request-id") or ""
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

    @property
    def started(self) -> bool:
        """True once the status has gone out and can no longer be changed."""
        return self.status is not None

    async def json(
        self, body: bytes, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        length = ("content-length", str(len(body)))
        await self._start(status, (("content-type", "application/json"), length, *headers))
        await self._send({"type": "http.response.body", "body": body})

    async def error(self, error: HttpError) -> None:
        await self.json(error_body(error), error.status, error.headers)

    async def open_stream(self) -> None:
        kind = ("content-type", "text/event-stream; charset=utf-8")
        # The second header asks nginx and its like not to collect the stream.
        quick = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
        await self._start(200, (kind, *quick))

    async def event(self, data: bytes) -> None:
        body = b"data: " + data + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def close_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        self.status = status
        pairs = (*headers, ("x-request-id", self.request_id))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
