"""A path whose requests are batches: every part is an entry of its own, whatever batch it came in.

A batch of ten of which nine are known asks the upstream for one. What this answers is put
together from entries; where nothing was known, the upstream's own answer is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from thinkonce.drive import drive_async
from thinkonce.engine.asking import Asking, Reader
from thinkonce.engine.batch import AT_ONCE, ItemFetch, Together
from thinkonce.engine.batch_sum import BatchSum, summed
from thinkonce.engine.cached_path import CachedPath, asked_query, failed
from thinkonce.engine.fetch import Drafting, Fetched, Posed, whole_of
from thinkonce.engine.http import Call, Message, send_whole
from thinkonce.engine.marks import JSON_TYPE, passed_on
from thinkonce.engine.means import Means
from thinkonce.engine.plates import Plain
from thinkonce.engine.world import GatewayAsk
from thinkonce.errors import RequestError
from thinkonce.flow import answer
from thinkonce.insight.savings import Saved, nanos
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.batches import Batch, BatchDialect
from thinkonce.protocols.billing import Billed
from thinkonce.protocols.reply import Gist, Reply, decode_reply
from thinkonce.protocols.splice import add
from thinkonce.request.controls import DEFAULTS
from thinkonce.request.storable import StoreRules
from thinkonce.settings.sections import Gateway
from thinkonce.steps import Answer
from thinkonce.tiers.memory import MEMORY
from thinkonce.tiers.tier import Key
from thinkonce.upstream.failure import Broken, Header, Refused

__all__ = ("BatchEndpoint",)


class Unsorted(Broken):
    """Which answer is whose is not known."""


@dataclass(slots=True)
class _Request:
    """One request on its way to one pool, and what the upstream said to it."""

    call: Call
    asking: Asking
    batch: Batch
    spare: bool  # another pool can be asked
    failure: Exception | None  # what asking this one has come to
    body: bytes = b""  # the upstream's, where it was asked for exactly what the client wants
    renewed: list[Answer] = field(default_factory=list)  # made anew in the background


@dataclass(frozen=True, slots=True)
class _Item:
    """One input. `kept` makes the request that is kept beside its vector."""

    key: Key
    given: object
    kept: Callable[[], bytes]


class BatchEndpoint(CachedPath):
    """Belongs to one event loop, as its `means` do."""

    def __init__(
        self,
        dialect: BatchDialect,
        reader: Reader,
        means: Means,
        rules: StoreRules,
        settings: Gateway,
    ) -> None:
        super().__init__(dialect.name, reader, means, settings.body_limit)
        self._dialect, self._prices = dialect, means.prices
        self._drafting = Drafting({dialect.finish: None}, rules, means.prices)
        self._annotate, self._inline = settings.annotate_body, settings.inline

    def answer_inline(self, call: Call, message: Message) -> Plain | None:
        """None: a batch is many entries, so nothing is answered before it is read."""
        return None

    def _read(self, call: Call, raw: bytes) -> Asking:
        asking = super()._read(call, raw)
        batch = self._dialect.batch(asking.body)
        if batch is None:
            asking.key = None
            if asking.bypass is None and self._dialect.is_too_large(asking.body):
                asking.bypass = Reason.TOO_LARGE
        elif asking.key is not None and asking.controls.override and len(batch.items) > 1:
            accepts = "one input where a label is the key"
            raise RequestError("kv_cache.key_mode", "override", accepts)
        return asking

    def _instead_of(self, asking: Asking) -> Iterator[Asking]:
        """Vectors of two models cannot be compared: only who serves the same model may answer."""
        model = asking.asked.model
        for other in super()._instead_of(asking):
            if other.asked.model == model and other.pool.serves(model):
                yield other

    async def _answer_from(
        self, call: Call, asking: Asking, *, spare: bool = False, failure: Exception | None = None
    ) -> bool:
        batch = self._dialect.batch(asking.body)
        assert batch is not None
        request = _Request(call, asking, batch, spare, failure)
        try:
            found = await self._found(request)
        except Unsorted:  # of a part of them; the whole is for who has asked for it
            asking.bypass = Reason.ERROR
            await self._bypass(call, asking)
            return True
        await self._tell(request, found, self._body_of(request, found))
        return True

    # -- asking --------------------------------------------------------------------------

    async def _found(self, request: _Request) -> list[Answer]:
        """One answer for each input, in order; equal inputs share one."""
        members = self._dialect.members(request.batch)
        query = asked_query(request.call, request.asking)
        items = [
            _Item(key, given, kept)
            for given, (key, kept) in zip(
                request.batch.items,
                self.reader.items(query, request.asking, members),
                strict=True,
            )
        ]
        known = {item.key.local: item for item in items}
        found = {local: self._probe(request.asking, local) for local in known}
        missing = [local for local, each in found.items() if each is None]
        if missing:
            asked = await self._through_flow(request, [known[local] for local in missing])
            found.update(zip(missing, asked, strict=True))
        return [each for each in (found[item.key.local] for item in items) if each is not None]

    def _probe(self, asking: Asking, local: Hashable) -> Answer | None:
        if not self._inline or asking.controls is not DEFAULTS:
            return None
        entry = self._shelf.probe(local)
        if entry is None:
            return None
        return Answer(Outcome.HIT, None, entry, tier=MEMORY, match=Match.EXACT)

    async def _through_flow(self, request: _Request, items: Sequence[_Item]) -> list[Answer]:

        async def ask_for(places: Sequence[int]) -> Sequence[Fetched]:
            return await self._fetched(request, [items[place].given for place in places])

        together = Together(len(items), ask_for)

        async def one(place: int) -> Answer:
            ask = self._ask_of(request, items[place], together, place)
            try:
                found = await drive_async(answer(ask, self._shelf.setting), self._world)
                if ask.renews:
                    request.renewed.append(found)
                return found
            finally:
                together.decided(place)

        tasks: list[asyncio.Task[Answer]] = []
        try:
            for place in range(len(items)):
                tasks.append(asyncio.ensure_future(one(place)))
                if place % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _ask_of(self, request: _Request, item: _Item, together: Together, place: int) -> GatewayAsk:
        asking, failure = request.asking, request.failure
        fetch = ItemFetch(asking, together, place, item.kept, self._drafting)
        return GatewayAsk(
            key=item.key,
            meta=asking.meta(self._dialect.name, self._shelf.setting.rules),
            controls=asking.controls,
            call=fetch if failure is None else partial(failed, failure),
            draft=fetch.draft,
            epoch=self._shelf.epoch,
            coalesce=failure is None,
            stale_on_error=not request.spare,
            fetch=fetch,
        )

    async def _fetched(self, request: _Request, wanted: Sequence[object]) -> Sequence[Fetched]:
        """Ask the upstream for `wanted`; the request goes as it came where that is all of it."""
        asking, is_all = request.asking, list(wanted) == request.batch.items
        body = asking.upstream_body()
        if not is_all:
            body = self._dialect.with_items(body, wanted)
        posed = Posed(
            self._sender,
            asking.pool,
            self._request(request.call, asking, body),
            self._metrics.upstream_took,
            spare=request.spare,
        )
        async with posed as exchange:
            raw, status, headers = await whole_of(exchange), exchange.status, exchange.headers
        replies = self._dialect.read(raw, wanted)
        if replies is None and is_all:  # nothing to put together: the client sees what there is
            raise Refused(status, headers, raw)
        if replies is None:
            raise Unsorted(f"the upstream did not give one answer for each of {len(wanted)} inputs")
        request.body = unmarked(raw) if is_all else b""
        return [_fetched_of(reply, headers) for reply in replies]

    def _body_of(self, request: _Request, found: Sequence[Answer]) -> bytes:
        """The upstream's own where it made all of it; else put together."""
        if request.body and all(each.tier is None for each in found):
            return request.body
        body = self._dialect.join([_reply_of(each) for each in found], request.batch.form)
        if body is None:
            raise ValueError(f"a stored answer cannot be had as {request.batch.form}")
        return body

    # -- telling -------------------------------------------------------------------------

    async def _tell(self, request: _Request, found: Sequence[Answer], body: bytes) -> None:
        call, asking = request.call, request.asking
        waited = perf_counter() - call.started
        told = summed(found, self._shelf.clock, partial(self._usd, asking), waited)
        call.outcome, call.reason = told.outcome, told.reason or ""
        call.match, call.tokens_saved = "exact" if told.is_hit else "", told.tokens
        call.not_stored = told.refused or ""
        self._metrics.learn_model(asking.asked.model)
        self._save(request, found, told)
        key = _only_key(found)
        if self._annotate:
            body = add(body, told.annotation(key, asking.controls.label).members())
        head = [JSON_TYPE, *told.headers(key)]
        if not told.is_hit:
            head += passed_on(_headers_of(found))
        await send_whole(call, 200, [*head, (b"x-request-id", call.id)], body)

    def _save(self, request: _Request, found: Sequence[Answer], told: BatchSum) -> None:
        """Count what the request saved; what is made anew for it costs what it saves."""
        items = [each for each in found if not each.value_is_own]
        if not (request.call.counts and items):
            return
        paid = [each for each in items if any(each is other for other in request.renewed)]
        tokens = told.tokens - sum(each.entry.tokens for each in paid if each.entry is not None)
        usd = self._usd(request.asking, tokens)
        entry = items[0].entry
        assert entry is not None
        account = self._metrics.savings.account(
            told.saved, entry.meta, priced=usd is not None or not tokens
        )
        calls = int(told.saved is not Saved.PARTIAL and not paid)
        micros = round(told.seconds * 1_000_000)
        account.add_part(calls, len(items) - len(paid), tokens, nanos(usd), micros)

    def _usd(self, asking: Asking, tokens: int) -> float | None:
        return self._prices.cost((asking.asked.model,), Billed(input=tokens))


def _reply_of(found: Answer) -> Reply:
    if found.tier is None and isinstance(found.raw, Fetched):
        assert found.raw.reply is not None, "the call would have failed"
        return found.raw.reply
    assert found.entry is not None
    return decode_reply(found.entry.payload)


def _headers_of(found: Sequence[Answer]) -> tuple[Header, ...]:
    """What the upstream said beside the vectors that it was asked for."""
    raws = [each.raw for each in found if each.tier is None]
    return next((raw.headers for raw in raws if isinstance(raw, Fetched)), ())


def _fetched_of(reply: Reply, headers: tuple[Header, ...]) -> Fetched:
    gist = Gist(done=True, finishes=reply.finishes, size=len(reply.body))
    return Fetched(reply, gist, headers)


def _only_key(found: Sequence[Answer]) -> str:
    """Where one key stands for the whole request."""
    entry = found[0].entry if len(found) == 1 else None
    return entry.digest.hex() if entry is not None else ""
