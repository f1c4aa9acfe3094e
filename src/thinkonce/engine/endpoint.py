"""Chat and its like: ask the flow, hand out what it found; a memory hit before the flow.

probe ──► flow (`flow.answer` in `GatewayWorld`) ──► tell
  memory hit the flow has decided already
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from weakref import ref

import msgspec

from thinkonce.drive import drive_async
from thinkonce.engine.asking import Asking, Reader
from thinkonce.engine.cached_path import CachedPath, asked_query, failed, mark
from thinkonce.engine.fetch import Fetch
from thinkonce.engine.http import Call, Head, HttpError, Message
from thinkonce.engine.marks import annotation_of_miss
from thinkonce.engine.means import Means
from thinkonce.engine.memo import Memo
from thinkonce.engine.plates import Plain, Plate
from thinkonce.engine.telling import Marking, Teller
from thinkonce.engine.world import GatewayAsk
from thinkonce.errors import NotCached, RequestError, UpstreamError
from thinkonce.flow import answer
from thinkonce.outcome import Outcome, Reason
from thinkonce.request.controls import DEFAULTS
from thinkonce.steps import Answer, Live
from thinkonce.upstream.failure import may_others_do_better

__all__ = ("Endpoint",)

log = logging.getLogger("thinkonce")

# The flow, the flow without reading, the flow alone: then the answer has no other shape.
ATTEMPTS = 3


class Endpoint(CachedPath):
    """A path whose requests have one answer each, and that streams it where that is asked for."""

    def __init__(
        self,
        reader: Reader,
        means: Means,
        teller: Teller,
        memo: Memo,
        body_limit: int,
        *,
        inline: bool = True,
    ) -> None:
        super().__init__(teller.dialect.name, reader, means, body_limit)
        self.dialect, self._teller = teller.dialect, teller
        self.memo, self._inline, self.clock = memo, inline, teller.clock
        self.probe_again = means.shelf.probe_again

    def understood(self, head: Head, raw: bytes) -> Asking | None:
        """What a request asks, if a plain hit may answer it; None also for one that is wrong."""
        if not self._inline:
            return None
        try:
            asking = self.reader.read(head, raw)
        except (HttpError, RequestError):
            return None
        return asking if asking.controls is DEFAULTS and asking.key is not None else None

    def plate(self, asking: Asking, now: float) -> Plate | None:
        """For a memory hit that the flow has decided already; None sends the request to the flow.

        `asking` has a key and no controls, `now` is by the monotonic clock. Whoever hands out what
        the plate prints says so: to the plate and, where there are samples, to `asking.draw`.
        """
        draw = asking.draw
        key = asking.key if draw is None else draw.key()
        assert key is not None
        entry = self._shelf.probe(key.local, now)
        if entry is None:
            return None
        plate = asking.plate()
        asking.used = True
        if plate is not None and plate.entry is entry:
            plate.used = True
            return plate
        plate = self._teller.plate(asking.asked, entry)
        if plate is not None:
            asking.plate = ref(plate)
        return plate

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
            plate = self.plate(asking, self.clock.monotonic())
            if plate is None:
                return None
            plain = self._teller.hit(call, asking, plate)
        except Exception:
            log.exception("request %s: the probe failed", call.id.decode("latin-1"))
            return None
        if asking.draw is not None:
            asking.draw.advance()
        return plain

    async def _answer_somehow(self, call: Call, asking: Asking) -> bool:
        """Where no pool can answer, another sample of the request will do."""
        try:
            return await super()._answer_somehow(call, asking)
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
                mark(call, other)
                return await self._answer(call, other, self._ask_of(call, other))
        return False

    async def _answer_from(
        self, call: Call, asking: Asking, *, spare: bool = False, failure: Exception | None = None
    ) -> bool:
        ask = self._ask_of(call, asking, spare=spare)
        if failure is not None:
            ask.coalesce, ask.call = False, partial(failed, failure)
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
        plain = asking.controls is DEFAULTS and not asking.fallback
        own = call.counts and not call.tenant  # whose it is follows from what was sent
        if found.refused is None and plain and own and self._inline:
            known = asking.known
            if known is None:
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
        ask = GatewayAsk(
            key=asking.key,
            meta=asking.meta(self.dialect.name, self._shelf.setting.rules),
            controls=asking.controls,
            call=fetch,
            draft=fetch.draft,
            epoch=fetch.epoch,
            fetch=fetch,
            stale_on_error=not spare,
        )
        meaning = self._shelf.meaning
        if meaning is not None and not asking.fallback:
            wording = self.reader.wording(asked_query(call, asking), asking)
            if wording is not None:
                assert ask.key is not None
                wanted = asking.controls.semantic
                ask.likeness = meaning.likeness(ask.key, wording, ask.meta, wanted)
        return ask

    def _again(self, call: Call, asking: Asking, ask: GatewayAsk) -> GatewayAsk:
        """Without reading what cannot be used; the second time without joining anybody either."""
        anew = self._ask_of(call, asking, spare=not ask.stale_on_error)
        anew.coalesce = ask.controls.read
        anew.controls = msgspec.structs.replace(asking.controls, read=False)
        anew.likeness = None  # what it found may be what cannot be used
        return anew

    def _fetch(self, call: Call, asking: Asking, spare: bool) -> Fetch:
        asked = asking.asked
        on_behalf = asking.pool.ask_usage and asked.stream and not asked.include_usage
        on_behalf = on_behalf and self._teller.annotate
        body = asking.upstream_body()
        if on_behalf:
            body = self.dialect.ask_usage(body, asking.body)
        return Fetch(
            asking,
            self.dialect,
            self._sender,
            self._request(call, asking, body),
            rules=self._teller.rules,
            prices=self._teller.prices,
            usage_asked=asked.include_usage or on_behalf,
            epoch=self._shelf.epoch,
            kept=lambda: self.reader.kept(asked_query(call, asking), asking),
            took=self._metrics.upstream_took,
            spare=spare,
        )

    def _refused_key(self, asking: Asking) -> str:
        return "" if asking.key is None else asking.key.digest.hex()

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


def _of_another_shape(found: Answer, asking: Asking) -> Answer:
    """What was found in place of an answer of no use: a miss, though reading was left out."""
    if asking.controls.refresh:
        return found
    outcome = Outcome.MISS if found.outcome is Outcome.REFRESH else found.outcome
    return replace(found, outcome=outcome, reason=Reason.SHAPE)
