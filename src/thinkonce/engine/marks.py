"""What an answer says of how it was come by: response headers, and the marks in the body.

x-cache          HIT | MISS | STALE | BYPASS | REFRESH | COALESCED
cache-status     RFC 9211: thinkonce; hit; ttl=n | fwd=miss; collapsed | fwd=request | ...
a hit also       x-cache-match x-cache-tier age x-cache-ttl x-cache-source-id
a miss also      x-cache-not-stored, where its answer is not kept; a stream's head goes out before
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Any, cast

import msgspec

from thinkonce.clock import Clock
from thinkonce.entry import Entry
from thinkonce.insight.prices import Prices
from thinkonce.insight.savings import nanos
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.annotation import Annotation
from thinkonce.protocols.billing import billed
from thinkonce.protocols.dialect import Dialect, Prepared
from thinkonce.protocols.reply import decode_reply
from thinkonce.steps import Answer
from thinkonce.tiers.memory import MEMORY
from thinkonce.upstream.failure import Header

__all__ = (
    "JSON_TYPE",
    "MARKS",
    "STREAM_TYPE",
    "Ready",
    "annotation_of_hit",
    "annotation_of_miss",
    "batch_headers",
    "hit_headers",
    "make_ready",
    "miss_headers",
    "passed_on",
    "plain_lines",
    "plain_note",
)

# Headers that say how an answer was come by.
MARKS = (
    "age", "cache-status", "x-cache", "x-cache-key", "x-cache-match", "x-cache-not-stored",
    "x-cache-reason", "x-cache-similarity", "x-cache-source-id", "x-cache-tier", "x-cache-ttl",
    "x-request-id", "x-thinkonce-fallback",
)  # fmt: skip
JSON_TYPE: Header = (b"content-type", b"application/json")
STREAM_TYPE: Header = (b"content-type", b"text/event-stream; charset=utf-8")

_X_CACHE: dict[Outcome, Header] = {
    outcome: (b"x-cache", outcome.value.upper().encode()) for outcome in Outcome
}
_FORWARDED: dict[Outcome, Header] = {
    Outcome.MISS: (b"cache-status", b"thinkonce; fwd=miss"),
    Outcome.COALESCED: (b"cache-status", b"thinkonce; fwd=miss; collapsed"),
    Outcome.REFRESH: (b"cache-status", b"thinkonce; fwd=request"),
    Outcome.BYPASS: (b"cache-status", b"thinkonce; fwd=bypass"),
}
_HIT = b"thinkonce; hit"
_REASON: dict[Reason, Header] = {
    reason: (b"x-cache-reason", reason.value.encode()) for reason in Reason
}
# Of an upstream's headers, what is made anew here or would lie about this connection.
# Access-Control-* of an upstream's would let pages in that this gateway does not know.
_OURS = frozenset(name.encode() for name in MARKS) | frozenset(
    b"access-control-allow-credentials access-control-allow-headers access-control-allow-methods "
    b"access-control-allow-origin access-control-expose-headers access-control-max-age alt-svc "
    b"content-type date server".split()
)


@dataclass(slots=True)
class Ready:
    """An entry made ready to be handed out again and again; `gateway.parts` keeps it."""

    prepared: Prepared
    digest: bytes
    key: str
    key_header: Header
    source_header: Header
    raw_type: Header
    tokens: int
    usd: float | None
    nanos: int  # of `usd`
    micros: int  # the model took
    estimated: bool  # nobody counted the tokens
    milliseconds: float
    first_byte: float  # seconds from the request to the recorded stream's beginning; 0: unknown


def make_ready(entry: Entry, dialect: Dialect, prices: Prices) -> Ready:
    """Raises CorruptEntry when the stored bytes are no reply."""
    reply = decode_reply(entry.payload)
    key = entry.digest.hex()
    names = (reply.model, entry.meta.model)
    usd = prices.cost(names, billed(reply))
    ready = Ready(
        prepared=dialect.prepare(reply),
        digest=entry.digest,
        key=key,
        key_header=(b"x-cache-key", key.encode()),
        source_header=(b"x-cache-source-id", _safe(reply.source_id)),
        raw_type=(b"content-type", reply.content_type.encode("latin-1")),
        tokens=reply.tokens,
        usd=usd,
        nanos=nanos(usd),
        micros=round(entry.seconds * 1_000_000),
        estimated=reply.usage_estimated,
        milliseconds=round(entry.seconds * 1000, 3),
        first_byte=reply.first_byte,
    )
    payload = entry.payload
    ready.prepared.again = lambda: decode_reply(payload)
    return ready


def plain_lines(ready: Ready, kind: Header, *, lives: bool) -> bytes:
    """The header lines of a plain exact hit of the memory tier; the same as `hit_headers` gives.

    To be filled with age, twice the seconds left if it `lives` no longer than that, request id and
    length of the body.
    """
    match, tier = (b"x-cache-match", b"exact"), (b"x-cache-tier", MEMORY.encode())
    head = [kind, _X_CACHE[Outcome.HIT], ready.key_header, match, tier]
    if ready.source_header[1]:
        head.append(ready.source_header)
    fixed = b"".join(b"%b: %b\r\n" % header for header in head).replace(b"%", b"%%")
    life = b"; ttl=%d\r\nx-cache-ttl: %d" if lives else b""
    return b"".join(
        (
            fixed,
            b"age: %d\r\ncache-status: thinkonce; hit",
            life,
            b"\r\nx-request-id: %b\r\ncontent-length: %d\r\n",
        )
    )


def plain_note(ready: Ready, *, lives: bool) -> bytes:
    """The marks of a plain exact hit; the same as `annotation_of_hit` gives.

    To be filled with age, and with the seconds left if it `lives` no longer than that.
    """
    note = Annotation(
        status=Outcome.HIT,
        match=Match.EXACT,
        tier=MEMORY,
        key=ready.key,
        saved_tokens=ready.tokens,
        saved_cost=ready.usd,
        saved_ms=ready.milliseconds,
    ).members()
    assert b"%" not in note, "keys, tiers and numbers hold none"
    times = b'"age":%.3f,"ttl":%.3f' if lives else b'"age":%.3f,"ttl":null'
    return note.replace(b'"age":null,"ttl":null', times)


def hit_headers(
    answer: Answer, entry: Entry, ready: Ready, clock: Clock, *, stream: bool
) -> list[Header]:
    """Of a HIT or STALE answer."""
    left = entry.fresh_until - clock.monotonic()
    age = b"%d" % max(clock.wall() - entry.created_at, 0)
    headers = [
        STREAM_TYPE if stream else JSON_TYPE,
        _X_CACHE[answer.outcome],
        ready.key_header,
        (b"x-cache-match", cast(Any, answer.match).value.encode()),
        (b"x-cache-tier", cast(str, answer.tier).encode()),
        (b"age", age),
    ]
    if left == inf:
        headers.append((b"cache-status", _HIT))
    else:
        ttl = b"%d" % left
        headers.append((b"cache-status", b"thinkonce; hit; ttl=" + ttl))
        headers.append((b"x-cache-ttl", ttl))
    if ready.source_header[1]:
        headers.append(ready.source_header)
    if answer.similarity is not None:
        headers.append((b"x-cache-similarity", b"%.4f" % answer.similarity))
    if answer.reason is not None and answer.outcome is not Outcome.HIT:
        headers.append(_REASON[answer.reason])
    return headers


def miss_headers(
    outcome: Outcome, reason: Reason | None, key: str, not_stored: Reason | None = None
) -> list[Header]:
    """Of an answer that is no hit. `key` is "" where there is none."""
    headers = [_X_CACHE[outcome]]
    if outcome in _FORWARDED:
        headers.append(_FORWARDED[outcome])
    if key:
        headers.append((b"x-cache-key", key.encode()))
    if reason is not None:
        headers.append(_REASON[reason])
    if not_stored is not None:
        headers.append((b"x-cache-not-stored", not_stored.value.encode()))
    return headers


def batch_headers(
    outcome: Outcome, reason: Reason | None, key: str, age: float, left: float, tier: str | None
) -> list[Header]:
    """Of an answer of many entries. `age` of the oldest, `left` of the one with least to live;

    `key` and `tier` where they are the same for all.
    """
    headers = miss_headers(outcome, reason, key)
    if outcome not in (Outcome.HIT, Outcome.STALE):
        return headers
    status = _HIT if left == inf else b"%b; ttl=%d" % (_HIT, left)
    headers += [(b"x-cache-match", b"exact"), (b"age", b"%d" % max(age, 0))]
    headers.append((b"cache-status", status))
    if tier is not None:
        headers.append((b"x-cache-tier", tier.encode()))
    if left != inf:
        headers.append((b"x-cache-ttl", b"%d" % left))
    return headers


def passed_on(headers: tuple[Header, ...]) -> list[Header]:
    """Of an upstream's end-to-end headers, what the client gets besides the content type.

    None with control characters in it: that is no header, and the server would refuse to send it.
    """
    return [header for header in headers if header[0] not in _OURS and _is_clean(header)]


def annotation_of_hit(
    answer: Answer, entry: Entry, ready: Ready, clock: Clock, *, label: str
) -> bytes:
    left = entry.fresh_until - clock.monotonic()
    return Annotation(
        status=answer.outcome,
        match=answer.match,
        tier=answer.tier,
        key=ready.key,
        cache_key=label or None,
        age=round(clock.wall() - entry.created_at, 3),
        ttl=None if left == inf else round(left, 3),
        similarity=answer.similarity,
        saved_tokens=ready.tokens,
        saved_cost=ready.usd,
        saved_ms=ready.milliseconds,
        matched=msgspec.UNSET if answer.question is None else answer.question,
    ).members()


def annotation_of_miss(
    outcome: Outcome,
    key: str,
    label: str,
    refused: Reason | None,
    ready: Ready | None = None,
    saved_ms: float | None = None,
) -> bytes:
    """`ready`, `saved_ms`: what a request that joined another's call has saved, where known."""
    return Annotation(
        status=outcome,
        key=key or None,
        cache_key=label or None,
        saved_tokens=None if ready is None else ready.tokens,
        saved_cost=None if ready is None else ready.usd,
        saved_ms=saved_ms,
        stored=refused is None,
        not_stored=refused,
    ).members()


def _is_clean(header: Header) -> bool:
    name, value = header
    return _has_control(value) is None and _is_token(name) is not None


_has_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_is_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110, 5.6.2


def _safe(text: str) -> bytes:
    """A header value: an id with control characters in it is no id."""
    raw = text.encode("latin-1", "replace")
    return raw if all(32 < byte < 127 for byte in raw) else b""
