"""Answers exact hits from the bytes of the request, before a server makes a request of them.

What it answers, and how, is what `Endpoint.hit` gives everywhere else: the memory tier holds an
entry that the flow has decided already. Anything else goes the usual way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
from thinkonce.gateway.numbers import Labels
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

    __slots__ = ("end", "endpoint", "head", "known", "length", "scope", "state", "what")

    def __init__(
        self, endpoint: Endpoint, known: Known, head: Head, length: int, scope: Scope, end: bytes
    ) -> None:
        """`end`: the last lines of an answer's head, its blank line included."""
        self.endpoint, self.known, self.head = endpoint, known, head
        self.length, self.end = length, end
        self.scope = {name: scope[name] for name in _OF_THE_HEAD}
        self.state = {HEAD: head}
        self.what = printable(f"POST {scope['raw_path'].decode('latin-1')}")


Whole = tuple[Door, ref[Asking]]


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
        self._whole: dict[bytes, Whole] = {}
        self._whole_bytes = 0
        self.known = self._whole.get

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
            return self._print(door, known, default_headers)
        asking = self._understood(door, body)
        if asking is None:
            return None
        answer = self._print(door, asking, default_headers)
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

    def _print(self, door: Door, asking: Asking, default_headers: list[Header]) -> bytes | None:
        endpoint, client = door.endpoint, door.head.client
        monotonic, wall = endpoint.clock.monotonic, endpoint.clock.wall
        now = monotonic()
        allowance = None
        if client is not None:
            allowance = client.allowance
            # A hit takes no time, so it takes no place either; but there has to be one.
            if (allowance is not None or client.room is not None) and not client.may_ask():
                return None
        try:
            plate = endpoint.plate(asking, now)
            if plate is None:
                return None
            ids = next(self._ids)
            lines, content = plate.print(ids, wall(), now)
        except Exception:
            log.exception("the fast lane failed")
            return None
        if allowance is not None and not allowance.take():  # another worker was faster
            return None
        plate.count()
        if asking.draw is not None:
            asking.draw.advance()
        if default_headers is not self._defaults:
            self._open_with(default_headers)
        labels = plate.labels or self._labels(door, asking, plate)
        seconds = monotonic() - now
        self._metrics.count(labels, seconds)
        if self._access_log.enabled or self.tracing is not None:
            self._tell(door, asking, plate, labels, ids, seconds)
        return b"".join((self._opening, lines, door.end, content))

    # -- whole requests that came before ----------------------------------------------------

    def remember(self, request: bytes, door: Door, body: bytes) -> None:
        """See `web.lane.Lane`. Not at the first sight of its bytes: most might never come again.

        What the body asks is held weakly: the memo owns it, and counts it.
        """
        asking = door.known.get(body)
        if asking is None or not asking.used:
            return
        size = 0 if request in self._whole else len(request) + WHOLE_OVERHEAD
        if self._whole_bytes + size > MAX_BYTES:  # those that are still asked are soon here again
            self._forget_whole()
        self._whole_bytes += size
        self._whole[request] = door, ref(asking)

    def again(self, known: Whole, default_headers: list[Header]) -> bytes | None:
        """See `web.lane.Lane`."""
        door, asked = known
        asking = asked()
        return None if asking is None else self._print(door, asking, default_headers)

    def _forget_whole(self) -> None:
        self._whole.clear()
        self._whole_bytes = 0

    # -- what is told of it -----------------------------------------------------------------

    def _tell(
        self,
        door: Door,
        asking: Asking,
        plate: Plate,
        labels: Labels,
        ids: bytes,
        seconds: float,
    ) -> None:
        log, tracing, told = self._access_log, self.tracing, None
        if tracing is not None or log.as_json:
            client = "" if door.head.client is None else door.head.client.name
            facts = (labels[1], asking.tenant, Match.EXACT, MEMORY, plate.ready.tokens, client)
            told = Told(labels[0], *facts)
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

    def _labels(self, door: Door, asking: Asking, plate: Plate) -> Labels:
        """Kept on the plate once the model has a name: another may get one later."""
        model = self._metrics.model(asking.asked.model)
        labels = (door.endpoint.dialect.name, model, Outcome.HIT, Match.EXACT)
        if model != OTHER:
            plate.labels = labels
        return labels


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
