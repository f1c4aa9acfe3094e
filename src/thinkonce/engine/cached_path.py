"""What the cached paths have in common: reading, errors, other pools, the way around the cache.

read ──► ask and tell, of the request's own pool ──► of its fallbacks ──► of something stale
  └── not to be cached ──► pass ◄── the cache itself failed ──────────────────┘
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from urllib.parse import quote

from thinkonce.engine.asking import Asking, Reader
from thinkonce.engine.fetch import upstream_request
from thinkonce.engine.http import Call, ClientGone, HttpError, Message, read_body
from thinkonce.engine.marks import miss_headers
from thinkonce.engine.means import Means
from thinkonce.engine.passing import Dress, hops, send_refusal
from thinkonce.engine.watch import Watch
from thinkonce.errors import NotCached, RequestError, UpstreamError
from thinkonce.outcome import Outcome, Reason
from thinkonce.request.headers import with_one_type
from thinkonce.upstream.failure import (
    Header,
    Refused,
    Resting,
    may_others_do_better,
    says_try_elsewhere,
)
from thinkonce.upstream.request import Request

__all__ = ("CachedPath", "asked_query", "failed", "mark")

log = logging.getLogger("thinkonce")


class CachedPath(ABC):
    """Belongs to one event loop. Raises HttpError, RequestError, ClientGone, UpstreamError."""

    def __init__(self, name: str, reader: Reader, means: Means, body_limit: int) -> None:
        """`name`: the path without /v1."""
        self.reader, self.body_limit = reader, body_limit
        self._name, self._shelf, self._world = name, means.shelf, means.world
        self._sender, self._passing, self._metrics = means.sender, means.passing, means.metrics

    async def __call__(self, call: Call, message: Message) -> None:
        """`message`: the first part of the body, from the server."""
        call.endpoint = self._name
        raw = await read_body(call, self.body_limit, message)
        try:
            asking = self._read(call, raw)
        except (HttpError, RequestError):
            raise
        except Exception:
            await self._despite_failure(call, raw)
            return
        asking.take(call.sample)
        call.model, call.whose, call.key = asking.asked.model, asking.tenant, asking.key
        async with Watch(call):
            if asking.key is None:
                await self._bypass(call, asking)
            else:
                await self._ask(call, asking)

    # -- what differs --------------------------------------------------------------------

    @abstractmethod
    async def _answer_from(
        self, call: Call, asking: Asking, *, spare: bool = False, failure: Exception | None = None
    ) -> bool:
        """Ask the cache and the pool of `asking`, and tell; False if the cache is of no use.

        `spare`: another pool can be asked, so nothing stale stands in. `failure`: what asking the
        pool has come to, which is not asked again.
        """

    def _read(self, call: Call, raw: bytes) -> Asking:
        """Raises HttpError and RequestError for what cannot be served."""
        return _as_read_before(call, raw) or self.reader.read(call, raw)

    def _instead_of(self, asking: Asking) -> Iterator[Asking]:
        """What may be asked in place of `asking` where its pool cannot answer."""
        return self.reader.instead_of(asking)

    def _refused_key(self, asking: Asking) -> str:
        """The key that an upstream's refusal is marked with; "" for none."""
        return ""

    def _marking(self, asking: Asking, reason: Reason) -> Dress | None:
        """What puts marks into the body of an answer that bypasses the cache."""
        return None

    # -- asking --------------------------------------------------------------------------

    async def _ask(self, call: Call, asking: Asking) -> None:
        try:
            if await self._answer_somehow(call, asking):
                return
        except NotCached as error:
            raise _not_cached(call, Reason(str(error))) from error
        except Refused as error:
            call.outcome, call.reason = Outcome.MISS, Reason.ERROR
            head = miss_headers(Outcome.MISS, Reason.ERROR, self._refused_key(asking))
            head.append((b"x-request-id", call.id))
            await send_refusal(call, error, head)
            return
        except (UpstreamError, ClientGone):
            call.outcome, call.reason = Outcome.MISS, Reason.ERROR
            raise
        except Exception:
            if call.status:  # part of an answer is out: nothing can be put in its place
                raise
            mark(call, asking)
            await self._despite_failure(call, asking.raw)
            return
        await self._bypass(call, asking)

    async def _answer_somehow(self, call: Call, asking: Asking) -> bool:
        """Answer from the request's own pool, else from its fallbacks, else with something stale.

        False if what was found cannot take the shape asked for.
        """
        others = list(self._instead_of(asking))
        if not others:
            return await self._answer_from(call, asking)
        failure: UpstreamError | None = None
        for each in (asking, *others):
            mark(call, each)
            try:
                return await self._answer_from(call, each, spare=True)
            except UpstreamError as error:
                last = each is others[-1]
                if not _goes_on(call, error, first=failure is None, last=last):
                    raise
                failure = failure or error
        assert failure is not None
        mark(call, asking)
        resting = isinstance(failure, Resting)  # then nobody was asked yet
        return await self._answer_from(call, asking, failure=None if resting else failure)

    def _request(self, call: Call, asking: Asking, body: bytes) -> Request:
        query, more = asked_query(call, asking), tuple(hops(call))
        taken = with_one_type(asking.taken, stream=asking.asked.stream)
        path, tenant = self._name, asking.tenant
        return upstream_request("POST", path, query, taken, body, more, tenant=tenant)

    # -- around the cache ----------------------------------------------------------------

    async def _bypass(self, call: Call, asking: Asking) -> None:
        reason = asking.bypass or Reason.UNKEYABLE
        if asking.controls.only_if_cached:
            raise _not_cached(call, reason)
        call.outcome, call.reason = Outcome.BYPASS, reason
        head = miss_headers(Outcome.BYPASS, reason, "")
        head.append((b"x-request-id", call.id))
        others = list(self._instead_of(asking))
        failure: UpstreamError | None = None
        for each in (asking, *others) if others else ():
            try:
                refused = _is_no_answer if each.fallback else says_try_elsewhere
                await self._send(call, each, head, reason, refused)
            except UpstreamError as error:
                last = each is others[-1]
                if not _goes_on(call, error, first=failure is None, last=last):
                    raise
                failure = failure or error
            else:
                return
        if failure is None or isinstance(failure, Resting):
            await self._send(call, asking, head, reason)
        elif isinstance(failure, Refused):
            mark(call, asking)
            await send_refusal(call, failure, head)
        else:
            mark(call, asking)
            raise failure

    async def _send(
        self,
        call: Call,
        asking: Asking,
        head: list[Header],
        reason: Reason,
        refused: Callable[[int], bool] | None = None,
    ) -> None:
        mark(call, asking)
        request = self._request(call, asking, asking.upstream_body())
        dress = self._marking(asking, reason)
        await self._passing.send(call, asking.pool, request, [*head], dress, refused=refused)

    async def _despite_failure(self, call: Call, raw: bytes) -> None:
        """The cache itself has failed: count it, and serve as if it were not there."""
        self._metrics.cache_failed()
        log.exception("request %s is forwarded uncached: the cache failed", call.id)
        await self._passing.forward(call, raw, Reason.TIER_ERROR, decoded=True)


def _is_no_answer(status: int) -> bool:
    return status != 200


def _goes_on(call: Call, error: UpstreamError, *, first: bool, last: bool) -> bool:
    """Whether another pool may be asked after `error`, where there is one.

    The request's own pool has the say in what is wrong with a request; a fallback that refuses
    one is passed over, whatever it says.
    """
    if call.status or (first and not may_others_do_better(error)):
        return False
    then = "has no pool left" if last else "goes to another pool"
    log.warning("request %s %s: %s", call.id.decode("latin-1"), then, error)
    return True


def mark(call: Call, asking: Asking) -> None:
    """Let the answer say who gives it in place of whom was asked."""
    call.model, call.key = asking.asked.model, asking.key
    name = quote(asking.pool.name, safe="/:+@").encode()
    own = ((b"x-thinkonce-fallback", name),) if asking.fallback else ()
    call.marks = (*call.cors, *own)


def asked_query(call: Call, asking: Asking) -> bytes:
    """The part of the URL that the pool is shown."""
    return b"" if asking.fallback else call.query


def failed(failure: Exception) -> None:
    """In place of a call that has come to `failure` before."""
    raise failure


def _as_read_before(call: Call, raw: bytes) -> Asking | None:
    """What the fast lane has read of the same request, which it could not answer."""
    asking = call.read
    return asking if isinstance(asking, Asking) and asking.raw == raw else None


def _not_cached(call: Call, reason: Reason) -> HttpError:
    call.outcome, call.reason = Outcome.MISS, reason
    error = HttpError(504, f"only-if-cached: no stored answer fits ({reason})", code="not_cached")
    error.headers = tuple(miss_headers(Outcome.MISS, reason, ""))
    return error
