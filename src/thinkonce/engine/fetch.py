"""One call of an upstream, recorded while everybody who waits for it is told.

A fetch belongs to a flight, not to the request that began it: `world.py` runs it in a task of its
own. Chunks that it publishes: first a preamble, then one for the events of each piece that
comes: what comes at once goes out at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

import msgspec

from thinkonce.engine.asking import Asking
from thinkonce.engine.pace import Pace
from thinkonce.entry import Form
from thinkonce.insight.prices import Prices
from thinkonce.outcome import Reason
from thinkonce.protocols.billing import billed
from thinkonce.protocols.dialect import Dialect, Recorder
from thinkonce.protocols.reply import Gist, Reply, encode_reply
from thinkonce.protocols.sse import Event
from thinkonce.request.headers import Taken
from thinkonce.request.storable import StoreRules, refusal
from thinkonce.steps import Draft
from thinkonce.upstream.exchange import Exchange
from thinkonce.upstream.failure import Broken, Header, Refused, asker_of
from thinkonce.upstream.pools import Pool
from thinkonce.upstream.request import Request, Sender

__all__ = (
    "Drafting",
    "EventsChunk",
    "Fetch",
    "Fetched",
    "Posed",
    "Preamble",
    "is_event_stream",
    "upstream_request",
    "whole_of",
)

log = logging.getLogger("thinkonce")

# A whole answer is held in memory; one beyond this is no chat answer. Bytes.
MAX_ANSWER = 256 * 1024 * 1024
# Of an upstream's error page that is passed on. Bytes.
MAX_ERROR = 8 * 1024 * 1024


class Preamble(msgspec.Struct, frozen=True):
    """What a follower must know before the first event."""

    usage_asked: bool


class EventsChunk(bytes):
    """Events' raw bytes, for other processes; in this one it carries the events themselves."""

    events: list[Event]
    recorder: Recorder

    @classmethod
    def of(cls, events: list[Event], recorder: Recorder) -> EventsChunk:
        chunk = cls(b"".join([event.raw for event in events]))
        chunk.events, chunk.recorder = events, recorder
        return chunk


class Fetched(msgspec.Struct, frozen=True):
    """What an upstream answered. `reply` is None where a stream was not recorded to its end."""

    reply: Reply | None
    gist: Gist
    headers: tuple[Header, ...]


class Posed:
    """`async with Posed(...) as exchange`: the answer to `request`, a 200 to be read.

    Raises Refused for others, and UpstreamError. `took` is told the seconds from the request to
    the end of what was read of any answer.
    """

    __slots__ = ("_client", "_exchange", "_pool", "_request", "_spare", "_started", "_took")

    def __init__(
        self,
        client: Sender,
        pool: Pool,
        request: Request,
        took: Callable[[float], None],
        *,
        spare: bool = False,
    ) -> None:
        self._client, self._pool, self._request = client, pool, request
        self._took, self._spare = took, spare

    async def __aenter__(self) -> Exchange:
        self._started = monotonic()
        exchange = await self._client.send(self._pool, self._request, spare=self._spare)
        self._exchange = exchange
        if exchange.status == 200 and not exchange.opaque:
            return exchange
        try:
            body = await exchange.read_all(MAX_ERROR)
        finally:
            self._end()
        credential = () if self._pool.credential else self._request.credential
        whose = asker_of(exchange.status, credential)
        raise Refused(exchange.status, exchange.headers, body or b"", whose)

    async def __aexit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        self._exchange.close()
        self._took(monotonic() - self._started)


async def whole_of(exchange: Exchange) -> bytes:
    """Raises Broken for what is no model's answer."""
    body = await exchange.read_all(MAX_ANSWER)
    if body is None:
        raise Broken(f"the upstream's answer is larger than {MAX_ANSWER} bytes")
    return body


@dataclass(frozen=True, slots=True)
class Drafting:
    """What is kept of an upstream's answers. `finishes`: in what a whole one may end."""

    finishes: Mapping[str, Reason | None]
    rules: StoreRules
    prices: Prices

    def draft(
        self, asking: Asking, fetched: Fetched, seconds: float, kept: Callable[[], bytes]
    ) -> Draft:
        """What of it is kept, and why not, if so. `kept` gives the request to keep beside it."""
        refused = refusal(asking.asked, fetched.gist, self.finishes, self.rules)
        reply = fetched.reply
        if reply is None:
            return Draft(b"", Form.REPLY, refused=refused or Reason.ABORTED)
        try:
            payload = encode_reply(reply)
        except (ValueError, OverflowError):  # the answer is there all the same
            return Draft(b"", Form.REPLY, refused=refused or Reason.UNENCODABLE)
        request = kept() if refused is None else b""
        refused = refused or asking.over_quota(len(payload) + len(request))
        names = (reply.model, asking.asked.model)
        return Draft(
            payload,
            Form.REPLY,
            size=len(payload),
            cost=self.prices.worth(names, billed(reply), seconds),
            tokens=reply.tokens,
            refused=refused,
            request=request,
        )


class Fetch:
    """Callable once per flight. `publish` is set by whoever runs it for followers.

    `kept` gives the request as it is kept beside the answer. `spare`: another pool can be asked.
    """

    batch = None  # see `world.Fetching`

    def __init__(
        self,
        asking: Asking,
        dialect: Dialect,
        client: Sender,
        request: Request,
        *,
        rules: StoreRules,
        prices: Prices,
        usage_asked: bool,
        epoch: int,
        kept: Callable[[], bytes],
        took: Callable[[float], None],
        spare: bool = False,
    ) -> None:
        self.asking, self.dialect = asking, dialect
        self.usage_asked, self.epoch = usage_asked, epoch
        self.publish: Callable[[bytes], object] | None = None
        self.pace: Pace | None = None
        self._recorder: Recorder | None = None
        self.headers: tuple[Header, ...] = ()
        self._client, self._request, self._spare = client, request, spare
        self._drafting = Drafting(dialect.finish_reasons, rules, prices)
        self._max_bytes, self._took, self._kept = rules.max_bytes, took, kept

    async def __call__(self) -> Fetched:
        """Raises Refused for what is no 200, and other UpstreamErrors."""
        await self.asking.measure_quota()
        started, pool = monotonic(), self.asking.pool
        posed = Posed(self._client, pool, self._request, self._took, spare=self._spare)
        async with posed as exchange:
            self.headers = exchange.headers
            if is_event_stream(exchange.content_type):
                return await self._stream(exchange, monotonic() - started)
            return await self._whole(exchange)

    @property
    def is_whole(self) -> bool:
        """See `world.Fetching`."""
        return self._recorder is not None and self._recorder.done

    def follows(self) -> None:
        """See `world.Fetching`: nothing waits for this call but the request itself."""

    renews = renewed = follows

    def draft(self, fetched: Fetched, seconds: float) -> Draft:
        return self._drafting.draft(self.asking, fetched, seconds, self._kept)

    async def _whole(self, exchange: Exchange) -> Fetched:
        body = await whole_of(exchange)
        received = self.dialect.receive(
            self.asking.asked, exchange.status, exchange.content_type, body
        )
        return Fetched(received.reply, received.gist, exchange.headers)

    async def _stream(self, exchange: Exchange, first_byte: float) -> Fetched:
        recorder = self.dialect.recorder(
            self.asking.asked, usage_asked=self.usage_asked, max_bytes=self._max_bytes
        )
        self._recorder, publish = recorder, self.publish
        if publish is not None:
            publish(msgspec.msgpack.encode(Preamble(self.usage_asked)))
        while piece := await exchange.read():
            await self._tell(recorder, recorder.feed(piece))
        await self._tell(recorder, recorder.rest())
        reply, gist = _ended(recorder, exchange.status)
        if reply is not None:
            reply = msgspec.structs.replace(reply, first_byte=round(first_byte, 3))
        return Fetched(reply, gist, exchange.headers)

    async def _tell(self, recorder: Recorder, events: list[Event]) -> None:
        if self.publish is None or not events:
            return
        chunk = EventsChunk.of(events, recorder)
        self.publish(chunk)
        if self.pace is not None:
            self.pace.published(len(chunk))
            await self.pace.room()


def _ended(recorder: Recorder, status: int) -> tuple[Reply | None, Gist]:
    """What was recorded. Its clients have all of the stream: a fault here is none of theirs."""
    try:
        return recorder.end(), recorder.gist()
    except Exception:
        log.exception("an answer is not kept: its recorder failed")
        return None, Gist(status=status, done=True, odd=True)


def is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


def upstream_request(
    method: str,
    path: str,
    query: bytes,
    taken: Taken,
    body: bytes,
    more: tuple[Header, ...] = (),
    *,
    tenant: str = "",
) -> Request:
    """`path` without /v1; `more`: headers besides those that a client may send on."""
    headers, asked = (*taken.forward, *more), query.decode("latin-1")
    return Request(method, path, asked, headers, body, taken.credential, tenant=tenant)
