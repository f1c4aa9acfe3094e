"""One block in a file: whose it is, what it was made of, and its state.

    0    8   magic "TOBLOCK1"
    8   16   id           24  16  parent
    40   4   bytes of tokens      44   8  bytes of state
    52  16   BLAKE3 of all before, the tokens and the state
    68       tokens, then state

Numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Protocol

from blake3 import blake3

from thinkonce.kv.prefix.blocks import Block

__all__ = ("HEAD_BYTES", "PLAIN_KEY", "Form", "Plain")

_MAGIC = b"TOBLOCK1"
_HEAD = struct.Struct("<8s16s16sIQ")
_DIGEST_BYTES = 16
HEAD_BYTES = _HEAD.size + _DIGEST_BYTES


PLAIN_KEY = bytes(4)
"""In rows, in place of a key's id."""


class Form(Protocol):
    """How names and blocks are written. Thread-safe. `key` stands in the rows for which it is."""

    @property
    def key(self) -> bytes: ...

    def name(self, id: bytes) -> bytes:
        """16 bytes that stand for the block of that id in files."""
        ...

    def encoded(self, block: Block, state: memoryview) -> tuple[bytes | memoryview, ...]:
        """The parts of a record."""
        ...

    def state_in(self, record: memoryview, block: Block) -> memoryview | None:
        """The state of `block`; None for a record that is another's, or damaged."""
        ...

    def opens(self, key: bytes) -> bool:
        """Whether records that have that key in their rows can be read."""
        ...

    def again(self, record: memoryview) -> tuple[bytes | memoryview, ...] | None:
        """The parts of a record that another key of ours sealed, under the first; None for one
        that is damaged.
        """
        ...

    def block_in(self, beginning: memoryview) -> Block | None:
        """What block a record is of, from its beginning: of its state nothing is checked."""
        ...


class Plain:
    """Names and state as they are, with a digest."""

    key = PLAIN_KEY

    def name(self, id: bytes) -> bytes:
        return id

    def encoded(self, block: Block, state: memoryview) -> tuple[bytes | memoryview, ...]:
        head = _HEAD.pack(_MAGIC, block.id, block.parent, len(block.tokens), state.nbytes)
        return head + _digest(head, block.tokens, state) + block.tokens, state

    def state_in(self, record: memoryview, block: Block) -> memoryview | None:
        """In place, without a copy."""
        size = len(block.tokens)
        if len(record) < HEAD_BYTES + size:
            return None
        head, state = bytes(record[: _HEAD.size]), record[HEAD_BYTES + size :]
        expected = _HEAD.pack(_MAGIC, block.id, block.parent, size, state.nbytes)
        digest, tokens = record[_HEAD.size : HEAD_BYTES], record[HEAD_BYTES : HEAD_BYTES + size]
        is_whole = head == expected and tokens == block.tokens
        if not is_whole or digest != _digest(head, block.tokens, state):
            return None
        return state

    def opens(self, key: bytes) -> bool:
        return key == PLAIN_KEY

    def again(self, record: memoryview) -> tuple[bytes | memoryview, ...] | None:
        return (record,)

    def block_in(self, beginning: memoryview) -> Block | None:
        if len(beginning) < HEAD_BYTES:
            return None
        magic, id, parent, size, _ = _HEAD.unpack_from(beginning)
        if magic != _MAGIC or len(beginning) < HEAD_BYTES + size:
            return None
        return Block(id, parent, bytes(beginning[HEAD_BYTES : HEAD_BYTES + size]))


def _digest(head: bytes, tokens: bytes, state: memoryview) -> bytes:
    return blake3(head).update(tokens).update(state).digest(_DIGEST_BYTES)
