"""Requests that came before, byte for byte: what they ask need not be read again.

A memo of a pure function (bytes -> key). It holds no answers, so purge, expiry and eviction act in
the tiers alone; whoever finds nothing here reads the request in full.
"""

from __future__ import annotations

import msgspec

from thinkonce.gateway.asking import Asking
from thinkonce.gateway.http import Call
from thinkonce.request.headers import take_headers

__all__ = ("Memo",)

# Larger bodies are read anew: hashing them costs a good part of reading them.
MAX_BODY = 64 * 1024
# Bytes an entry takes besides the body: headers, tuples, the key, a dict slot.
OVERHEAD = 2048

# Names of headers that are remembered to matter or not; clients choose them, so it is bounded.
MAX_NAMES = 1000

Pairs = tuple[tuple[bytes, bytes], ...]
Place = tuple[bytes, bytes, Pairs]


class Memo:
    """Belongs to one event loop. Bounded in bytes; the oldest go first."""

    def __init__(self, forward_headers: frozenset[bytes], max_bytes: int) -> None:
        self._extra, self._max_bytes = forward_headers, max_bytes
        self._known: dict[Place, Asking] = {}
        self._bytes = 0
        self._matters: dict[bytes, bool] = {}

    def place(self, call: Call, raw: bytes) -> Place:
        """Everything that reading the request depends on."""
        matters = self._matters
        try:
            return raw, call.query, tuple([pair for pair in call.headers if matters[pair[0]]])
        except KeyError:
            self._learn(call)
            return raw, call.query, tuple([pair for pair in call.headers if self._has_a_say(pair)])

    def _learn(self, call: Call) -> None:
        if len(self._matters) < MAX_NAMES:
            self._matters.update((pair[0], self._has_a_say(pair)) for pair in call.headers)

    def _has_a_say(self, pair: tuple[bytes, bytes]) -> bool:
        """Whether the key, the tenant or the controls depend on such a header, or a check does."""
        name = pair[0]
        if name in (b"content-type", b"cache-control") or name.startswith(b"x-thinkonce-"):
            return True
        taken = take_headers((pair,), self._extra)
        return bool(taken.keyed or taken.credential)

    def get(self, place: Place) -> Asking | None:
        return self._known.get(place)

    def put(self, place: Place, asking: Asking) -> None:
        """Remember `asking`, without its body: good for answering from the cache only."""
        size = len(place[0]) + len(place[1]) + OVERHEAD
        if len(place[0]) > MAX_BODY or place in self._known:
            return
        self._bytes += size
        while self._bytes > self._max_bytes and self._known:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._bytes -= len(oldest[0]) + len(oldest[1]) + OVERHEAD
        self._known[place] = Asking(
            raw=b"",  # the place holds it
            body={},
            asked=msgspec.structs.replace(asking.asked, body={}),
            controls=asking.controls,
            taken=asking.taken,
            tenant=asking.tenant,
            pool=asking.pool,
            key=asking.key,
            bypass=asking.bypass,
        )

    def __len__(self) -> int:
        return len(self._known)
