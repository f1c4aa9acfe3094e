"""Requests that came before, byte for byte: what they ask need not be read again.

A memo of a pure function (headers, query, body -> key). It holds no answers, so purge, expiry and
eviction act in the tiers alone; whoever finds nothing here reads the request in full.

    headers that matter, query ──► Known ──► body ──► Asking
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence

import msgspec

from thinkonce.engine.asking import Asking
from thinkonce.request.headers import Taken, take_headers
from thinkonce.web.exchange import Header

__all__ = ("MAX_BODY", "Known", "Memo")

# Larger bodies are read anew: hashing them costs a good part of reading them.
MAX_BODY = 64 * 1024
# Bytes an entry takes besides the body and the key: objects around it, a dict slot.
OVERHEAD = 2048
# Of the bound, what the sets of headers may take.
SHARE = 8
# Clients choose these, so they are bounded: names of headers that are remembered to matter or
# not, and how many sets of headers are told apart.
MAX_NAMES, MAX_NAME_BYTES = 1000, 128
MAX_KNOWN = 1000

Pairs = tuple[Header, ...]


class Known(dict[bytes, Asking]):
    """The bodies that came before with one set of headers that matter and one query."""


class Memo:
    """Belongs to one event loop. Bounded in bytes; the oldest go first.

    What had a hit meanwhile gets another turn: requests that are never asked again, however many,
    do not take its place.
    """

    def __init__(self, forward_headers: Container[bytes], max_bytes: int) -> None:
        self._extra, self._max_bytes = forward_headers, max_bytes
        self._known: dict[tuple[bytes, Pairs], Known] = {}
        self._order: deque[tuple[Known, bytes, int]] = deque()
        self._bytes = self._known_bytes = 0
        self._matters: dict[bytes, bool] = {}

    def known(self, query: bytes, headers: Sequence[Header]) -> Known:
        """The requests like this one, their bodies apart."""
        place = query, self._said(headers)
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = Known()
            self._known_bytes += _size(place)
            most = self._max_bytes // SHARE
            while len(self._known) > MAX_KNOWN or self._known_bytes > most:
                oldest = next(iter(self._known))  # who holds it goes on with it
                del self._known[oldest]
                self._known_bytes -= _size(oldest)
        return known

    def put(self, known: Known, body: bytes, asking: Asking) -> None:
        """Remember `asking`, without body and headers: good for answering from the cache only."""
        size = len(body) + OVERHEAD + _size_of_keys(asking)
        if len(body) > MAX_BODY or size > self._max_bytes or body in known:
            return
        self._bytes += size
        while self._bytes > self._max_bytes:
            others, oldest, freed = self._order.popleft()
            asked = others[oldest]
            if asked.used:
                asked.used = False
                self._order.append((others, oldest, freed))
            else:
                del others[oldest]
                self._bytes -= freed
        self._order.append((known, body, size))
        known[body] = Asking(
            raw=b"",  # the memo holds it
            body={},
            asked=msgspec.structs.replace(asking.asked, body={}),
            controls=asking.controls,
            taken=Taken(),
            tenant=asking.tenant,
            pool=asking.pool,
            key=asking.key,
            bypass=asking.bypass,
            draw=asking.draw,
        )

    def __len__(self) -> int:
        return len(self._order)

    def _said(self, headers: Sequence[Header]) -> Pairs:
        """Everything in them that reading the request depends on."""
        matters = self._matters
        try:
            return tuple([pair for pair in headers if matters[pair[0]]])
        except KeyError:
            for pair in headers:
                if len(matters) < MAX_NAMES and len(pair[0]) <= MAX_NAME_BYTES:
                    matters[pair[0]] = self._has_a_say(pair)
            return tuple([pair for pair in headers if self._has_a_say(pair)])

    def _has_a_say(self, pair: Header) -> bool:
        """Whether the key, the tenant or the controls depend on such a header, or a check does."""
        name = pair[0]
        if name in (b"content-type", b"cache-control") or name.startswith(b"x-thinkonce-"):
            return True
        taken = take_headers((pair,), self._extra)
        return bool(taken.keyed or taken.credential)


def _size_of_keys(asking: Asking) -> int:
    keys = (asking.key,) if asking.draw is None else asking.draw.keys
    return sum(len(key.local) for key in keys if key and isinstance(key.local, bytes))


def _size(place: tuple[bytes, Pairs]) -> int:
    query, pairs = place
    return OVERHEAD + len(query) + sum(len(name) + len(value) for name, value in pairs)
