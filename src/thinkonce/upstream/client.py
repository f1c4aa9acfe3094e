"""Asks an upstream: one `aiohttp` session for all pools.

    send ──► connect ──► first byte ──► read ──► read ──► end
       retries, other servers │             │ no total timeout, only a gap between two pieces
       of the pool            │             │ no retry: the caller may have seen a part

Redirects are passed on, never followed: a credential must not travel to another host.
"""

from __future__ import annotations

import asyncio
import io
import logging
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from thinkonce.upstream.failure import Broken, Header, TimedOut, Unreachable
from thinkonce.upstream.pools import Base, Pool

__all__ = ("HOPS", "Client", "Exchange", "Request", "Timeouts", "end_to_end")

log = logging.getLogger("thinkonce")

# RFC 8586: every gateway a request has passed is named here, so that one met twice is a loop.
HOPS = b"cdn-loop"
# Connections to all upstreams together. A model's server is slow: each call holds one for seconds.
MAX_CONNECTIONS = 1024
# Before another attempt at a pool whose servers have all been tried once, seconds.
FIRST_PAUSE = 0.05
# Most that one piece of a compressed answer may unfold to at once, bytes.
MAX_PIECE = 1024 * 1024
# A request's body is written in one go up to here, bytes.
MAX_WRITE = 512 * 1024
# Some providers send long policy headers.
MAX_HEADER = 64 * 1024

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade content-length".split()
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection, from the request to the first byte, between two pieces."""

    connect: float = 10.0
    first_byte: float = 600.0
    read: float = 120.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `path` is relative to a pool's base URLs, without /v1."""

    method: str
    path: str
    query: str
    headers: tuple[Header, ...]
    body: bytes
    credential: tuple[Header, ...] = ()


class Client:
    """Belongs to one event loop. `close` ends all connections."""

    def __init__(
        self,
        timeouts: Timeouts = Timeouts(),
        *,
        retries: int = 2,
        gateway_id: str = "",
    ) -> None:
        self.timeouts, self.retries, self.gateway_id = timeouts, retries, gateway_id
        self._session: aiohttp.ClientSession | None = None

    async def send(self, pool: Pool, request: Request, *, raw: bool = False) -> Exchange:
        """The beginning of the answer of one of the pool's servers, whatever its status.

        `raw`: hand out the body in the encoding it comes in. Raises Unreachable, TimedOut.
        """
        headers = self._headers(pool, request, raw)
        failure: Exception = Unreachable(f"no server in pool {pool.name!r}")
        for attempt, base in enumerate(self._attempts(pool)):
            if attempt >= len(pool.bases):
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - len(pool.bases)))
            try:
                return await self._send(base, request, headers, raw)
            except aiohttp.ClientConnectionError as error:
                failure = error
                log.warning("upstream %s: %s", base.root, _say(error))
        if isinstance(failure, aiohttp.ConnectionTimeoutError):
            raise TimedOut(
                f"no connection to upstream {pool.name!r} in {self.timeouts.connect:g} s"
            ) from failure
        raise Unreachable(f"upstream {pool.name!r} cannot be reached: {_say(failure)}") from failure

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _attempts(self, pool: Pool) -> Sequence[Base]:
        """Every server once, then again while attempts are left."""
        bases = pool.in_turn()
        wanted = self.retries + 1
        rounds = -(-wanted // len(bases))
        return (list(bases) * rounds)[: max(wanted, len(bases))]

    async def _send(
        self, base: Base, request: Request, headers: CIMultiDict[str], raw: bool
    ) -> Exchange:
        url = URL(base.url(request.path, request.query), encoded=True)
        sending = self._open().request(
            request.method,
            url,
            data=_payload(request.body),
            headers=headers,
            allow_redirects=False,
        )
        try:
            async with asyncio.timeout(self.timeouts.first_byte):
                response = await sending
        except aiohttp.ConnectionTimeoutError:
            raise
        except TimeoutError as error:
            raise TimedOut(
                f"the upstream did not begin to answer in {self.timeouts.first_byte:g} s"
            ) from error
        except aiohttp.ClientConnectionError:
            raise
        except (aiohttp.ClientError, ValueError) as error:
            raise Unreachable(f"the upstream's answer is not HTTP: {_say(error)}") from error
        return Exchange(response, self.timeouts.read, raw)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
            )
        return self._session

    def _headers(self, pool: Pool, request: Request, raw: bool) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        hops = self.gateway_id
        for name, value in (*request.headers, *request.credential):
            if name == HOPS:
                hops = f"{value.decode('latin-1')}, {hops}"
            elif raw or name != b"accept-encoding":
                headers.add(name.decode("latin-1"), value.decode("latin-1"))
        if not raw:
            headers["accept-encoding"] = "identity"
        headers[HOPS.decode()] = hops
        return headers


class Exchange:
    """An answer that has begun. Close it, or read it to its end."""

    def __init__(self, response: aiohttp.ClientResponse, gap: float, raw: bool) -> None:
        self.status = response.status
        self.headers = end_to_end(response.raw_headers)
        self.content_type = response.headers.get("content-type", "")
        self._response, self._gap = response, gap
        encoding = response.headers.get("content-encoding", "identity").lower()
        self.opaque = not raw and encoding not in ("", "identity", "gzip", "x-gzip", "deflate")
        self._decoder = None if raw or self.opaque else _decoder_for(encoding)
        if self._decoder is not None:
            self.headers = tuple(h for h in self.headers if h[0] != b"content-encoding")
        self._due = float("inf")
        self._late = False
        self._watch: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """The next piece as soon as there is one; b"" at the end. Raises Broken, TimedOut."""
        while True:
            held = self._decoder.unconsumed_tail if self._decoder is not None else b""
            data = held or await self._read()
            if not data or self._decoder is None:
                return data
            try:
                data = self._decoder.decompress(data, MAX_PIECE)
            except zlib.error as error:
                raise Broken("the upstream's answer cannot be decompressed") from error
            if data:
                return data

    async def read_all(self, limit: int) -> bytes | None:
        """All that is left; None if that is more than `limit` bytes."""
        pieces, size = [], 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else end it."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def _read(self) -> bytes:
        content = self._response.content
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._gap
        if self._watch is None:
            self._watch = loop.call_later(self._gap, self._check, loop)
        try:
            return await content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            if self._late:
                raise TimedOut(f"the upstream paused for more than {self._gap:g} s") from error
            raise Broken(f"the upstream's answer broke off: {_say(error)}") from error
        finally:
            self._due = float("inf")

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look now and then instead of setting a timer for each piece of a stream."""
        left = min(self._due - loop.time(), self._gap)
        if left > 0:
            self._watch = loop.call_later(left, self._check, loop)
            return
        self._late = True
        self._response.close()


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    # Bytes go out in one write, which would hold the loop up where there are many.
    return io.BytesIO(body) if len(body) > MAX_WRITE else body or None


class _Decoder(Protocol):
    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decoder_for(encoding: str) -> _Decoder | None:
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=31)
    return zlib.decompressobj() if encoding == "deflate" else None


def end_to_end(headers: Iterable[Header]) -> tuple[Header, ...]:
    """`headers` in lower case without those that concern one connection only (RFC 9110, 7.6.1)."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        part.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for part in value.split(b",")
    }
    dropped = _HOP_BY_HOP | named
    return tuple(header for header in lowered if header[0] not in dropped)


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
