"""One block in a file, sealed: who has the folder and no key learns sizes and times alone.

    0    8   magic "TOBLOCK2"     8  16  name
    24   4   bytes of the prompt's part, sealed        28  8  bytes of the state, sealed
    36       id, parent and tokens, sealed; then the state, sealed

Numbers are little-endian. Both parts are sealed under the block's name, the state under the tag
of the other part too: neither opens for another block, nor beside another part.
"""

from __future__ import annotations

import struct

import numpy as np
from blake3 import blake3

from thinkonce.errors import CorruptEntry
from thinkonce.kv.prefix.blocks import BLOCK_ID_BYTES, Block
from thinkonce.tiers.cipher import OVERHEAD, Cipher

__all__ = ("Sealed",)

_MAGIC = b"TOBLOCK2"
_HEAD = struct.Struct("<8s16sIQ")
_TAG = 16
_PROMPT, _STATE = "kv prompt", "kv state"  # purposes
_NAMES = "thinkonce 2026-11-22 kv names"


class Sealed:
    """A `record.Form`. Names are keyed: ids could be guessed from a text and a tenant.

    `secret`: of the folder, which names go by; it outlives the keys of `cipher`.
    """

    def __init__(self, cipher: Cipher, secret: bytes) -> None:
        self._cipher = cipher
        self._key = blake3(secret, derive_key_context=_NAMES).digest()
        self.key = cipher.first_id

    def name(self, id: bytes) -> bytes:
        return blake3(id, key=self._key).digest(BLOCK_ID_BYTES)

    def opens(self, key: bytes) -> bool:
        return key.hex() in self._cipher.ids

    def encoded(self, block: Block, state: memoryview) -> tuple[bytes | memoryview, ...]:
        name = self.name(block.id)
        return self._encoded(name, block.id + block.parent + block.tokens, state)

    def state_in(self, record: memoryview, block: Block) -> memoryview | None:
        """In memory of its own."""
        name = self.name(block.id)
        found = self._opened(record)
        if found is None or found[0] != name:
            return None
        _, prompt, state = found
        return state if prompt == block.id + block.parent + block.tokens else None

    def block_in(self, beginning: memoryview) -> Block | None:
        if len(beginning) < _HEAD.size:
            return None
        magic, name, size, _ = _HEAD.unpack_from(beginning)
        if magic != _MAGIC or len(beginning) < _HEAD.size + size:
            return None
        try:
            prompt = self._cipher.open(
                _PROMPT, name, bytes(beginning[_HEAD.size : _HEAD.size + size])
            )
        except CorruptEntry:
            return None
        id, rest = prompt[:BLOCK_ID_BYTES], prompt[BLOCK_ID_BYTES:]
        return Block(id, rest[:BLOCK_ID_BYTES], rest[BLOCK_ID_BYTES:])

    def again(self, record: memoryview) -> tuple[bytes | memoryview, ...] | None:
        found = self._opened(record)
        return None if found is None else self._encoded(*found)

    def _encoded(
        self, name: bytes, prompt: bytes, state: memoryview
    ) -> tuple[bytes | memoryview, ...]:
        head = self._cipher.seal(_PROMPT, name, prompt)
        body = np.empty(state.nbytes + OVERHEAD, np.uint8).data
        self._cipher.seal_into(_STATE, name + head[-_TAG:], state, body)
        return _HEAD.pack(_MAGIC, name, len(head), len(body)), head, body

    def _opened(self, record: memoryview) -> tuple[bytes, bytes, memoryview] | None:
        """Name, prompt's part and state; None for a record that is none, or damaged."""
        if len(record) < _HEAD.size:
            return None
        magic, name, size, length = _HEAD.unpack_from(record)
        at = _HEAD.size + size
        if magic != _MAGIC or len(record) != at + length or length < OVERHEAD or size < OVERHEAD:
            return None
        head = bytes(record[_HEAD.size : at])
        state = np.empty(length - OVERHEAD, np.uint8).data
        try:
            prompt = self._cipher.open(_PROMPT, name, head)
            self._cipher.open_into(_STATE, name + head[-_TAG:], record[at:], state)
        except CorruptEntry:
            return None
        return name, prompt, state
