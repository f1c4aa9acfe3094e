"""Answers exact hits from the bytes of the request, before a server makes a request of them.

What it answers, and how, is what `Endpoint.hit` gives everywhere else: the memory tier holds an
entry that the flow has decided already. Anything else goes the usual way.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from thinkonce.engine.asking import Asking
from thinkonce.engine.endpoint import Endpoint
from thinkonce.engine.http import Head
from thinkonce.engine.memo import MAX_BODY, Known
from thinkonce.engine.plates import Plate
from thinkonce.engine.request_ids import RequestIds
from thinkonce.gateway.access_log import AccessLog, Told
from thinkonce.gateway.clients import Clients
from thinkonce.gateway.cors import Cors
from thinkonce.gateway.counts import OTHER, Counts
from thinkonce.gateway.numbers import BOUNDS, Timings
from thinkonce.outcome import Match, Outcome
from thinkonce.tiers.memory import MEMORY
from thinkonce.upstream.request import HOPS
from thinkonce.web.exchange import HEAD, OVERSIZED, Header, Scope
from thinkonce.web.log_lines import printable

if TYPE_CHECKING:
    from thinkonce.gateway.tracing import Tracing  # what it stands on is an extra

__all__ = ("FastLane",)

log = logging.getLogger("thinkonce")

# Heads that are remembered, in bytes of all of them; each takes a few objects besides. And as much
# for whole requests, heads and bodies, of which each takes less.
MAX_BYTES = 8 * 1024 * 1024
OVERHEAD, WHOLE_OVERHEAD = 2048, 320
# A head with one of these asks for more than an answer on a connection that stays open, or is
# another one for each request.
_UNUSUAL = frozenset(
    {
        b"cache-control", b"content-encoding", b"expect", b"te", b"traceparent", b"tracestate",
        b"trailer", b"transfer-encoding", b"upgrade", b"x-request-id", HOPS,
    }
)  # fmt: skip


# What of a scope follows from a request's head: the rest is its connection's.
_OF_THE_HEAD = ("method", "http_version", "path", "raw_path", "query_string", "headers")


class Door:
    """A head that came before, and what was learnt with it."""

    __slots__ = (
        "end", "endpoint", "head", "known", "length", "limited", "monotonic", "probe_again",
        "scope", "state", "wall", "what",
    )  # fmt: skip

    def __init__(
        self, endpoint: Endpoint, known: Known, head: Head, length: int, scope: Scope, end: bytes
    ) -> None:
        """`end`: the last lines of an answer's head, its blank line included.

        `limited`: the client, if it may ask so often, or so many at once.
        """
        self.endpoint, self.known, self.head = endpoint, known, head
        self.length, self.end = length, end
        self.scope = {name: scope[name] for name in _OF_THE_HEAD}
        self.state = {HEAD: head}
        self.what = printable(f"POST {scope['raw_path'].decode('latin-1')}")
        self.monotonic, self.wall = endpoint.clock.monotonic, endpoint.clock.wall
        self.probe_again = endpoint.probe_again
        client = head.client
        has_limits = client is not None and not (client.allowance is None and client.room is None)
        self.limited = client if has_limits else None


class Seen(ref[Plate]):
    """A whole request that came before: what printed its last hit, as long as that is there."""

    __slots__ = ("door",)
    door: Door


class FastLane:
    """A `web.lane.Lane`. Belongs to one event loop. Bounded in bytes; the oldest heads go first.

    It answers for the endpoints it was given last, and learns heads anew for them.
    """

    def __init__(self, ids: RequestIds, metrics: Counts, access_log: AccessLog) -> None:
        self._endpoints: Mapping[str, Endpoint] = {}
        self._clients: Clients | None = None
        self._cors: Cors | None = None
        self._ids, self._metrics, self._access_log = iter(ids), metrics, access_log
        self.tracing: Tracing | None = None
        self._doors: dict[bytes, Door] = {}
        self._bytes = 0
        self._defaults: list[Header] = []
        self._opening = b""  # status line and default headers
        self.door = self._doors.get
        self._whole: dict[bytes, Seen] = {}
        self._whole_bytes = 0
        self.known = self._whole.get
        self._timings = Timings()  # of hits; of no use before the first

    def adopt(
        self,
        endpoints: Mapping[str, Endpoint],
        clients: Clients | None = None,
        cors: Cors | None = None,
    ) -> None:
        """Answer for `endpoints`, by path, from now on; `clients` None: for those as before."""
        self._endpoints, self._cors = endpoints, cors
        if clients is not None:
            self._clients = clients
        self._doors.clear()
        self._bytes = 0
        self._forget_whole()

    def __len__(self) -> int:
        return len(self._doors)

    # -- learning ------------------------------------------------------------------------

    def learn(self, head: bytes, scope: Any) -> None:
        """Remember `head` if requests that begin with it can be told apart by their bytes."""
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is None or scope["method"] != "POST" or scope["http_version"] != "1.1":
            return
        headers: list[Header] = scope["headers"]
        length = _length_of(headers)
        most = min(MAX_BODY, endpoint.body_limit)
        if head in self._doors or OVERSIZED in scope["state"] or not 0 < length <= most:
            return
        if not _is_plain(headers) or not _is_strict(head):
            return
        assert self._clients is not None, "there are endpoints, so there are clients"
        client = self._clients.find(headers)
        if self._clients.only_local or (self._clients.only_known and client is None):
            return
        if self._clients.why_foreign(headers):
            return
        if client is not None and client.row.strict:
            return
        query = scope["query_string"]
        known = endpoint.memo.known(query, headers)
        self._bytes += _size(head)
        while self._bytes > MAX_BYTES and self._doors:
            oldest = next(iter(self._doors))
            del self._doors[oldest]
            self._bytes -= _size(oldest)
        asks = Head(headers, query, client)
        end = b"\r\n" if self._cors is None else self._cors.lines(asks.head) + b"\r\n"
        self._doors[head] = Door(endpoint, known, asks, length, scope, end)

    # -- answering -----------------------------------------------------------------------

    def answer(
        self, door: Door, body: bytes, default_headers: list[Header]
    ) -> bytes | Asking | None:
        """See `web.lane.Lane`. Never raises: what fails here is tried the usual way."""
        known = door.known.get(body)
        if known is not None:
            return self._hit(door, known, default_headers)
        asking = self._understood(door, body)
        if asking is None:
            return None
        answer = self._hit(door, asking, default_headers)
        if answer is None:
            asking.known = door.known
            return asking
        door.endpoint.memo.put(door.known, body, asking)
        return answer

    def _understood(self, door: Door, body: bytes) -> Asking | None:
        client = door.head.client
        if client is not None and not client.may_ask():
            return None
        try:
            return door.endpoint.understood(door.head, body)
        except Exception:
            log.exception("the fast lane failed")
            return None

    def _hit(self, door: Door, asking: Asking, default_headers: list[Header]) -> bytes | None:
        monotonic, limited = door.monotonic, door.limited
        now = monotonic()
        # A hit takes no time, so it takes no place either; but there has to be one.
        if limited is not None and not limited.may_ask():
            return None
        try:
            plate = door.endpoint.plate(asking, now)
        except Exception:
            log.exception("the fast lane failed")
            return None
        if plate is None:
            return None
        answer = self._print(door, plate, now, default_headers)
        if answer is not None and asking.draw is not None:
            asking.draw.advance()
        return answer

    def _print(
        self, door: Door, plate: Plate, now: float, default_headers: list[Header]
    ) -> bytes | None:
        """Hand out what `plate` gives at `now`, when it was found to be good for that."""
        monotonic, wall = door.monotonic, door.wall
        try:
            ids = next(self._ids)
            lines, first, note, last = plate.print(ids, wall(), now)
        except Exception:
            log.exception("the fast lane failed")
            return None
        limited = door.limited
        if limited is not None and limited.allowance is not None and not limited.allowance.take():
            return None  # another worker was faster
        if default_headers is not self._defaults:
            self._open_with(default_headers)
        seconds = monotonic() - now
        repeats = plate.repeats
        if repeats is None:
            self._count(door, plate, seconds)
        else:  # as `_count`, for what is known by now
            if not repeats.times:
                self._metrics.savings.wait(repeats)
            repeats.times += 1
            timings = self._timings
            timings.counts[bisect_left(BOUNDS, seconds)] += 1
            timings.sum += seconds
        if self._access_log.enabled or self.tracing is not None:
            self._tell(door, plate, ids, seconds)
        return b"".join((self._opening, lines, door.end, first, note, last))

    # -- whole requests that came before ----------------------------------------------------

    def remember(self, request: bytes, door: Door, body: bytes) -> None:
        """See `web.lane.Lane`. Not at the first sight of its bytes: most might never come again.

        What printed the answer is held weakly: others own it, and count it. A request with several
        samples has no one answer.
        """
        asking = door.known.get(body)
        if asking is None or not asking.used or asking.draw is not None:
            return
        plate = asking.plate()
        if plate is None:
            return
        size = 0 if request in self._whole else len(request) + WHOLE_OVERHEAD
        if self._whole_bytes + size > MAX_BYTES:  # those that are still asked are soon here again
            self._forget_whole()
        self._whole_bytes += size
        seen = self._whole[request] = Seen(plate)
        seen.door = door

    def again(self, seen: Seen, default_headers: list[Header]) -> bytes | None:
        """See `web.lane.Lane`."""
        plate = seen()
        if plate is None:
            return None
        door = seen.door
        monotonic, limited, probe_again = door.monotonic, door.limited, door.probe_again
        now = monotonic()
        if limited is not None and not limited.may_ask():
            return None
        if not probe_again(plate.entry, now):
            return None
        plate.used = True
        return self._print(door, plate, now, default_headers)

    def _forget_whole(self) -> None:
        self._whole.clear()
        self._whole_bytes = 0

    # -- what is told of it -----------------------------------------------------------------

    def _tell(self, door: Door, plate: Plate, ids: bytes, seconds: float) -> None:
        log, tracing, told = self._access_log, self.tracing, None
        if tracing is not None or log.as_json:
            client = "" if door.head.client is None else door.head.client.name
            tenant, saved = plate.entry.meta.tenant, plate.ready.tokens
            model = self._metrics.model(plate.model)
            facts = (model, tenant, Match.EXACT, MEMORY, saved, client)
            told = Told(door.endpoint.dialect.name, *facts)
            if tracing is not None:
                path = door.what.removeprefix("POST ")
                tracing.hit(told, plate.ready, path, ids.decode("latin-1"), seconds)
        if log.enabled:
            log.write(ids.decode("latin-1"), door.what, 200, Outcome.HIT, "", seconds, "", told)

    def _open_with(self, default_headers: list[Header]) -> None:
        """The server has a new list every second, with a new date."""
        self._defaults = default_headers
        defaults = [b"%b: %b\r\n" % header for header in default_headers]
        self._opening = b"".join((b"HTTP/1.1 200 OK\r\n", *defaults))

    def _count(self, door: Door, plate: Plate, seconds: float) -> None:
        """The plate counts later hits, once its model has a name: another may get one later."""
        metrics = self._metrics
        model = metrics.model(plate.model)
        labels = (door.endpoint.dialect.name, model, Outcome.HIT, Match.EXACT)
        plate.count()
        metrics.count(labels, seconds)
        if model != OTHER:
            plate.repeated(partial(metrics.count_answers, labels))
            self._timings = metrics.timings(Outcome.HIT)


def _size(head: bytes) -> int:
    """With the headers that were made of it."""
    return 2 * len(head) + OVERHEAD


def _length_of(headers: list[Header]) -> int:
    """-1 where it is not said once, in plain digits."""
    lengths = [value for name, value in headers if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else -1


def _is_plain(headers: list[Header]) -> bool:
    return not any(
        name in _UNUSUAL
        or name.startswith(b"x-thinkonce-")
        or (name in (b"connection", b"proxy-connection") and value.lower() != b"keep-alive")
        for name, value in headers
    )


def _is_strict(head: bytes) -> bool:
    """Whether it begins with the request and every line ends as it should.

    The parser skips blank lines before a request, and may take others for its end: then the first
    blank line would not be where the head ends.
    """
    lines = head.count(b"\r\n")
    begins = head.startswith(b"POST ")
    return begins and head.count(b"\n") == lines and head.count(b"\r") == lines
