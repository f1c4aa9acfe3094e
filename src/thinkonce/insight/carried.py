"""An entry as one line of JSON, for files that leave the store: nothing of it is lost.

    {"key": ..., "form": "reply", "payload": "base64", ..., "request": {...}, "check": "..."}

Instants are seconds since the epoch, null for "never". `check` is a BLAKE2b of the rest of the
line: it finds what a disk or an editor changed, and keeps out nobody who means to.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf

import msgspec
from msgspec import UNSET, UnsetType

from thinkonce.entry import Entry, Form, Meta
from thinkonce.errors import CorruptEntry
from thinkonce.insight.entries import FORMS
from thinkonce.likeness import Hint
from thinkonce.protocols.reply import decode_reply
from thinkonce.request.kept import KeptRequest, pack, read_parts, unpack
from thinkonce.values import persistable, revive, thaw, unopened

__all__ = ("Carried", "carried", "entry_from", "line_of", "read_line", "request_of")

PARTITION_BYTES = 32
_encode = msgspec.json.Encoder().encode


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """`key` in hex; `form` by name; `request` None where the entry holds none.

    `hint` is left out where there is none, as it was before there were any.
    """

    key: str
    form: str
    payload: bytes
    payload_size: int
    meta: Meta
    cost: float
    seconds: float
    tokens: int
    created_at: float
    expires_at: float | None
    gone_at: float | None
    stale_while_revalidate: float
    stale_if_error: float
    request: KeptRequest | None = None
    hint: Hint | UnsetType = UNSET
    check: str = ""


_decode = msgspec.json.Decoder(Carried).decode


def carried(entry: Entry, hint: Hint | None) -> Carried:
    """`hint`: that of `entry`, whole. Raises TypeError for a value that only memory can hold."""
    return Carried(
        key=entry.digest.hex(),
        form=FORMS[entry.form],
        payload=_stored(entry),
        payload_size=entry.payload_size,
        meta=entry.meta,
        cost=entry.cost,
        seconds=entry.seconds,
        tokens=entry.tokens,
        created_at=entry.created_at,
        expires_at=_instant(entry.expires_at),
        gone_at=_instant(entry.gone_at),
        stale_while_revalidate=entry.stale_while_revalidate,
        stale_if_error=entry.stale_if_error,
        request=request_of(entry),
        hint=_written(hint),
    )


def _written(hint: Hint | None) -> Hint | UnsetType:
    """Not one that JSON cannot hold: its entry is found by an equal request alone then."""
    try:
        return UNSET if hint is None or not hint.text.encode() else hint
    except UnicodeEncodeError:
        return UNSET


def request_of(entry: Entry) -> KeptRequest | None:
    """What `entry` answers; None where that is not kept or cannot be read."""
    if not entry.request:
        return None
    try:
        return read_parts(unpack(entry.request))
    except CorruptEntry:
        return None


def line_of(item: Carried) -> bytes:
    """Without its newline."""
    return _encode(msgspec.structs.replace(item, check=_check(item)))


def read_line(line: bytes) -> Carried:
    """Raises CorruptEntry, saying what is wrong with the line."""
    try:
        item = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptEntry("line", f"reading it: {error}") from error
    if item.check != _check(item):
        raise CorruptEntry("line", "checking it: its check does not fit, so it was changed")
    if item.form not in FORMS.values() or not _is_key(item.key):
        raise CorruptEntry("line", f"reading a form {item.form!r:.40} or a key {item.key!r:.80}")
    if item.hint is not UNSET and len(item.hint.partition) != PARTITION_BYTES:
        raise CorruptEntry("line", f"reading a partition of {len(item.hint.partition)} bytes")
    return item


def entry_from(item: Carried, digest: bytes, hint: Hint | None, tenant: str | None = None) -> Entry:
    """`tenant`: another one than before. `hint`: of the partition it then belongs to.

    Raises CorruptEntry for a payload that is no answer.
    """
    form = next(number for number, name in FORMS.items() if name == item.form)
    if form == Form.REPLY:
        decode_reply(item.payload)
    # Classes need not be known here: only what is handed out as it is must be rebuilt now.
    payload, made = (revive if form == Form.PLAIN else unopened)(form, item.payload)
    meta, request = item.meta, item.request
    if tenant is not None:
        meta = msgspec.structs.replace(meta, tenant=tenant)
        request = request and msgspec.structs.replace(request, tenant=tenant)
    return Entry(
        None,
        payload,
        meta,
        digest,
        form,
        made,
        item.payload_size,
        cost=item.cost,
        seconds=item.seconds,
        tokens=item.tokens,
        created_at=item.created_at,
        expires_at=inf if item.expires_at is None else item.expires_at,
        gone_at=inf if item.gone_at is None else item.gone_at,
        stale_while_revalidate=item.stale_while_revalidate,
        stale_if_error=item.stale_if_error,
        request=b"" if request is None else pack(request.parts()),
        hint=hint,
    )


def _stored(entry: Entry) -> bytes:
    if entry.form == Form.PLAIN and entry.thaw is thaw:  # from a listing: not rebuilt
        payload: bytes = entry.payload
        return payload
    return persistable(entry)


def _instant(seconds: float) -> float | None:
    return None if seconds == inf else seconds


def _is_key(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _check(item: Carried) -> str:
    plain = _encode(msgspec.structs.replace(item, check=""))
    return blake2b(plain, digest_size=8).hexdigest()
