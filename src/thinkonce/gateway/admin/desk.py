"""What every group of the admin API stands on: the gateway's parts, and how it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from thinkonce.engine.asking import Reader
from thinkonce.engine.http import Call, HttpError, Message, read_body, send_whole
from thinkonce.engine.marks import JSON_TYPE
from thinkonce.engine.tenants import Tenants
from thinkonce.engine.world import GatewayWorld
from thinkonce.entry import Entry
from thinkonce.errors import RequestError
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.team import Team
from thinkonce.insight.prices import Prices
from thinkonce.selector import ALL_DIGITS, MOST_ALIKE, beginning_with, key_digits, only_one
from thinkonce.settings import Settings
from thinkonce.shelf import Shelf
from thinkonce.web.access import audited

__all__ = ("BODY_LIMIT", "Desk", "Handler", "Served", "decoded")

BODY_LIMIT = 1024 * 1024
LINES_TYPE = (b"content-type", b"application/jsonl")
T = TypeVar("T")

Handler = Callable[[Call], Awaitable[None]]
Served = Callable[[Call, Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Desk:
    """Belongs to one event loop; what a disk may delay runs in a thread.

    `endpoints` by their path without /v1, and what their requests are read with.
    """

    settings: Settings
    shelf: Shelf
    world: GatewayWorld
    metrics: Counts
    team: Team
    endpoints: Mapping[str, Served]
    readers: Mapping[str, Reader]
    tenants: Tenants
    prices: Prices

    async def found(self, name: str) -> Entry:
        """The entry whose key begins with `name`. Raises HttpError 404, 409 and RequestError."""
        digits = key_digits(name)
        alike = await asyncio.to_thread(self.shelf.entries, beginning_with(digits), MOST_ALIKE)
        try:
            found = only_one(alike, digits)
        except RequestError as error:
            raise HttpError(409, str(error), code="ambiguous") from error
        if found is None:
            raise HttpError(404, f"key: no entry begins with {digits}", code="not_found")
        return found

    async def digest(self, name: str) -> bytes:
        """A whole key as it is, there or not; the first digits of one as `found` takes them."""
        digits = key_digits(name)
        if len(digits) == ALL_DIGITS:
            return bytes.fromhex(digits)
        return (await self.found(digits)).digest

    async def body(self, call: Call, kind: type[T]) -> T:
        """The request's JSON. Raises HttpError 400 that lists the fields."""
        return decoded(await read_body(call, BODY_LIMIT), kind)

    async def send(self, call: Call, answer: Any) -> None:
        await send_whole(call, 200, self.head(call), msgspec.json.encode(answer))

    async def begin_lines(self, call: Call) -> None:
        """The head of an answer that is lines of JSON, as they come."""
        call.status = 200
        head = self.head(call, LINES_TYPE)
        await call.send({"type": "http.response.start", "status": 200, "headers": head})

    async def send_line(self, call: Call, row: Any) -> None:
        line = msgspec.json.encode(row) + b"\n"
        await call.send({"type": "http.response.body", "body": line, "more_body": True})

    async def end_lines(self, call: Call) -> None:
        call.answered = True
        await call.send({"type": "http.response.body", "body": b""})

    def head(self, call: Call, kind: tuple[bytes, bytes] = JSON_TYPE) -> list[tuple[bytes, bytes]]:
        return [kind, (b"x-request-id", call.id), (b"cache-control", b"no-store")]

    def audit(self, call: Call, what: str) -> None:
        """See `audited`."""
        call.outcome = "admin"
        audited(call, call.id, what)


def decoded(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fields = ", ".join(getattr(kind, "__struct_fields__", ()))
        raise HttpError(400, f"body: {error}; it accepts {fields}", param="body") from error
