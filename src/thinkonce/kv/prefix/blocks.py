"""Names of blocks: 16 bytes that stand for a model, an owner, and all tokens up to a block's end.

    first    = H(fingerprint | tenant)
    block 0  = H(first   | salt | tokens [0, C))
    block 1  = H(block 0 | salt | tokens [C, 2C))        H = BLAKE2b, 16 bytes
                 16 B      16 B   C x 4 B, little-endian

Each input has a fixed width, so no two of them are alike by accident. Nothing of the process
enters, neither a seed nor an environment variable: the same text has the same names in every
process and after every restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack

from thinkonce.kv.prefix.fingerprint import digest_of_parts
from thinkonce.kv.prefix.owner import Owner

__all__ = ("BLOCK_ID_BYTES", "Block", "blocks_of", "first_parent", "packed", "salt_of")

BLOCK_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Block:
    """One full chunk of a prompt. `tokens` are its ids, packed: compared at every hit, so that
    a block is found by what it holds and not by a hash alone.
    """

    id: bytes
    parent: bytes
    tokens: bytes


def first_parent(fingerprint: bytes, tenant: str) -> bytes:
    """Where a tenant's chains begin: none of them meets another tenant's or another model's."""
    return _hash(fingerprint + tenant.encode())


def salt_of(owner: Owner) -> bytes:
    """Keeps apart what one tenant wants kept apart; the tenant comes first here too."""
    parts: tuple[str, ...] = (owner.tenant, owner.namespace, owner.cache_key)
    if owner.tags or owner.era:
        parts = (*parts, owner.era, *owner.tags)
    return digest_of_parts(parts, BLOCK_ID_BYTES)


def packed(tokens: Sequence[int]) -> bytes:
    """Four bytes a token, little-endian."""
    return pack(f"<{len(tokens)}I", *tokens)


def blocks_of(
    tokens: Sequence[int], chunk_tokens: int, fingerprint: bytes, owner: Owner
) -> Iterator[Block]:
    """The full chunks of a prompt, in order; what is left behind the last one has no name."""
    parent, salt = first_parent(fingerprint, owner.tenant), salt_of(owner)
    for start in range(0, len(tokens) - chunk_tokens + 1, chunk_tokens):
        held = packed(tokens[start : start + chunk_tokens])
        block = Block(_hash(parent + salt + held), parent, held)
        yield block
        parent = block.id


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=BLOCK_ID_BYTES).digest()
