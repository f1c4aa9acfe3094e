"""Asks an upstream: over connections that the clients of a pool share.

    send ──► connect ──► first byte ──► read ──► read ──► end
      other servers of the    │             │ no total timeout, only a gap between two pieces
      pool, within a deadline │             │ no retry: the caller may have seen a part

Redirects are passed on, never followed: a credential must not travel to another host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import aiohttp

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import UpstreamError
from thinkonce.protocols.facts import ANTHROPIC_VERSION
from thinkonce.request.headers import ENGINE_HEADERS
from thinkonce.upstream.checks import Checks, Pause
from thinkonce.upstream.connections import Connections
from thinkonce.upstream.exchange import Exchange, say
from thinkonce.upstream.failure import Header, TimedOut, Unreachable, says_try_elsewhere
from thinkonce.upstream.pools import Pool
from thinkonce.upstream.received import Received
from thinkonce.upstream.request import HOPS, Request, Watching, owner_of
from thinkonce.upstream.server import Server, retry_after
from thinkonce.upstream.turn import Turn
from thinkonce.upstream.wire import Answer

__all__ = ("Client", "Timeouts")

log = logging.getLogger("thinkonce")

# Connections to each pool: where one is slow, the others have theirs. A model's server is slow in
# any case: each call holds one for seconds.
MAX_CONNECTIONS = 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection, from the request to the first byte, between two pieces."""

    connect: float = 10.0
    first_byte: float = 600.0
    read: float = 120.0


class Client:
    """Belongs to one event loop. `close` ends all connections.

    One that was told to `retire` closes its own whenever its last request is done.
    """

    def __init__(
        self,
        timeouts: Timeouts = Timeouts(),
        *,
        retries: int = 2,
        gateway_id: str = "",
        clock: Clock = SYSTEM,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.timeouts, self.retries, self.gateway_id = timeouts, retries, gateway_id
        self.watching: Watching | None = None  # told of each attempt
        self._clock = clock
        self._checks = Checks(self._is_well, pause)
        self._connections: dict[str, Connections] = {}  # by pool
        self._under_way, self._is_retired = 0, False
        self._closings: set[asyncio.Task[None]] = set()

    async def send(
        self, pool: Pool, request: Request, *, raw: bool = False, spare: bool = False
    ) -> Exchange:
        """The beginning of the answer of one of the pool's servers, whatever its status.

        A 429 or 5xx is an answer only if no other server can serve; a connection error and a
        timeout likewise. `raw`: hand out the body in the encoding it comes in. `spare`: another
        pool can be asked, so servers that are left alone stay alone. Raises Unreachable,
        TimedOut, Overloaded.
        """
        turn = self._turn(pool, spare)
        headers = self._headers(pool, request, raw)
        refusal: Exchange | None = None
        failure: Exception | None = None
        server: Server | None = await turn.first()
        while server is not None:
            try:
                exchange = await self._try(pool, server, request, headers, raw, turn.seconds_left)
            except (aiohttp.ClientConnectionError, UpstreamError) as error:
                failure = error
                log.info("upstream %s: %s", server.name, say(error))
            except BaseException:
                _close(refusal)
                raise
            else:
                _close(refusal)
                if not (request.repeatable and says_try_elsewhere(exchange.status)):
                    return exchange
                refusal, failure = exchange, None
            # Only what never arrived may be sent to the same server again.
            again = isinstance(failure, aiohttp.ClientConnectionError)
            try:
                server = await turn.further(again=again)
            except BaseException:
                _close(refusal)
                raise
        if refusal is not None:
            return refusal
        assert failure is not None
        if isinstance(failure, UpstreamError):
            raise failure
        raise self._final(pool, failure) from failure

    def watch(self, pools: Iterable[Pool]) -> None:
        """Check the health of these pools' servers from now on. Needs a running loop."""
        self._checks.watch(pools)

    def retire(self) -> None:
        """Another client is used from now on, but for what has begun with this one."""
        self.watch(())
        self._is_retired = True
        self._close_if_idle()

    async def close(self) -> None:
        await self._checks.close()
        await _close_all(self._given_up())
        await asyncio.gather(*self._closings, return_exceptions=True)

    def _given_up(self) -> list[Connections]:
        """All connections, to close: whoever comes late opens others."""
        connections, self._connections = self._connections, {}
        return list(connections.values())

    def _done(self) -> None:
        self._under_way -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._is_retired and not self._under_way and self._connections:
            closing = asyncio.ensure_future(_close_all(self._given_up()))
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)

    def deadline(self, pool: Pool) -> float:
        """Seconds from a request to the first byte of its answer, waiting and retries included."""
        declared = pool.declared.deadline
        if declared is not None:
            return declared
        return self.timeouts.connect * (self.retries + 1) + self.timeouts.first_byte

    async def _is_well(self, pool: Pool, server: Server) -> bool:
        url = server.base.beside(pool.declared.health_path)
        # A page that says who is well answers at once, or the server is not.
        patience = min(self.timeouts.connect, self.timeouts.first_byte)
        try:
            async with asyncio.timeout(patience):
                return 200 <= await self._open(pool).status_of(url) < 300
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            return False

    def _turn(self, pool: Pool, spare: bool) -> Turn:
        until = asyncio.get_running_loop().time() + self.deadline(pool)
        return Turn(pool, self._clock, retries=self.retries, until=until, spare=spare)

    async def _try(
        self,
        pool: Pool,
        server: Server,
        request: Request,
        headers: list[Header],
        raw: bool,
        seconds: float,
    ) -> Exchange:
        """One attempt; what it tells of the server is noted. The answer holds a place there."""
        now = self._clock.monotonic
        attempt = None if self.watching is None else self.watching(pool, server, request)
        if attempt is not None:
            added = {name.lower().encode(): text.encode() for name, text in attempt.headers.items()}
            headers = [header for header in headers if header[0] not in added]
            headers += added.items()
        self._under_way += 1
        try:
            response = await self._send(pool, server, request, headers, seconds)
        except BaseException as error:
            self._done()
            if isinstance(error, Exception):
                server.failed(now())
            pool.line.give_back(server)
            if attempt is not None:
                attempt.ended(0, error)
            raise

        def done(broken: Exception | None) -> None:
            self._done()
            pool.line.give_back(server)
            if attempt is not None:
                attempt.ended(response.status, broken)

        raw = raw and not pool.credential  # or a key could not be found in it
        exchange = Received(response, self.timeouts.read, raw, done)
        if not _can_be_passed_on(exchange):
            exchange.close()
            server.failed(now())
            raise Unreachable("the upstream's answer is not HTTP: its status or its content type")
        if pool.credential:
            exchange.hide(pool.credential[0][1].removeprefix(b"Bearer "))
        if exchange.status >= 500:
            server.failed(now())
        elif exchange.status != 429:
            server.succeeded()
        if exchange.status >= 500 or (exchange.status == 429 and not _is_keys_own(pool, request)):
            rest = retry_after(exchange.headers, self._clock.wall())
            if rest is not None:
                server.rest(rest, now())
        return exchange

    async def _send(
        self, pool: Pool, server: Server, request: Request, headers: list[Header], seconds: float
    ) -> Answer | aiohttp.ClientResponse:
        patience = min(self.timeouts.first_byte, seconds)
        try:
            url = server.base.url(request.path, request.query)
            return await self._open(pool).ask(
                request.method,
                request.path,
                url,
                headers,
                request.body,
                owner_of(request),
                asyncio.get_running_loop().time() + patience,
            )
        except aiohttp.ConnectionTimeoutError:
            raise
        except TimeoutError as error:
            raise TimedOut(f"the upstream did not begin to answer in {patience:.3g} s") from error
        except aiohttp.ClientConnectionError:
            raise
        except (aiohttp.ClientError, ValueError) as error:
            raise Unreachable(f"the upstream's answer is not HTTP: {say(error)}") from error

    def _final(self, pool: Pool, failure: Exception) -> UpstreamError:
        """What the caller is told when the last attempt has failed."""
        if isinstance(failure, aiohttp.ConnectionTimeoutError):
            return TimedOut(
                f"no connection to upstream {pool.name!r} in {self.timeouts.connect:g} s"
            )
        # Addresses within are for whoever reads the log.
        log.warning("upstream %s cannot be reached: %s", pool.name, say(failure))
        what = "cannot be reached"
        if isinstance(failure, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            what = "has no certificate that is trusted here"
        return Unreachable(f"upstream {pool.name!r} {what}; the gateway's log says why")

    def _open(self, pool: Pool) -> Connections:
        found = self._connections.get(pool.name)
        if found is None:
            found = Connections(MAX_CONNECTIONS, self.timeouts.connect)
            self._connections[pool.name] = found
        return found

    def _headers(self, pool: Pool, request: Request, raw: bool) -> list[Header]:
        raw = raw and not pool.credential
        headers: list[Header] = []
        hops = self.gateway_id.encode()
        for header in (*request.headers, *(pool.credential or request.credential)):
            if header[0] == HOPS:
                hops = b"%b, %b" % (header[1], hops)
            elif raw or header[0] != b"accept-encoding":
                headers.append(header)
        if not raw:
            headers.append((b"accept-encoding", b"identity"))
        headers.append((HOPS, hops))
        if pool.declared.engine_secret:
            headers = [each for each in headers if each[0] not in ENGINE_HEADERS]
            headers += _whose(pool, request) if request.tenant else ()
        needs_version = pool.credential and pool.declared.dialect == "anthropic"
        if needs_version and all(name != ANTHROPIC_VERSION[0] for name, _ in headers):
            headers.append(ANTHROPIC_VERSION)
        return headers


def _whose(pool: Pool, request: Request) -> Iterator[Header]:
    """What our own engine is told: that it is we who ask, and whose the request is."""
    told = (pool.declared.engine_secret.encode(), request.tenant.encode())
    return zip(ENGINE_HEADERS, told, strict=True)


def _is_keys_own(pool: Pool, request: Request) -> bool:
    """Whether a limit met by `request` is its client's own: another key may have quota left."""
    return not pool.credential and bool(request.credential)


async def _close_all(connections: Iterable[Connections]) -> None:
    for each in connections:
        await each.close()


def _can_be_passed_on(exchange: Exchange) -> bool:
    """Whether its head is one of an answer (RFC 9110, 15 and 5.5), and the last one."""
    return 200 <= exchange.status < 600 and exchange.content_type.replace("\t", "").isprintable()


def _close(exchange: Exchange | None) -> None:
    if exchange is not None:
        exchange.close()
