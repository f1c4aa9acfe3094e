"""Strict mode: a client sees neither from headers, bodies nor timing whether an answer was stored.

    request ──► its body anew: nothing travels on that is not in the key
    hit ──► its recorded pace ──► an id like the upstream's own, made anew ──► no marks
    miss ───────────────────────► an id like the upstream's own, made anew ──► no marks

    read       recorded first byte                             recorded end
      |------------------|---- event ---- event ---- event ---------|

Adding random delays is no defence: it averages out (Brumley and Boneh, "Remote timing attacks are
practical", 2003). What is stored knows how long it took, and a hit takes as long again. The fast
lane and the probe answer nobody strict.

What it cannot hide, and what is therefore not cached for strict clients: responses, which keep
their ids, and embeddings, of which a part may be known. docs/security.md tells what remains.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import msgspec

from thinkonce.engine import marks
from thinkonce.engine.asking import Asking, version_free
from thinkonce.engine.endpoint import Endpoint
from thinkonce.engine.endpoints import Making, Manner, endpoint_of
from thinkonce.engine.fetch import Fetched
from thinkonce.engine.http import (
    Call,
    HttpError,
    Message,
    read_body,
    send_pieces,
    send_whole,
)
from thinkonce.engine.passing import Passing, hops
from thinkonce.engine.telling import Teller
from thinkonce.engine.world import Ride
from thinkonce.entry import Entry
from thinkonce.gateway.anew import Events, id_like
from thinkonce.insight.savings import Saved
from thinkonce.outcome import Outcome, Reason
from thinkonce.protocols.dialect import Speech, Stamp
from thinkonce.protocols.openai_request import wants_usage
from thinkonce.protocols.registry import DIALECTS, by_path
from thinkonce.steps import Answer
from thinkonce.upstream.failure import Header
from thinkonce.upstream.request import HOPS
from thinkonce.web.access import authorise

__all__ = ("Strict", "StrictEndpoint", "StrictTeller", "plain", "strict_of", "veil")

MARKS = (b"age", b"cache-status", b"x-thinkonce-fallback")
# Of a 200 through the cache a client sees these: an upstream's others come with a miss alone.
SHOWN = frozenset({b"content-type", b"content-length", b"x-request-id"})

MOST_HOPS = 1024  # bytes of the names of the gateways that a request came through


@dataclass(frozen=True)
class StrictTeller(Teller):
    """Hands stored answers out as slowly as they came. `sleep` takes seconds."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def entry(self, call: Call, asking: Asking, found: Answer, entry: Entry) -> bool:
        call.outcome, call.match = found.outcome, "exact"
        kind = Saved.STALE if found.outcome is Outcome.STALE else Saved.HIT
        return await self._as_it_came(call, asking, entry, kind)

    async def joined(self, call: Call, asking: Asking, found: Answer, entry: Entry) -> bool:
        if not entry.payload or found.refused is Reason.ERROR:
            return await super().joined(call, asking, found, entry)
        call.not_stored = found.refused or ""
        self.metrics.coalesced()
        return await self._as_it_came(call, asking, entry, Saved.COALESCED)

    async def _as_it_came(self, call: Call, asking: Asking, entry: Entry, kind: Saved) -> bool:
        asked = asking.asked
        ready = self.parts.serving(entry, self.dialect, asked)
        # Made from the other shape, an answer is formatted otherwise than the upstream's.
        if ready is None or (b"event-stream" in ready.raw_type[1]) != asked.stream:
            return False
        source = ready.source_header[1].decode("latin-1")
        self._save(call, kind, ready, entry, 0)  # it waits as long as ever
        head = [(b"x-request-id", call.id)]
        if asked.stream:
            head += [marks.STREAM_TYPE]
            first = min(ready.first_byte or entry.seconds, entry.seconds)
            await self._until(call, first)
            pieces = ready.prepared.render_events(asked, self._stamp(source))
            await send_pieces(call, 200, head, self._paced(call, pieces, first, entry.seconds))
        else:
            await self._until(call, entry.seconds)
            body = ready.prepared.render(asked, self._stamp(source))
            await send_whole(call, 200, [marks.JSON_TYPE, *head], body)
        return True

    async def made(self, call: Call, asking: Asking, found: Answer, fetched: Fetched) -> None:
        """As a hit on it would be: without another cache's marks, its id and time made anew."""
        reply, asked = fetched.reply, asking.asked
        if reply is not None and reply.body and found.refused is not Reason.ERROR:
            prepared = self.dialect.prepare(reply)
            if not asked.stream and prepared.serves(asked):
                body = prepared.render(asked, self._stamp(reply.source_id))
                own = msgspec.structs.replace(reply, body=body)
                fetched = msgspec.structs.replace(fetched, reply=own)
        await super().made(call, asking, found, fetched)

    def _stamp(self, source: str) -> Stamp:
        return Stamp(id_like(source or self.dialect.fresh_id()), int(self.clock.wall()))

    async def _relayed(
        self, call: Call, asking: Asking, found: Answer, key: str, ride: Ride
    ) -> AsyncIterator[bytes]:
        events = Events(self._stamp)
        async for piece in super()._relayed(call, asking, found, key, ride):
            if plain := events.pass_on(piece):
                yield plain

    async def _paced(
        self, call: Call, pieces: list[bytes], first: float, last: float
    ) -> AsyncIterator[bytes]:
        """The first piece when the first byte came, the last at the end, the rest between."""
        gap = (last - first) / max(len(pieces) - 1, 1)
        for number, piece in enumerate(pieces):
            await self._until(call, first + number * gap)
            yield piece

    async def _until(self, call: Call, seconds: float) -> None:
        """Wait until so long after the request was there to its last byte, as a new call would."""
        left = seconds - (perf_counter() - call.whole_at)
        if left > 0:
            await self.sleep(left)


class StrictEndpoint(Endpoint):
    """Answers from the cache, but to nobody who asks whether something lies there."""

    async def _ask(self, call: Call, asking: Asking) -> None:
        _refuse_probing(asking)
        _check_hops(call)
        call.whole_at = perf_counter()
        await super()._ask(call, plain(asking, self.dialect))

    async def _bypass(self, call: Call, asking: Asking) -> None:
        _refuse_probing(asking)
        await super()._bypass(call, asking)


class Strict:
    """Who is served strictly, and how. `always`: everybody, else the clients that say so."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], passing: Passing, token: str, *, always: bool
    ) -> None:
        self.always, self._passing, self._token = always, passing, token
        self._endpoints = by_path(endpoints)

    def concerns(self, call: Call) -> bool:
        return self.always or (call.client is not None and call.client.is_strict)

    async def answer(self, call: Call, body_limit: int) -> None:
        """Answer on a cached path, as an endpoint does for others, and raise as it does."""
        endpoint = self._endpoints.get(call.path)
        veil(call, cached=endpoint is not None)
        if endpoint is not None:
            await endpoint(call, await call.receive())
            return
        call.endpoint = version_free(call.path)
        raw = await read_body(call, body_limit)
        await self._passing.forward(call, raw, Reason.DISABLED, decoded=True)

    def guard(self, call: Call) -> None:
        """Numbers tell hits: only who may administer sees them. Raises HttpError 403."""
        authorise(call, self._token)


def strict_of(making: Making) -> Strict | None:
    """None where nobody is to be served strictly."""
    settings = making.settings
    always = settings.gateway.strict
    if not always and not any(row.strict for row in settings.clients.values()):
        return None
    manner = Manner(annotate=False, inline=False, teller=StrictTeller, endpoint=StrictEndpoint)
    names = [name for name, dialect in DIALECTS.items() if dialect.facts.can_be_strict]
    endpoints = {name: endpoint_of(making, name, manner) for name in names}
    return Strict(endpoints, making.means.passing, settings.admin.token, always=always)


def veil(call: Call, *, cached: bool) -> None:
    """Let its answer leave without marks, and one through the cache without more than it needs."""
    send = call.send

    async def strictly(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [header for header in message["headers"] if not _is_mark(header[0])]
            if cached and message["status"] == 200:
                kept = [_plain_type(header) for header in kept if _is_shown(header[0])]
                # An upstream's own would come with a miss alone.
                kept += [header for header in call.marks if header[0] == b"vary"]
                kept.sort()
            message = {**message, "headers": kept}
        await send(message)

    call.send, call.veiled = strictly, True


def plain(asking: Asking, dialect: Speech) -> Asking:
    """`asking` as it goes upstream: what the key is made of, and the shape asked for, alone.

    What is in no key, white space say, or `stream_options` without `stream`, and what an upstream
    refuses, would be answered where an equal request is stored and be refused where none is.
    """
    asked = asking.asked
    body = dialect.identity(asking.body)
    if asked.stream:
        body["stream"] = True
        if wants_usage(asking.body):
            body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    taken = msgspec.structs.replace(asking.taken, forward=asking.taken.keyed)
    return replace(asking, raw=msgspec.json.encode(body), body=body, taken=taken)


def _is_mark(name: bytes) -> bool:
    return name in MARKS or name.startswith(b"x-cache")


def _is_shown(name: bytes) -> bool:
    return name in SHOWN or name.startswith(b"access-control-")


def _plain_type(header: Header) -> Header:
    """An upstream's content type may have parameters, which a stored answer's has not."""
    if header[0] != b"content-type":
        return header
    return marks.STREAM_TYPE if b"event-stream" in header[1] else marks.JSON_TYPE


def _check_hops(call: Call) -> None:
    """They travel on, and are in no key: an upstream could refuse too many."""
    if sum(len(value) for _, value in hops(call)) > MOST_HOPS:
        name = HOPS.decode()
        said = f"{name}: it accepts at most {MOST_HOPS} bytes"
        raise HttpError(400, said, code="too_many_hops", param=name)


def _refuse_probing(asking: Asking) -> None:
    if asking.controls.only_if_cached:
        raise HttpError(
            403,
            "only-if-cached: this gateway does not tell its clients what is stored ([gateway] "
            "strict)",
            code="strict",
            param="only_if_cached",
        )
