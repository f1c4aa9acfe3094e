"""What is asked of an upstream, and whoever asks: over aiohttp, or through a client's transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Protocol

import msgspec

from thinkonce.upstream.exchange import Exchange
from thinkonce.upstream.failure import Header
from thinkonce.upstream.pools import Pool
from thinkonce.upstream.server import Server

__all__ = ("HOPS", "Attempt", "Request", "Sender", "Watching", "owner_of")

# RFC 8586: every gateway a request has passed is named here, so that one met twice is a loop.
HOPS = b"cdn-loop"


class Request(msgspec.Struct, frozen=True):
    """What to send. `path` is relative to a pool's base URLs, without /v1.

    `repeatable`: asking twice does nothing that asking once does not. `tenant` is told to our
    own engine alone. `owner`: see `owner_of`.
    """

    method: str
    path: str
    query: str
    headers: tuple[Header, ...]
    body: bytes
    credential: tuple[Header, ...] = ()
    repeatable: bool = True
    tenant: str = ""
    owner: str = ""


def owner_of(request: Request) -> str:
    """Whose connections may carry it: its tenant's; without one, those of who shows its keys."""
    if request.owner or request.tenant:
        return request.owner or request.tenant
    parts = (part for header in request.credential for part in header)
    return blake2b(b"\n".join(parts), digest_size=16).hexdigest()


class Attempt(Protocol):
    """One attempt to ask a server, as whoever watches it sees it. `headers` go along with it."""

    headers: Mapping[str, str]

    def ended(self, status: int, error: BaseException | None = None) -> None:
        """Once: read to its end, or given up; `status` 0 without an answer."""
        ...


Watching = Callable[[Pool, Server, Request], Attempt]


class Sender(Protocol):
    """Belongs to one event loop."""

    async def send(
        self, pool: Pool, request: Request, *, raw: bool = False, spare: bool = False
    ) -> Exchange:
        """The beginning of the answer of one of the pool's servers, whatever its status.

        `raw`: hand out the body in the encoding it comes in. `spare`: another pool can be asked.
        Raises UpstreamError.
        """
        ...
