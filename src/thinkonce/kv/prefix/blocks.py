"""Names of blocks: 16 bytes that stand for a model, an owner, and all tokens up to a block's end.

    first    = H(fingerprint | tenant)
    block 0  = H(first   | salt | tokens [0, C))
    block 1  = H(block 0 | salt | tokens [C, 2C))        H = BLAKE2b, 16 bytes
                 16 B      16 B   C x 4 B, little-endian

Each input has a fixed width, so no two of them are alike by accident. Nothing of the process
enters, neither a seed nor an environment variable: the same text has the same names in every
process and after every restart.

A chunk that was encoded elsewhere than at a prompt's beginning has a chain of its own, whose first
parent is made in another domain of H and of what it was encoded behind: nothing approximate can
be found under a name of what is exact. Its last block may be short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack, unpack

from thinkonce.kv.prefix.fingerprint import digest_of_parts
from thinkonce.kv.prefix.owner import Owner

__all__ = (
    *("BLOCK_ID_BYTES", "Block", "blocks_of", "chunk_blocks", "chunk_parent", "first_parent"),
    *("length_of", "name_of", "named_behind", "packed", "part_of", "renamed", "salt_of"),
    "unpacked",
)

BLOCK_ID_BYTES = 16
_TOKEN_BYTES = 4
_CONTEXT_BYTES, _CHUNKS = 32, b"thinkonce chunk"


@dataclass(frozen=True, slots=True)
class Block:
    """One full chunk of a prompt. `tokens` are its ids, packed: compared at every hit, so that
    a block is found by what it holds and not by a hash alone.
    """

    id: bytes
    parent: bytes
    tokens: bytes

    @property
    def length(self) -> int:
        """In tokens."""
        return length_of(self.tokens)


def first_parent(fingerprint: bytes, tenant: str) -> bytes:
    """Where a tenant's chains begin: none of them meets another tenant's or another model's."""
    return _hash(fingerprint + tenant.encode())


def chunk_parent(fingerprint: bytes, tenant: str, context: str) -> bytes:
    """Where the chain of a tenant's chunk begins that was encoded in this context."""
    named = digest_of_parts((fingerprint.hex(), tenant, context), _CONTEXT_BYTES)
    return blake2b(named, digest_size=BLOCK_ID_BYTES, person=_CHUNKS).digest()


def salt_of(owner: Owner) -> bytes:
    """Keeps apart what one tenant wants kept apart; the tenant comes first here too."""
    parts: tuple[str, ...] = (owner.tenant, owner.namespace, owner.cache_key)
    if owner.tags or owner.era:
        parts = (*parts, owner.era, *owner.tags)
    return digest_of_parts(parts, BLOCK_ID_BYTES)


def packed(tokens: Sequence[int]) -> bytes:
    """Four bytes a token, little-endian."""
    return pack(f"<{len(tokens)}I", *tokens)


def unpacked(held: bytes) -> tuple[int, ...]:
    return unpack(f"<{length_of(held)}I", held)


def length_of(held: bytes) -> int:
    """How many tokens are packed there."""
    return len(held) // _TOKEN_BYTES


def part_of(held: bytes, start: int, end: int) -> bytes:
    """Of packed tokens those from number `start` up to `end`, as far as there are any."""
    return held[_TOKEN_BYTES * start : _TOKEN_BYTES * end]


def blocks_of(
    tokens: Sequence[int], chunk_tokens: int, fingerprint: bytes, owner: Owner
) -> Iterator[Block]:
    """The full chunks of a prompt, in order; what is left behind the last one has no name."""
    held, size = packed(tokens), chunk_tokens
    starts = range(0, len(tokens) - size + 1, size)
    return renamed((part_of(held, start, start + size) for start in starts), fingerprint, owner)


def chunk_blocks(
    tokens: Sequence[int], chunk_tokens: int, fingerprint: bytes, owner: Owner, context: str
) -> Iterator[Block]:
    """All of a text's tokens that was encoded in that context; the last block may be short."""
    held, size = packed(tokens), chunk_tokens
    cut = (part_of(held, start, start + size) for start in range(0, len(tokens), size))
    return named_behind(chunk_parent(fingerprint, owner.tenant, context), cut, owner)


def renamed(chunks: Iterable[bytes], fingerprint: bytes, owner: Owner) -> Iterator[Block]:
    """What these packed chunks of one prompt are called under a model and an owner."""
    return named_behind(first_parent(fingerprint, owner.tenant), chunks, owner)


def name_of(parent: bytes, salt: bytes, held: bytes) -> bytes:
    """The id of the block that has these packed tokens."""
    return _hash(parent + salt + held)


def named_behind(parent: bytes, chunks: Iterable[bytes], owner: Owner) -> Iterator[Block]:
    """What packed chunks are called that follow a block of this owner."""
    salt = salt_of(owner)
    for held in chunks:
        block = Block(name_of(parent, salt, held), parent, held)
        yield block
        parent = block.id


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=BLOCK_ID_BYTES).digest()
