"""One cached path: read the request, ask the flow, hand out what it found.

read ──► probe ──► flow (`flow.answer` in `GatewayWorld`) ──► tell
  │        memory hit the flow has decided already              │
  └── not to be cached ──► pass ◄── the cache itself failed ────┘
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import msgspec

from thinkonce.drive import drive_async
from thinkonce.errors import NotCached, RequestError, UpstreamError
from thinkonce.flow import Answer, Live, answer
from thinkonce.gateway.asking import Asking, Reader
from thinkonce.gateway.fetch import Fetch, upstream_request
from thinkonce.gateway.http import Call, ClientGone, Head, HttpError, Message, read_body
from thinkonce.gateway.marks import annotation_of_miss, miss_headers
from thinkonce.gateway.memo import Memo
from thinkonce.gateway.passing import Passing, hops, send_refusal
from thinkonce.gateway.telling import Marking, Plain, Teller
from thinkonce.gateway.watch import Watch
from thinkonce.gateway.world import GatewayAsk, GatewayWorld
from thinkonce.outcome import Outcome, Reason
from thinkonce.request.controls import DEFAULTS
from thinkonce.shelf import Shelf
from thinkonce.upstream.failure import (
    Header,
    Refused,
    Resting,
    may_others_do_better,
    says_try_elsewhere,
)
from thinkonce.upstream.request import Request, Sender
from thinkonce.web.exchange import READ

__all__ = ("Endpoint",)

log = logging.getLogger("thinkonce")

# The flow, the flow without reading, the flow alone: then the answer has no other shape.
ATTEMPTS = 3


class Endpoint:
    """Belongs to one event loop. Raises HttpError, RequestError, ClientGone, UpstreamError."""

    def __init__(
        self,
        reader: Reader,
        shelf: Shelf,
        world: GatewayWorld,
        client: Sender,
        passing: Passing,
        teller: Teller,
        memo: Memo,
        body_limit: int,
        *,
        inline: bool = True,
    ) -> None:
        self.dialect = teller.dialect
        self.reader, self._shelf, self._world, self._client = reader, shelf, world, client
        self._passing, self._teller, self.body_limit = passing, teller, body_limit
        self.memo, self._inline, self.tokens_of = memo, inline, teller.tokens_of

    def understood(self, head: Head, raw: bytes) -> Asking | None:
        """What a request asks, if a plain hit may answer it; None also for one that is wrong."""
        if not self._inline:
            return None
        try:
            asking = self.reader.read(head, raw)
        except (HttpError, RequestError):
            return None
        return asking if asking.controls is DEFAULTS and asking.key is not None else None

    def hit(self, asking: Asking, request_id: bytes) -> Plain | None:
        """A memory hit that the flow has decided already; None sends the request to the flow.

        `asking` has a key and no controls.
        """
        draw = asking.draw
        key = asking.key if draw is None else draw.key()
        assert key is not None
        entry = self._shelf.probe(key.local)
        plain = None if entry is None else self._teller.inline(asking, entry, request_id)
        if draw is not None and plain is not None:
            draw.advance()
        return plain

    def answer_inline(self, call: Call, message: Message) -> Plain | None:
        """The answer to a request that came before and that the flow has decided already.

        None sends the request to `__call__`, which reads it again.
        """
        if not self._inline or message.get("more_body") or b"content-encoding" in call.head:
            return None
        asking = self.memo.known(call.query, call.headers).get(message.get("body", b""))
        if asking is None:
            return None
        try:
            plain = self.hit(asking, call.id)
        except Exception:
            log.exception("request %s: the probe failed", call.id.decode("latin-1"))
            return None
        if plain is not None:
            self._teller.note_hit(call, asking)
        return plain

    async def __call__(self, call: Call, message: Message) -> None:
        """`message`: the first part of the body, from the server."""
        call.endpoint = self.dialect.name
        raw = await read_body(call, self.body_limit, message)
        try:
            asking = _as_read_before(call, raw) or self.reader.read(call, raw)
        except (HttpError, RequestError):
            raise
        except Exception:
            await self._despite_failure(call, raw)
            return
        call.model, call.whose, call.key = asking.asked.model, asking.tenant, asking.key
        asking.take(call.sample)
        async with Watch(call):
            if asking.key is None:
                await self._bypass(call, asking)
            else:
                await self._ask(call, asking)

    async def _ask(self, call: Call, asking: Asking) -> None:
        try:
            if await self._answer_somehow(call, asking):
                return
        except NotCached as error:
            raise self._not_cached(call, Reason(str(error))) from error
        except Refused as error:
            call.outcome, call.reason = Outcome.MISS, Reason.ERROR
            assert asking.key is not None
            head = miss_headers(Outcome.MISS, Reason.ERROR, asking.key.digest.hex())
            head.append((b"x-request-id", call.id))
            await send_refusal(call, error, head)
            return
        except (UpstreamError, ClientGone):
            call.outcome, call.reason = Outcome.MISS, Reason.ERROR
            raise
        except Exception:
            if call.status:  # part of an answer is out: nothing can be put in its place
                raise
            await self._despite_failure(call, asking.raw)
            return
        await self._bypass(call, asking)

    async def _answer_somehow(self, call: Call, asking: Asking) -> bool:
        """As `_answer_along`; where that fails, another sample of the request will do."""
        try:
            return await self._answer_along(call, asking)
        except (NotCached, UpstreamError) as error:
            if not await self._answer_another_sample(call, asking, error):
                raise
        return True

    async def _answer_another_sample(
        self, call: Call, asking: Asking, error: NotCached | UpstreamError
    ) -> bool:
        draw, controls = asking.draw, asking.controls
        if draw is None or not controls.read or controls.refresh or call.status:
            return False
        if isinstance(error, UpstreamError) and not may_others_do_better(error):
            return False
        stored_only = msgspec.structs.replace(controls, only_if_cached=True)
        for sample in range(len(draw.keys)):
            other = replace(asking, controls=stored_only)
            other.take(sample)
            with suppress(NotCached):
                _mark(call, other)
                return await self._answer(call, other, self._ask_of(call, other))
        return False

    async def _answer_along(self, call: Call, asking: Asking) -> bool:
        """Answer from the request's own pool, else from its fallbacks, else with something stale.

        False if what was found cannot take the shape asked for.
        """
        others = list(self.reader.instead_of(asking))
        if not others:
            return await self._answer(call, asking, self._ask_of(call, asking))
        failure: UpstreamError | None = None
        for each in (asking, *others):
            _mark(call, each)
            try:
                return await self._answer(call, each, self._ask_of(call, each, spare=True))
            except UpstreamError as error:
                if not _goes_on(call, error, first=failure is None):
                    raise
                failure = failure or error
        assert failure is not None
        _mark(call, asking)
        ask = self._ask_of(call, asking)
        if not isinstance(failure, Resting):  # else nobody was asked yet
            ask.coalesce, ask.call = False, partial(_raise, failure)
        return await self._answer(call, asking, ask)

    async def _answer(self, call: Call, asking: Asking, ask: GatewayAsk) -> bool:
        for _ in range(ATTEMPTS):
            found = await drive_async(answer(ask, self._shelf.setting), self._world)
            call.renews = ask.renews
            if ask.controls is not asking.controls:
                found = _of_another_shape(found, asking)
            if await self._tell(call, asking, found):
                return True
            ask = self._again(call, asking, ask)
        return False

    async def _tell(self, call: Call, asking: Asking, found: Answer) -> bool:
        """False if what was found cannot take the shape asked for."""
        call.outcome, call.reason = found.outcome, found.reason or ""
        call.tier = found.tier or ""
        plain = asking.controls is DEFAULTS and not (call.tenant or asking.fallback)
        if found.refused is None and plain and self._inline:
            known = self.memo.known(call.query, call.headers)
            self.memo.put(known, asking.raw, asking)
        if isinstance(found.raw, Live):
            await self._teller.live(call, asking, found, found.raw.feed)
            return True
        if found.tier is not None:
            assert found.entry is not None
            return await self._teller.entry(call, asking, found, found.entry)
        if found.outcome is Outcome.COALESCED:
            assert found.entry is not None
            return await self._teller.joined(call, asking, found, found.entry)
        await self._teller.made(call, asking, found, found.raw)
        return True

    # -- what is asked of whom -----------------------------------------------------------

    def _ask_of(self, call: Call, asking: Asking, *, spare: bool = False) -> GatewayAsk:
        """`spare`: another pool can be asked."""
        fetch = self._fetch(call, asking, spare)
        return GatewayAsk(
            key=asking.key,
            meta=asking.meta(self.dialect.name, self._shelf.setting.rules),
            controls=asking.controls,
            call=fetch,
            draft=fetch.draft,
            epoch=fetch.epoch,
            fetch=fetch,
            stale_on_error=not spare,
        )

    def _again(self, call: Call, asking: Asking, ask: GatewayAsk) -> GatewayAsk:
        """Without reading what cannot be used; the second time without joining anybody either."""
        anew = self._ask_of(call, asking, spare=not ask.stale_on_error)
        anew.coalesce = ask.controls.read
        anew.controls = msgspec.structs.replace(asking.controls, read=False)
        return anew

    def _fetch(self, call: Call, asking: Asking, spare: bool) -> Fetch:
        asked = asking.asked
        on_behalf = asking.pool.ask_usage and asked.stream and not asked.include_usage
        on_behalf = on_behalf and self._teller.annotate
        return Fetch(
            asking,
            self.dialect,
            self._client,
            self._request(call, asking, ask_usage=on_behalf),
            rules=self._teller.rules,
            prices=self._teller.prices,
            usage_asked=asked.include_usage or on_behalf,
            epoch=self._shelf.epoch,
            kept=lambda: self.reader.kept(_query(call, asking), asking),
            took=self._teller.metrics.counted.upstream.add,
            spare=spare,
        )

    def _request(self, call: Call, asking: Asking, *, ask_usage: bool) -> Request:
        body = asking.upstream_body()
        if ask_usage:
            body = self.dialect.ask_usage(body, asking.body)
        path, more = self.dialect.name, tuple(hops(call))
        return upstream_request("POST", path, _query(call, asking), asking.taken, body, more)

    # -- around the cache ----------------------------------------------------------------

    async def _bypass(self, call: Call, asking: Asking) -> None:
        reason = asking.bypass or Reason.UNKEYABLE
        if asking.controls.only_if_cached:
            raise self._not_cached(call, reason)
        call.outcome, call.reason = Outcome.BYPASS, reason
        head = miss_headers(Outcome.BYPASS, reason, "")
        head.append((b"x-request-id", call.id))
        # What lies elsewhere, a stored response say, lies with one pool only.
        others = [] if reason is Reason.STATEFUL else list(self.reader.instead_of(asking))
        failure: UpstreamError | None = None
        for each in (asking, *others) if others else ():
            try:
                refused = _is_no_answer if each.fallback else says_try_elsewhere
                await self._send(call, each, head, reason, refused)
            except UpstreamError as error:
                if not _goes_on(call, error, first=failure is None):
                    raise
                failure = failure or error
            else:
                return
        if failure is None or isinstance(failure, Resting):
            await self._send(call, asking, head, reason)
        elif isinstance(failure, Refused):
            _mark(call, asking)
            await send_refusal(call, failure, head)
        else:
            _mark(call, asking)
            raise failure

    async def _send(
        self,
        call: Call,
        asking: Asking,
        head: list[Header],
        reason: Reason,
        refused: Callable[[int], bool] | None = None,
    ) -> None:
        _mark(call, asking)
        request, dress = self._request(call, asking, ask_usage=False), self._marking(asking, reason)
        await self._passing.send(call, asking.pool, request, [*head], dress, refused=refused)

    def _marking(self, asking: Asking, reason: Reason) -> Marking | None:
        if not self._teller.annotate:
            return None
        asked, dialect = asking.asked, self.dialect
        return Marking(
            self._teller,
            asked,
            annotation_of_miss(Outcome.BYPASS, "", asking.controls.label, reason),
            lambda: dialect.recorder(asked, usage_asked=asked.include_usage, max_bytes=0),
        )

    def _not_cached(self, call: Call, reason: Reason) -> HttpError:
        call.outcome, call.reason = Outcome.MISS, reason
        error = HttpError(
            504, f"only-if-cached: no stored answer fits ({reason})", code="not_cached"
        )
        error.headers = tuple(miss_headers(Outcome.MISS, reason, ""))
        return error

    async def _despite_failure(self, call: Call, raw: bytes) -> None:
        """The cache itself has failed: count it, and serve as if it were not there."""
        self._teller.metrics.counted.cache_failures += 1
        log.exception("request %s is forwarded uncached: the cache failed", call.id)
        await self._passing.forward(call, raw, Reason.TIER_ERROR, decoded=True)


def _is_no_answer(status: int) -> bool:
    return status != 200


def _goes_on(call: Call, error: UpstreamError, *, first: bool) -> bool:
    """Whether another pool may be asked after `error`.

    The request's own pool has the say in what is wrong with a request; a fallback that refuses
    one is passed over, whatever it says.
    """
    if call.status or (first and not may_others_do_better(error)):
        return False
    log.warning("request %s goes to another pool: %s", call.id.decode("latin-1"), error)
    return True


def _mark(call: Call, asking: Asking) -> None:
    """Let the answer say who gives it in place of whom was asked."""
    call.model = asking.asked.model
    name = quote(asking.pool.name, safe="/:+@").encode()
    own = ((b"x-thinkonce-fallback", name),) if asking.fallback else ()
    call.marks = (*call.cors, *own)


def _query(call: Call, asking: Asking) -> bytes:
    """The part of the URL that the pool is shown."""
    return b"" if asking.fallback else call.query


def _raise(failure: UpstreamError) -> None:
    raise failure


def _as_read_before(call: Call, raw: bytes) -> Asking | None:
    """What the fast lane has read of the same request, which it could not answer."""
    asking: Asking | None = call.scope["state"].get(READ)
    return asking if asking is not None and asking.raw == raw else None


def _of_another_shape(found: Answer, asking: Asking) -> Answer:
    """What was found in place of an answer of no use: a miss, though reading was left out."""
    if asking.controls.refresh:
        return found
    outcome = Outcome.MISS if found.outcome is Outcome.REFRESH else found.outcome
    return replace(found, outcome=outcome, reason=Reason.SHAPE)
