"""Sealing with AES-256-GCM: for everything of ours that lies on a disk or in another's memory.

    0        4         20       32                 -16
    | key id | salt 16 | nonce  | ciphertext       | tag |

Bytes are sealed for a purpose ("entry", say) and under a name that is authenticated with them
(the key of a row): sealed bytes that are moved to another name, or used for something else, do
not open. What a store, an index of vectors or a file of attention state keeps goes through
`Cipher.seal` and `Cipher.open`; names that must be found again go through `Cipher.marks`.

Nonces: 96 random bits (NIST SP 800-38D, 8.2.2), under a key that is derived (HKDF, RFC 5869) from
the configured one, the purpose and a random salt. Each process draws a salt of its own, and a new
one after 2**20 seals, so that the 2**32 invocations of a key that SP 800-38D, 8.3 allows are out
of reach, and the odds of one nonce coming twice under a derived key are below 2**-56. Nonces come
from the operating system: a forked child repeats none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from thinkonce.errors import CorruptEntry, UnknownKey
from thinkonce.tiers.keyring import KEY_BYTES

__all__ = ("OVERHEAD", "Cipher")

_ID, _SALT, _NONCE, _TAG = 4, 16, 12, 16
_NONCE_AT, _BODY_AT = _ID + _SALT, _ID + _SALT + _NONCE
OVERHEAD = _BODY_AT + _TAG  # bytes that sealing adds
_SEALS_A_SALT = 2**20
_MOST_DERIVED = 1024  # derived keys that are remembered; one takes about 1 KB
_MOST_MARKS = 4096
_MARK_BYTES = 16
_CONTEXT = b"thinkonce 2026-11-22 "


@dataclass(slots=True)
class _Sealer:
    """A derived key in use, and the bytes that tell which: key id and salt."""

    gcm: AESGCM
    place: bytes
    left: int = _SEALS_A_SALT


class Cipher:
    """Seals with the first of `keys`, opens with all. Thread-safe; goes on in a forked child.

    `seals` False: what is written from now on is plain, what was sealed still opens.
    `tier` is the name that errors give.
    """

    def __init__(self, keys: Sequence[bytes], tier: str = "store", *, seals: bool = True) -> None:
        self._keys = {_id_of(key): key for key in keys}
        self.ids = tuple(key_id.hex() for key_id in self._keys)
        self.seals, self._tier = seals, tier
        self._first = _id_of(keys[0])
        self._mark_keys = {
            key_id.hex(): _derived(key, b"", b"marks") for key_id, key in self._keys.items()
        }
        self._sealers: dict[str, _Sealer] = {}
        self._openers: dict[tuple[str, bytes], AESGCM] = {}
        self._marks: dict[tuple[str, str], tuple[str, ...]] = {}

    def seal(self, purpose: str, name: bytes, data: bytes) -> bytes:
        """`data`, readable only as what `purpose` keeps under `name`."""
        sealer = self._sealers.get(purpose)
        if sealer is None or sealer.left <= 0:
            sealer = self._new_sealer(purpose)
        sealer.left -= 1  # threads may miscount a little: the bound is 4,000 times lower than need
        nonce = os.urandom(_NONCE)
        return b"".join((sealer.place, nonce, sealer.gcm.encrypt(nonce, data, name)))

    def seal_into(self, purpose: str, name: bytes, data: memoryview, into: memoryview) -> None:
        """`seal`, written to `into`, which is `OVERHEAD` bytes longer than `data`: no copy."""
        sealer = self._sealers.get(purpose)
        if sealer is None or sealer.left <= 0:
            sealer = self._new_sealer(purpose)
        sealer.left -= 1
        nonce = os.urandom(_NONCE)
        into[:_BODY_AT] = sealer.place + nonce
        sealer.gcm.encrypt_into(nonce, data, name, into[_BODY_AT:])

    def open(self, purpose: str, name: bytes, sealed: bytes) -> bytes:
        """Raises UnknownKey, and CorruptEntry for bytes that were not sealed so."""
        opener = self._opener(purpose, sealed[:_NONCE_AT])
        try:
            return opener.decrypt(sealed[_NONCE_AT:_BODY_AT], sealed[_BODY_AT:], name)
        except (InvalidTag, ValueError) as error:  # ValueError: too short to be anything
            raise CorruptEntry(self._tier, f"decrypting: this is no sealed {purpose}") from error

    def open_into(self, purpose: str, name: bytes, sealed: memoryview, into: memoryview) -> None:
        """`open`, written to `into`, which is `OVERHEAD` bytes shorter than `sealed`. Where it
        raises, what `into` holds is not to be used.
        """
        opener = self._opener(purpose, bytes(sealed[:_NONCE_AT]))
        try:
            opener.decrypt_into(sealed[_NONCE_AT:_BODY_AT], sealed[_BODY_AT:], name, into)
        except (InvalidTag, ValueError) as error:
            raise CorruptEntry(self._tier, f"decrypting: this is no sealed {purpose}") from error

    def marks(self, kind: str, text: str) -> tuple[str, ...]:
        """What stands for `text` in an index, under each key, the first key's first.

        Keyed BLAKE3: equal texts of one kind have equal marks, which tell nothing else of them to
        whoever lacks the key.
        """
        known = self._marks.get((kind, text))
        if known is None:
            said = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
            known = tuple(
                f"~{key_id}~{blake3(said, key=key).hexdigest(length=_MARK_BYTES)}"
                for key_id, key in self._mark_keys.items()
            )
            if len(self._marks) >= _MOST_MARKS:
                self._marks.clear()
            self._marks[kind, text] = known
        return known

    def is_first(self, sealed: bytes) -> bool:
        """Whether `sealed` was sealed with the first key."""
        return sealed[:_ID] == self._first

    @property
    def first_id(self) -> bytes:
        """What the first key is told by: the first bytes of what it seals."""
        return self._first

    def _new_sealer(self, purpose: str) -> _Sealer:
        salt = os.urandom(_SALT)
        key = _derived(self._keys[self._first], salt, purpose.encode())
        sealer = self._sealers[purpose] = _Sealer(AESGCM(key), self._first + salt)
        return sealer

    def _opener(self, purpose: str, place: bytes) -> AESGCM:
        return self._openers.get((purpose, place)) or self._new_opener(purpose, place)

    def _new_opener(self, purpose: str, place: bytes) -> AESGCM:
        key = self._keys.get(place[:_ID])
        if key is None or len(place) < _NONCE_AT:
            shown = place[:_ID].hex() or "?"
            raise UnknownKey(self._tier, f"decrypting what was encrypted with key {shown}")
        opener = AESGCM(_derived(key, place[_ID:], purpose.encode()))
        if len(self._openers) >= _MOST_DERIVED:
            self._openers.clear()
        self._openers[purpose, place] = opener
        return opener


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt or None, _CONTEXT + purpose).derive(key)


def _id_of(key: bytes) -> bytes:
    """By which keys are told apart; it tells nothing of the key."""
    return _derived(key, b"", b"key id")[:_ID]
