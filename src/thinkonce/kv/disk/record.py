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

from blake3 import blake3

from thinkonce.kv.prefix.blocks import Block

__all__ = ("HEAD_BYTES", "block_in", "encoded_head", "record_bytes", "state_in")

_MAGIC = b"TOBLOCK1"
_HEAD = struct.Struct("<8s16s16sIQ")
_DIGEST_BYTES = 16
HEAD_BYTES = _HEAD.size + _DIGEST_BYTES


def record_bytes(block: Block, state_bytes: int) -> int:
    return HEAD_BYTES + len(block.tokens) + state_bytes


def encoded_head(block: Block, state: memoryview) -> bytes:
    """All of the record but the state that follows."""
    head = _HEAD.pack(_MAGIC, block.id, block.parent, len(block.tokens), state.nbytes)
    return head + _digest(head, block.tokens, state) + block.tokens


def state_in(record: memoryview, block: Block) -> memoryview | None:
    """The state of `block`, in place; None for a record that is another's, or damaged."""
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


def block_in(beginning: memoryview) -> Block | None:
    """What block a record is of, from its beginning alone: nothing of it is checked."""
    if len(beginning) < HEAD_BYTES:
        return None
    magic, id, parent, size, _ = _HEAD.unpack_from(beginning)
    if magic != _MAGIC or len(beginning) < HEAD_BYTES + size:
        return None
    return Block(id, parent, bytes(beginning[HEAD_BYTES : HEAD_BYTES + size]))


def _digest(head: bytes, tokens: bytes, state: memoryview) -> bytes:
    return blake3(head).update(tokens).update(state).digest(_DIGEST_BYTES)
