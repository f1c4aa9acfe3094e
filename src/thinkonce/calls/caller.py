"""One function over one cache: the slow path behind the generated wrapper."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

import msgspec

from thinkonce.calls.async_streams import AsyncReader
from thinkonce.calls.copies import Alone, Values
from thinkonce.calls.frames import leave_out_ours
from thinkonce.calls.keys import CallKeys
from thinkonce.calls.streams import Reader, Spring
from thinkonce.calls.wrapper import bind_invoke, bind_values
from thinkonce.entry import Meta
from thinkonce.flights.singleflight import Role, Seat, Since
from thinkonce.functions import Function, describe, told_apart
from thinkonce.likeness import Likeness
from thinkonce.outcome import Outcome, Reason
from thinkonce.request.controls import Controls
from thinkonce.steps import Answer, Ask, Draft, Live
from thinkonce.tally import Tally
from thinkonce.tiers.tier import Key
from thinkonce.values import (
    Kept,
    Serializer,
    Unkeepable,
    keep,
    keep_stream,
    persistable,
    thaw_with,
)
from thinkonce.workings import Workings

__all__ = ("Caller", "Options")

log = logging.getLogger("thinkonce")
NOTHING = object()


@dataclass(frozen=True, slots=True)
class Options:
    """What `@cached` was told about one function, checked and resolved.

    `key` replaces the arguments in the identity; `condition` sees each new value and says
    whether it may be stored; `serializer` brings values of the user's own types into a store.
    `question` names the parameter that may be asked in other words; "": none.
    """

    controls: Controls = field(default_factory=Controls)
    ignore: frozenset[str] = frozenset()
    key: Callable[..., Any] | None = None
    serializer: Serializer | None = None
    condition: Callable[[Any], bool] | None = None
    question: str = ""


class Caller:
    """Thread-safe. Takes the bound values of a call, in the order of the parameters."""

    def __init__(self, cache: Workings, function: Function, options: Options) -> None:
        own_key = None if options.key is None else describe(options.key)
        persistent = cache.store is not None
        function = told_apart(
            function,
            cache.receiver,
            own_key,
            options.ignore,
            persistent=persistent,
            has_serializer=options.serializer is not None,
        )
        self.cache, self.function, self.options = cache, function, options
        self.tally = Tally(cache.memory.lock)
        self.bind = bind_values(function)
        self.invoke = bind_invoke(function.call, function.parameters, function.scope)
        self.meta = _meta(function, options.controls)
        self.keys = CallKeys(
            cache,
            function,
            self.meta.namespace,
            options.ignore,
            options.key
            and bind_invoke(options.key, function.parameters, f"key of {function.scope}"),
            self._warn,
        )
        self.identity, self.key = self.keys.identity, self.keys.key
        self._refreshing = msgspec.structs.replace(options.controls, refresh=True)
        self._thaw = thaw_with(options.serializer) if options.serializer else None
        self._take = partial(keep, serializer=options.serializer)
        self._warned: set[Reason] = set()

    @property
    def ttl(self) -> float:
        """Seconds; inf for no expiry."""
        own = self.options.controls.ttl
        return self.cache.setting.rules.ttl if own is None else own

    def _warn(self, why: Reason, error: object) -> None:
        if why not in self._warned:
            self._warned.add(why)
            log.warning("%s runs uncached: %s", self.function.scope, error)

    # -- calls ---------------------------------------------------------------------------

    def call(self, values: Values) -> Any:
        key = self.key(values)
        if key is not None and (value := self._probed(key)) is not NOTHING:
            return value
        try:
            return self._answered(self.ask(values, key))
        except Exception as error:
            leave_out_ours(error)
            raise

    async def call_async(self, values: Values) -> Any:
        key = self.key(values)
        if key is not None and (value := self._probed(key)) is not NOTHING:
            return value
        try:
            return await self._answered_async(self.ask(values, key))
        except Exception as error:
            leave_out_ours(error)
            raise

    def refresh(self, values: Values) -> Any:
        """Ask the model whatever is stored, store and return the new value."""
        return self._answered(self.ask(values, self.key(values), refresh=True))

    async def refresh_async(self, values: Values) -> Any:
        return await self._answered_async(self.ask(values, self.key(values), refresh=True))

    def _probed(self, key: Key) -> Any:
        entry = self.cache.probe(key.local)
        if entry is None:
            return NOTHING
        try:
            value = entry.payload if entry.thaw is None else entry.thaw(entry.payload)
        except Exception:
            return NOTHING  # the long way finds out why, and asks the model
        self.tally.probed_hits += 1
        self.tally.probed_seconds += entry.seconds
        return value

    def _answered(self, ask: Ask) -> Any:
        answer = self.cache.answer(ask)
        if _has_one_holder(answer):
            answer = self.cache.answer(_alone(ask))
        try:
            return self._told(answer)
        except Exception as error:
            if not self.cache.spoilt(ask, answer, error):
                raise
        return self._told(self.cache.answer(ask))

    async def _answered_async(self, ask: Ask) -> Any:
        answer = await self.cache.answer_async(ask)
        if _has_one_holder(answer):
            answer = await self.cache.answer_async(_alone(ask))
        try:
            return self._told(answer)
        except Exception as error:
            if not self.cache.spoilt(ask, answer, error):
                raise
        return self._told(await self.cache.answer_async(ask))

    def ask(self, values: Values, key: Key | None, *, refresh: bool = False) -> Ask:
        """The request that the flow sees for a call with `values`."""
        ask = Ask(
            key=key,
            meta=self.meta,
            controls=self._refreshing if refresh else self.options.controls,
            call=lambda: self.invoke(values),
            draft=self._draft,
            epoch=self.cache.epoch,
            bypass=Reason.UNKEYABLE if key is None else None,
            thaw=self._thaw,
        )
        if key is not None:
            ask.intact = lambda: self.keys.is_intact(values, key)
            ask.renewal = partial(self._renewal, values, self.invoke)
            ask.likeness = self._likeness(values, key)
        return ask

    def _likeness(self, values: Values, key: Key) -> Likeness | None:
        meaning, name = self.cache.shelf.meaning, self.options.question
        if meaning is None or not name:
            return None
        wording = self.keys.wording(values, name)
        if wording is None:
            return None
        return meaning.likeness(key, wording, self.meta, self.options.controls.semantic)

    def _renewal(self, values: Values, call: Callable[[Values], Any], ask: Ask) -> Ask | None:
        """`ask` with arguments of its own, since nobody waits for it with those it has now."""
        key = ask.key
        assert key is not None
        own, complete = self.keys.copies(values, key)
        if own is None or not complete:
            return None
        return replace(
            ask,
            call=lambda: call(own),
            intact=lambda: self.keys.is_intact(own, key),
            coalesce=True,
            renewal=None,
        )

    def _told(self, answer: Answer) -> Any:
        value = answer.value
        self._count(answer)
        return value

    def _draft(self, raw: Any, seconds: float) -> Draft:
        try:
            kept = self._kept(raw)
        except Unkeepable as error:
            if self.cache.store is not None:
                raise
            self._warn(Reason.UNENCODABLE, error)
            return Draft(None, refused=Reason.UNENCODABLE)
        return self._draft_of(kept, raw, seconds)

    def _kept(self, raw: Any) -> Kept:
        serializer = self.options.serializer
        if serializer is None and inspect.isawaitable(raw):
            if self.cache.store is not None and inspect.iscoroutine(raw):
                raw.close()  # nobody gets it, so nobody will await it
            raise Unkeepable(
                f"it returned an awaitable {type(raw).__qualname__}, whose answer is not there "
                "yet; decorate the coroutine function itself, or make this one `async def`"
            )
        return keep(raw, serializer)

    def _draft_of(self, kept: Kept, raw: Any, seconds: float) -> Draft:
        condition = self.options.condition
        refused = None if condition is None or condition(raw) else Reason.CONDITION
        if self.cache.store is not None and refused is None:
            persistable(kept)  # a TypeError here names the type and `serializer=`
        return Draft(kept.payload, kept.form, kept.thaw, kept.size, seconds, refused=refused)

    # -- streams -------------------------------------------------------------------------

    def stream(self, values: Values, *, refresh: bool = False) -> Generator[Any]:
        key = self.key(values)
        if key is None:
            self._count(Answer(Outcome.BYPASS, Reason.UNKEYABLE))
            yield from self.invoke(values)
            return
        if not refresh and (recorded := self._probed(key)) is not NOTHING:
            yield from recorded
            return
        ask = self._stream_ask(values, key, refresh, list)
        ask.call = lambda: self._shared(values, ask)
        answer = self.cache.answer(ask)
        if isinstance(answer.raw, Live):
            self._count_live(answer)
            yield from answer.raw.feed.read()
        else:
            items = self._recorded(ask, answer)
            yield from self.stream(values, refresh=True) if items is None else items

    async def stream_async(self, values: Values, *, refresh: bool = False) -> AsyncGenerator[Any]:
        key = self.key(values)
        if key is None:
            self._count(Answer(Outcome.BYPASS, Reason.UNKEYABLE))
            async with aclosing(self.invoke(values)) as items:
                async for item in items:
                    yield item
            return
        if not refresh and (recorded := self._probed(key)) is not NOTHING:
            for item in recorded:
                yield item
            return
        ask = self._stream_ask(values, key, refresh, _collected)
        ask.call = lambda: self._shared_async(values, ask)
        answer = await self.cache.answer_async(ask)
        if isinstance(answer.raw, Live):
            self._count_live(answer)
            reading = answer.raw.feed.read()
        elif (recorded := self._recorded(ask, answer)) is not None:
            for item in recorded:
                yield item
            return
        else:
            reading = self.stream_async(values, refresh=True)
        async with aclosing(reading) as items:
            async for item in items:
                yield item

    def _stream_ask(
        self, values: Values, key: Key, refresh: bool, collect: Callable[[Any], Any]
    ) -> Ask:
        ask = self.ask(values, key, refresh=refresh)
        ask.draft = self._draft_stream
        ask.coalesce = False  # readers share the stream itself
        ask.renewal = partial(self._renewal, values, lambda own: collect(self.invoke(own)))
        return ask

    def _draft_stream(self, raw: Any, seconds: float) -> Draft:
        return self._draft_of(keep_stream(raw, self.options.serializer), raw, seconds)

    def _recorded(self, ask: Ask, answer: Answer) -> list[Any] | None:
        """The items of a recorded stream; None if they cannot be rebuilt."""
        try:
            items: list[Any] = self._told(answer)
        except Exception as error:
            if not self.cache.spoilt(ask, answer, error):
                raise
            return None
        return items

    def _shared(self, values: Values, ask: Ask) -> Live | Answer:
        assert ask.key is not None
        return self._live(Reader, ask.key.local, values, ask)

    def _shared_async(self, values: Values, ask: Ask) -> Live | Answer:
        assert ask.key is not None
        # Should this loop stop, readers on another must not be cut off in the middle.
        place = (ask.key.local, asyncio.get_running_loop())
        return self._live(AsyncReader, place, values, ask)

    def _live(
        self, reader: type[Reader | AsyncReader], place: Hashable, values: Values, ask: Ask
    ) -> Live | Answer:
        """The stream under way, or a new one; what is stored, if it has come in meanwhile.

        It runs with copies of what can change: between two items its caller goes on.
        """
        key = ask.key
        assert key is not None
        own, _ = self.keys.copies(values, key)
        if own is None:
            return Live(Alone(partial(self.invoke, values)))
        ask.intact = lambda: self.keys.is_intact(own, key)
        seat = self._seat(place, ask)
        if seat.role is Role.LEAD and (stored := self.cache.recheck(ask)) is not None:
            seat.abandon()
            return stored
        source: Callable[[], Any] = partial(self.invoke, own)
        stored_now = partial(self.cache.recheck, ask)
        spring = Spring(source, self._take, self._keeper(ask), stored_now, self._thaw)
        return Live(reader(seat, spring))

    def _seat(self, place: Hashable, ask: Ask) -> Seat:
        key = ask.key
        assert key is not None
        since = Since(ask.epoch, lambda epoch: self.cache.purged_since(epoch, ask))
        # A stream of another process may be over already: none for who asks for a new one.
        digest = None if ask.controls.refresh else lambda: key.digest
        return self.cache.shelf.flights.join(place, digest, since, max_bytes=inf)

    def _keeper(self, ask: Ask) -> Callable[[list[Any]], object]:
        """Stores a stream's items once its end is seen."""
        started = self.cache.setting.clock.monotonic()
        return lambda items: self.cache.keep(replace(ask, call=lambda: items, started=started))

    def _count_live(self, answer: Answer) -> None:
        if answer.raw.feed.has_joined:
            answer.outcome = Outcome.COALESCED
        self._count(answer)

    def _count(self, answer: Answer) -> None:
        self.tally.count(answer)
        self.cache.log(answer, self.function.scope)


def _has_one_holder(answer: Answer) -> bool:
    """Whether another caller's call made a value that cannot be handed to two."""
    return answer.refused is Reason.UNENCODABLE and not answer.value_is_own


def _alone(ask: Ask) -> Ask:
    """`ask` for a caller who calls the model for itself."""
    return replace(ask, key=None, bypass=Reason.UNENCODABLE)


async def _collected(items: AsyncGenerator[Any]) -> list[Any]:
    return [item async for item in items]


def _meta(function: Function, controls: Controls) -> Meta:
    return Meta(
        scope=function.scope,
        namespace=controls.namespace,
        tags=controls.tags,
        priority=controls.priority or "medium",
    )
