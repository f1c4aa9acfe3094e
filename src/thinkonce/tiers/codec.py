"""An entry as bytes, for every tier that leaves the process.

    0         1              17                     21       21+h
    | version | checksum 16  | header length h, u32 | header | payload |

The checksum is BLAKE3, keyed from the installation's secret, over the digest under which the
entry is stored and everything else. So a changed bit, a row moved to another key and bytes made
by another installation are all told apart from an entry of ours. The header is a msgpack array.

With encryption, all behind the first byte is sealed as one; the digest, the installation and the
version are authenticated with it (`cipher`).

    0         1
    | version | sealed: header length h, u32 | header | payload |
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from struct import Struct
from struct import error as TooShort
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from thinkonce.entry import Entry, Meta
from thinkonce.errors import CorruptEntry, UnknownKey
from thinkonce.likeness import Hint
from thinkonce.tiers.tier import Key
from thinkonce.values import persistable, revive, unopened

if TYPE_CHECKING:
    from thinkonce.tiers.cipher import Cipher

__all__ = ("SEALED", "VERSION", "Codec")

VERSION, SEALED = 1, 2
_VERSION, _SEALED = bytes([VERSION]), bytes([SEALED])
PURPOSE = "entry"
_CHECKSUM_SIZE = 16
_LENGTH = Struct("<I")
_LENGTH_AT = 1 + _CHECKSUM_SIZE
PARTITION_BYTES = 32
_MOST_METAS = 4096  # distinct ones remembered, so that entries with equal ones share them
_MOST_META_BYTES = 1024  # of one of them, as it is stored
# The version is part of the key, hence of every checksum.
_CONTEXT = f"thinkonce 2026-11-22 checksum of stored entries, version {VERSION}"


class _Header(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What is stored of `Entry` besides its answer. New fields go to the end, with a default."""

    form: int
    meta: bytes  # a `_Meta`, encoded by itself: most are known already and need no decoding
    payload_size: int
    cost: float
    seconds: float
    tokens: int
    created_at: float
    expires_at: float
    gone_at: float
    stale_while_revalidate: float
    stale_if_error: float
    epoch: int
    request: bytes = b""
    question: bytes = b""  # partition and text of the hint
    member: bytes = b""  # of the hint


class _Meta(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """`Meta` in a stored form of its own, so that its field order may change."""

    scope: str
    tenant: str
    namespace: str
    model: str
    tags: tuple[str, ...]
    priority: str
    label: str
    source: str


class Codec:
    """Encodes and decodes entries under one secret. Thread-safe.

    With a `cipher` it seals what it encodes, and decodes what is sealed and what is not.
    """

    def __init__(self, secret: bytes, tier: str = "store", cipher: Cipher | None = None) -> None:
        self.tier, self._cipher = tier, cipher
        self._key = blake3(secret, derive_key_context=_CONTEXT).digest()
        self._encode = msgspec.msgpack.Encoder().encode
        self._header: Callable[[bytes], _Header] = msgspec.msgpack.Decoder(_Header).decode
        self._meta: Callable[[bytes], _Meta] = msgspec.msgpack.Decoder(_Meta).decode
        self._metas: dict[bytes, Meta] = {}

    def encode(self, digest: bytes, entry: Entry) -> bytes:
        """The bytes of `entry` under `digest`. Raises TypeError for what only memory can hold."""
        payload = persistable(entry)
        header = self._encode(_header_of(entry, self._encode(_meta_of(entry.meta))))
        return self._closed(digest, b"".join((_LENGTH.pack(len(header)), header, payload)))

    def decode(self, key: Key, stored: bytes, *, rebuild: bool = True) -> Entry:
        """The entry stored under `key`. Raises CorruptEntry for bytes that are not it.

        Without `rebuild` the payload stays bytes until it is thawed: for listings, where nobody
        may have the classes that the answer is made of.
        """
        digest = key.digest
        body = self._opened(digest, stored)
        payload_at, header, meta = self._read(body)
        made = revive if rebuild else unopened
        payload, thaw = made(header.form, body[payload_at:])
        return Entry(  # by position: this is the far hit path
            key.local,
            payload,
            meta,
            digest,
            header.form,
            thaw,
            header.payload_size,
            0,
            header.cost,
            header.seconds,
            header.tokens,
            header.created_at,
            header.expires_at,
            header.gone_at,
            header.stale_while_revalidate,
            header.stale_if_error,
            header.epoch,
            header.request,
            _hint_in(header) if header.question else None,
        )

    def again(self, digest: bytes, stored: bytes) -> tuple[Meta, bytes]:
        """What is said of the entry under `digest`, and its bytes as `encode` makes them now.

        Raises CorruptEntry, and UnknownKey for what is sealed with a key that we do not have.
        """
        body = self._opened(digest, stored)
        return self._read(body)[2], self._closed(digest, body)

    def _closed(self, digest: bytes, body: bytes) -> bytes:
        cipher = self._cipher
        if cipher is not None and cipher.seals:
            return _SEALED + cipher.seal(PURPOSE, self._key + digest, body)
        checksum = blake3(digest + body, key=self._key).digest(_CHECKSUM_SIZE)
        return b"".join((_VERSION, checksum, body))

    def _opened(self, digest: bytes, stored: bytes) -> bytes:
        """From here on the bytes are what `encode` wrote, perhaps in another release."""
        version = stored[:1]
        if version == _SEALED:
            if self._cipher is None:
                raise UnknownKey(self.tier, "reading an entry that is encrypted, without a key")
            return self._cipher.open(PURPOSE, self._key + digest, stored[1:])
        if version != _VERSION:
            raise CorruptEntry(self.tier, f"reading an entry of version {version.hex() or '?'}")
        body = stored[_LENGTH_AT:]
        checksum = blake3(digest + body, key=self._key).digest(_CHECKSUM_SIZE)
        if not compare_digest(stored[1:_LENGTH_AT], checksum):
            raise CorruptEntry(self.tier, "checking an entry: its checksum is wrong")
        return body

    def _read(self, body: bytes) -> tuple[int, _Header, Meta]:
        """Where the payload begins, and what stands before it."""
        try:
            payload_at = 4 + _LENGTH.unpack_from(body)[0]
            header = self._header(body[4:payload_at])
            meta = self._metas.get(header.meta) or self._new_meta(header.meta)
        except (msgspec.MsgspecError, TooShort) as error:
            raise CorruptEntry(self.tier, "reading the header of an entry") from error
        return payload_at, header, meta

    def _new_meta(self, raw: bytes) -> Meta:
        stored = self._meta(raw)
        meta = Meta(
            scope=stored.scope,
            tenant=stored.tenant,
            namespace=stored.namespace,
            model=stored.model,
            tags=stored.tags,
            priority=stored.priority,
            label=stored.label,
            source=stored.source,
        )
        if len(raw) > _MOST_META_BYTES:  # with many long tags, say, which nobody else has
            return meta
        if len(self._metas) >= _MOST_METAS:
            self._metas.clear()
        self._metas[raw] = meta
        return meta


def _header_of(entry: Entry, meta: bytes) -> _Header:
    return _Header(
        entry.form,
        meta,
        entry.payload_size,
        entry.cost,
        entry.seconds,
        entry.tokens,
        entry.created_at,
        entry.expires_at,
        entry.gone_at,
        entry.stale_while_revalidate or 0,  # an integer takes one byte, 0.0 takes nine
        entry.stale_if_error or 0,
        entry.epoch,
        entry.request,
        b"" if entry.hint is None else _question_of(entry.hint),
        b"" if entry.hint is None else entry.hint.member,
    )


def _question_of(hint: Hint) -> bytes:
    return hint.partition + hint.text.encode("utf-8", "surrogatepass")


def _hint_in(header: _Header) -> Hint:
    """Without vector and fingerprint: those lie beside the answers, where they are searched."""
    text = header.question[PARTITION_BYTES:].decode("utf-8", "surrogatepass")
    return Hint(header.question[:PARTITION_BYTES], text, member=header.member)


def _meta_of(meta: Meta) -> _Meta:
    return _Meta(
        meta.scope,
        meta.tenant,
        meta.namespace,
        meta.model,
        meta.tags,
        meta.priority,
        meta.label,
        meta.source,
    )
