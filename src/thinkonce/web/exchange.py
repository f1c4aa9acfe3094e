"""One HTTP exchange over ASGI: its types, a body read within a limit, an error as an answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

from thinkonce.errors import RequestError, ThinkOnceError
from thinkonce.protocols.openai_error import openai_error

__all__ = (
    "BROKEN",
    "HEAD",
    "OVERSIZED",
    "READ",
    "ClientGone",
    "Header",
    "HttpError",
    "Limited",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "error_body",
    "is_request_id",
    "oversized_head",
    "read_whole",
    "too_large",
)

# In a scope's `state`: the HttpError for its body, the rest of which will not come.
BROKEN = "thinkonce.broken"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

# In a scope's `state`: makes the HttpError for its head, which is larger than allowed.
OVERSIZED = "thinkonce.oversized"
# In a scope's `state`: what the lane made of a request that it could not answer.
READ = "thinkonce.read"
# And what it knows of the head of that request.
HEAD = "thinkonce.head"

# What a client may call its request: it is repeated in a header and in the log.
is_request_id = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch


class HttpError(ThinkOnceError):
    """An answer of the server's own with this status, told in the protocol's error shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "",
        code: str = "",
        param: str = "",
        headers: tuple[Header, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, message, type
        self.code, self.param, self.headers = code, param, headers

    @classmethod
    def of(cls, wrong: RequestError) -> HttpError:
        """The 400 for what a caller wrote."""
        return cls(400, str(wrong), param=wrong.field)


class Limited(HttpError):
    """A request beyond a limit that it may meet later. `limit`: the setting's name, as counted."""

    def __init__(
        self, status: int, limit: str, message: str, *, code: str, seconds: int = 1
    ) -> None:
        """`seconds` until it is worth while to ask again."""
        retry = ((b"retry-after", b"%d" % seconds),)
        super().__init__(status, message, code=code, param=limit, headers=retry)
        self.limit = limit


class ClientGone(ThinkOnceError):
    """The client closed its connection before it had its answer."""


def error_body(error: HttpError) -> bytes:
    """In OpenAI's shape; a dialect with a shape of its own makes it itself."""
    return openai_error(error.status, error.message, error.type, error.code, error.param)


def too_large(limit: int, setting: str = "") -> HttpError:
    """The 413 for a body beyond `limit` bytes. `setting` says where the limit can be changed."""
    return HttpError(
        413,
        f"body: larger than {limit} bytes, the limit of this server{_named(setting)}",
        code="body_too_large",
        headers=((b"connection", b"close"),),  # the rest of it is not read
    )


def oversized_head(limit: int, setting: str = "") -> HttpError:
    """The 431 for a head beyond `limit` bytes."""
    return HttpError(
        431,
        f"headers: larger than the {limit} bytes this server takes{_named(setting)}",
        type="invalid_request_error",
        code="headers_too_large",
    )


def _named(setting: str) -> str:
    return f" ({setting})" if setting else ""


async def read_whole(
    receive: Receive,
    limit: int,
    *,
    declared: bytes | None = None,
    first: Message | None = None,
    setting: str = "",
    state: Mapping[str, Any] = MappingProxyType({}),
    count: Callable[[int], None] | None = None,
) -> bytes:
    """The request's body as it was sent.

    `declared` is its Content-Length, `first` its first part where that was received before,
    `state` the scope's; `count` is told the bytes of each part and may raise. Raises ClientGone,
    and HttpError 413 beyond `limit` bytes, 408 when its time is up and 400 when its chunks are
    none, as soon as that is known.
    """
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit, setting)
    pieces: list[bytes] = []
    size = 0
    message = await receive() if first is None else first
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise too_large(limit, setting)
        if count is not None:
            count(len(pieces[-1]))
        if not message.get("more_body"):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if BROKEN in state:
            raise state[BROKEN]
        message = await receive()
