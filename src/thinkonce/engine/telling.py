"""Hands answers out: from an entry, from the caller's own call, or while they still arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import perf_counter

import msgspec

from thinkonce.clock import Clock
from thinkonce.engine import marks
from thinkonce.engine.asking import Asking
from thinkonce.engine.counting import Counting
from thinkonce.engine.fetch import Fetched
from thinkonce.engine.http import Call, send_pieces, send_ready, send_whole
from thinkonce.engine.parts import Parts
from thinkonce.engine.passing import answer_headers
from thinkonce.engine.plates import Plain, Plate
from thinkonce.engine.world import Ride
from thinkonce.entry import Entry
from thinkonce.errors import UpstreamError
from thinkonce.insight.prices import Prices
from thinkonce.insight.savings import Account, Saved
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.dialect import Asked, Dialect, Recorder, Stamp
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.request.storable import StoreRules, refusal
from thinkonce.steps import Answer
from thinkonce.tiers.memory import MEMORY
from thinkonce.upstream.exchange import Exchange
from thinkonce.upstream.failure import Broken, Header

__all__ = ("Marking", "Teller")


@dataclass(frozen=True, slots=True)
class Teller:
    """How the answers of one endpoint are handed out. `annotate`: put marks into bodies."""

    dialect: Dialect
    prices: Prices
    parts: Parts
    metrics: Counting
    clock: Clock
    rules: StoreRules
    annotate: bool

    async def entry(self, call: Call, asking: Asking, found: Answer, entry: Entry) -> bool:
        """A HIT or STALE answer; False if the entry cannot take the shape asked for."""
        if _is_plain_hit(found) and call.counts and not (asking.controls.label or call.renews):
            return await self._plain_hit(call, asking, entry)
        asked = asking.asked
        ready = self.parts.serving(entry, self.dialect, asked)
        if ready is None:
            return False
        note, stamp = b"", None
        if self.annotate:
            label = asking.controls.label
            note = marks.annotation_of_hit(found, entry, ready, self.clock, label=label)
            stamp = Stamp(self.dialect.fresh_id(), int(self.clock.wall()))
        body = ready.prepared.render(asked, stamp, note)
        head = marks.hit_headers(found, entry, ready, self.clock, stream=asked.stream)
        head.append((b"x-request-id", call.id))
        call.outcome, call.match = found.outcome, found.match or "exact"
        kind = Saved.STALE if found.outcome is Outcome.STALE else Saved.HIT
        self._save(call, kind, ready, entry, ready.micros)
        await send_whole(call, 200, head, body)
        return True

    async def _plain_hit(self, call: Call, asking: Asking, entry: Entry) -> bool:
        plate = self.plate(asking.asked, entry)
        if plate is None:
            return False
        await send_ready(call, *self.hit(call, asking, plate))
        return True

    def hit(self, call: Call, asking: Asking, plate: Plate) -> Plain:
        """A plain exact hit of the memory tier, counted, and what is told of it noted."""
        clock, ready = self.clock, plate.ready
        plain = plate.print(call.id, clock.wall(), clock.monotonic())
        plate.count()
        call.endpoint, call.model, call.whose = self.dialect.name, asking.asked.model, asking.tenant
        call.outcome, call.match, call.tier = Outcome.HIT, "exact", MEMORY
        call.tokens_saved, call.key = ready.tokens, ready
        return plain

    def plate(self, asked: Asked, entry: Entry) -> Plate | None:
        """What prints plain exact hits of the memory tier; None if `entry` cannot take the shape.

        Raises CorruptEntry.
        """
        fresh_id = self.dialect.fresh_id if self.annotate else None

        def make(ready: marks.Ready) -> Plate:
            return Plate(entry, ready, asked, self._account(Saved.HIT, ready, entry), fresh_id)

        return self.parts.plate(entry, self.dialect, asked, make)

    async def joined(self, call: Call, asking: Asking, found: Answer, entry: Entry) -> bool:
        """The answer of another request's call, complete."""
        if not entry.payload:
            return False
        if found.refused is Reason.ERROR:
            ready = self.parts.ready(entry, self.dialect)
            head = _miss_headers(call, found, ready.key)
            await self._send(call, [ready.raw_type, *head], ready.prepared.reply.body)
            return True
        serving = self.parts.serving(entry, self.dialect, asking.asked)
        if serving is None:
            return False
        ready = serving
        micros = _not_waited(call, ready)
        note = self._note(asking, found, ready.key, found.refused, ready, micros / 1000)
        body = ready.prepared.render(asking.asked, None, note)
        kind = marks.STREAM_TYPE if asking.asked.stream else marks.JSON_TYPE
        self.metrics.coalesced()
        self._save(call, Saved.COALESCED, ready, entry, micros)
        head = _miss_headers(call, found, ready.key)
        await self._send(call, [kind, *head], body)
        return True

    async def made(self, call: Call, asking: Asking, found: Answer, fetched: Fetched) -> None:
        """The answer of the request's own call, complete: paid for, so in whichever shape it is."""
        reply, asked = fetched.reply, asking.asked
        if reply is None:
            raise Broken("the upstream's stream ended before its end mark")
        key = "" if asking.key is None else asking.key.digest.hex()
        head = _miss_headers(call, found, key)
        self.metrics.learn_model(asked.model)
        if found.refused is Reason.ERROR:
            body = reply.body
        else:
            note = self._note(asking, found, key, found.refused)
            if asked.stream or not reply.body:
                prepared = self.dialect.prepare(reply)
                if not prepared.serves(asked):
                    asked = _as_recorded(asked, reply)
                body = prepared.render(asked, None, note)
                kind = marks.STREAM_TYPE if asked.stream else marks.JSON_TYPE
                await self._send(call, [kind, *head, *marks.passed_on(fetched.headers)], body)
                return
            body = self.dialect.annotate(reply.body, note) if note else reply.body
        await self._send(call, answer_headers(fetched.headers, head), body)

    async def live(self, call: Call, asking: Asking, found: Answer, ride: Ride) -> None:
        """A stream that has begun, the caller's own or another's."""
        key = "" if asking.key is None else asking.key.digest.hex()
        head = marks.miss_headers(found.outcome, found.reason, key)
        if found.outcome is Outcome.COALESCED:
            self.metrics.coalesced()
        else:
            head += marks.passed_on(ride.headers)
        head += [marks.STREAM_TYPE, (b"cache-control", b"no-cache"), (b"x-request-id", call.id)]
        try:
            await send_pieces(call, 200, head, self._relayed(call, asking, found, key, ride))
            if found.outcome is Outcome.COALESCED and (entry := ride.entry()) is not None:
                ready = self.parts.ready(entry, self.dialect)
                self._save(call, Saved.COALESCED, ready, entry, _not_waited(call, ready))
        finally:
            await ride.close()
        self.metrics.learn_model(asking.asked.model)

    async def _relayed(
        self, call: Call, asking: Asking, found: Answer, key: str, ride: Ride
    ) -> AsyncIterator[bytes]:
        def note() -> bytes:
            return self._note(asking, found, key, self._refusal(asking, ride.gist(), so_far=True))

        asked = asking.asked
        relay = self.dialect.relay(
            asked,
            note if self.annotate else None,
            strip_usage=ride.usage_asked and not asked.include_usage,
        )
        try:
            async for events in ride.events():
                if piece := relay.pass_on(events):
                    yield piece
        except UpstreamError as error:
            call.not_stored = Reason.ABORTED
            if call.cuts:
                raise
            yield relay.fail(self.error(error))
        else:
            call.not_stored = self._refusal(asking, ride.gist(), so_far=False) or ""

    def error(self, error: UpstreamError) -> bytes:
        """What a client of a stream that has begun is told."""
        code = getattr(error, "code", "upstream_error")
        return self.dialect.error(502, str(error), code=code)

    def _refusal(self, asking: Asking, gist: Gist, *, so_far: bool) -> Reason | None:
        if not asking.controls.store:
            return Reason.NO_STORE
        finishes = self.dialect.finish_reasons
        refused = refusal(asking.asked, gist, finishes, self.rules, so_far=so_far)
        return refused or asking.out_of_quota(gist.size if so_far else None)

    def _note(
        self,
        asking: Asking,
        found: Answer,
        key: str,
        refused: Reason | None,
        ready: marks.Ready | None = None,
        saved_ms: float | None = None,
    ) -> bytes:
        if not self.annotate:
            return b""
        label = asking.controls.label
        return marks.annotation_of_miss(found.outcome, key, label, refused, ready, saved_ms)

    def _account(self, kind: Saved, ready: marks.Ready, entry: Entry) -> Account:
        priced, estimated = ready.usd is not None, ready.estimated
        savings = self.metrics.savings
        # Another worker, or an earlier start, has seen an upstream answer for it.
        self.metrics.learn_model(entry.meta.model)
        return savings.account(kind, entry.meta, priced=priced, estimated=estimated)

    def _save(self, call: Call, kind: Saved, ready: marks.Ready, entry: Entry, micros: int) -> None:
        """Count what `call` saved. A preload saves nothing; a hit that is renewed only time."""
        if not call.counts:
            return
        account = self._account(kind, ready, entry)
        if call.renews:
            account.add_part(0, 0, 0, 0, micros)
        else:
            call.tokens_saved = ready.tokens
            account.add(ready.tokens, ready.nanos, micros)

    async def _send(self, call: Call, head: list[Header], body: bytes) -> None:
        head.append((b"x-request-id", call.id))
        await send_whole(call, 200, head, body)


def _miss_headers(call: Call, found: Answer, key: str) -> list[Header]:
    call.not_stored = found.refused or ""
    return marks.miss_headers(found.outcome, found.reason, key, found.refused)


def _not_waited(call: Call, ready: marks.Ready) -> int:
    """Microseconds by which another's call was quicker than an own one would have been."""
    return max(ready.micros - round((perf_counter() - call.started) * 1_000_000), 0)


def _as_recorded(asked: Asked, reply: Reply) -> Asked:
    """`asked`, but for the shape in which the answer came."""
    stream = reply.shape is Shape.STREAM
    return msgspec.structs.replace(asked, stream=stream, include_usage=reply.usage_asked)


def _is_plain_hit(found: Answer) -> bool:
    """The one kind of hit that the probe answers as well."""
    return (
        found.outcome is Outcome.HIT
        and found.tier == MEMORY
        and found.match is Match.EXACT
        and found.similarity is None
    )


@dataclass(frozen=True, slots=True)
class Marking:
    """The `Dress` of an answer that bypasses the cache: only its marks are put in."""

    teller: Teller
    asked: Asked
    note: bytes
    recorder: Callable[[], Recorder]

    def whole(self, body: bytes) -> bytes:
        received = self.teller.dialect.receive(self.asked, 200, "application/json", body)
        return body if received.gist.failed else self.teller.dialect.annotate(body, self.note)

    async def stream(self, call: Call, exchange: Exchange) -> AsyncIterator[bytes]:
        recorder = self.recorder()
        relay = self.teller.dialect.relay(self.asked, lambda: self.note)
        try:
            while piece := await exchange.read():
                if passed := relay.pass_on(recorder.feed(piece)):
                    yield passed
            if passed := relay.pass_on(recorder.rest()):
                yield passed
        except UpstreamError as error:
            if call.cuts:
                raise
            yield relay.fail(self.teller.error(error))
