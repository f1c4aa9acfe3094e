"""The prefix tree for people: blocks in a row that nothing tells apart are one branch.

A ── B ── C ── D          A..B  a system prompt, used by 12 requests
     └─── E ── F          C..D  and E..F  two conversations that begin with it
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.stay import MEDIUM
from thinkonce.kv.prefix.terms import PRIORITIES

__all__ = ("Branch", "Listed", "branches_of", "chain_as_told", "chain_to", "named")

_LEAST_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """One block. `memory` and `disk`: bytes that it takes there, 0 where it is not.

    `added`, `used`: seconds since it was kept and since somebody used it, as far as that is known;
    `hits`: times that it was found in memory; `left`: seconds until it expires, inf: never.
    """

    id: bytes
    parent: bytes
    tokens: int
    memory: int = 0
    disk: int = 0
    added: float | None = None
    used: float | None = None
    hits: int = 0
    left: float = inf
    weight: int = MEDIUM
    owner: Owner = NOBODY

    def with_disk(self, other: Listed) -> Listed:
        """The same block, in memory and on disk."""
        return Listed(
            self.id,
            self.parent,
            self.tokens,
            self.memory,
            other.disk,
            max(filter(None, (self.added, other.added)), default=None),
            self.used,
            self.hits,
            max(self.left, other.left),
            max(self.weight, other.weight),
            self.owner,
        )

    @property
    def kind(self) -> tuple[object, ...]:
        """What blocks of one branch have in common."""
        places = (self.memory > 0, self.disk > 0, self.weight, self.left == inf)
        return (*places, self.hits, self.owner)


class Branch(msgspec.Struct, kw_only=True):
    """Blocks in a row. `id` is the last one's, `parent` that of the branch before, "" for none.

    `start`: tokens before it; `depth`: branches. Bytes and seconds as of `Listed`: the oldest, the
    latest use, the shortest life. Names are in hex.
    """

    id: str
    parent: str
    depth: int
    start: int
    tokens: int
    blocks: int
    memory_bytes: int
    disk_bytes: int
    age: float | None
    used: float | None
    hits: int
    expires_in: float | None
    priority: str
    tenant: str
    namespace: str
    cache_key: str
    tags: tuple[str, ...]
    documents: tuple[str, ...]
    children: int


def branches_of(blocks: Mapping[bytes, Listed]) -> Iterator[Branch]:
    """Of all blocks by their names: each branch before those that go on from it, the latest used
    first. A block whose parent is not there begins one.
    """
    below: dict[bytes, list[Listed]] = defaultdict(list)
    for block in blocks.values():
        below[block.parent if block.parent in blocks else b""].append(block)
    waiting = [(block, 0, 0, "") for block in _ordered(below[b""])]
    while waiting:
        block, start, depth, parent = waiting.pop()
        row = [block]
        while len(after := below[row[-1].id]) == 1 and after[0].kind == block.kind:
            row.append(after[0])
        branch = _branch(row, start, depth, parent, len(after))
        yield branch
        end = start + branch.tokens
        waiting += [(each, end, depth + 1, branch.id) for each in _ordered(after)]


def chain_to(blocks: Mapping[bytes, Listed], name: bytes) -> list[Listed]:
    """From the first block that is there to that one."""
    found: list[Listed] = []
    at: bytes | None = name
    while at is not None and (block := blocks.get(at)) is not None:
        found.append(block)
        at = block.parent
    return found[::-1]


def chain_as_told(blocks: Mapping[bytes, Listed], name: bytes) -> dict[str, Any]:
    """A chain, each block with what is known of it."""
    chain = chain_to(blocks, name)
    (last,) = branches_of({name: chain[-1]})
    return {
        "id": last.id,
        "tokens": sum(block.tokens for block in chain),
        "age": last.age,
        "used": last.used,
        "hits": last.hits,
        "expires_in": last.expires_in,
        "priority": last.priority,
        "tenant": last.tenant,
        "namespace": last.namespace,
        "cache_key": last.cache_key,
        "tags": last.tags,
        "documents": tuple(sorted({name for block in chain for name in block.owner.documents})),
        "children": sum(block.parent == name for block in blocks.values()),
        "blocks": [_of_block(block) for block in chain],
    }


def named(blocks: Iterable[bytes], digits: str) -> list[bytes]:
    """The names that begin with these hex digits. Raises RequestError for what are none."""
    given = digits.lower()
    if len(given) < _LEAST_DIGITS or not set(given) <= set("0123456789abcdef"):
        accepts = f"{_LEAST_DIGITS} or more hex digits of a block's name"
        raise RequestError("block", digits[:100], accepts)
    return [name for name in blocks if name.hex().startswith(given)]


def _of_block(block: Listed) -> dict[str, Any]:
    return {
        "id": block.id.hex(),
        "tokens": block.tokens,
        "memory_bytes": block.memory,
        "disk_bytes": block.disk,
        "age": block.added,
        "used": block.used,
        "hits": block.hits,
    }


def _ordered(blocks: list[Listed]) -> list[Listed]:
    """Those used last come last: they are taken from the end."""
    return sorted(
        blocks, key=lambda block: (-(inf if block.used is None else block.used), block.id)
    )


def _branch(row: list[Listed], start: int, depth: int, parent: str, children: int) -> Branch:
    first = row[0]
    left = min(block.left for block in row)
    return Branch(
        id=row[-1].id.hex(),
        parent=parent,
        depth=depth,
        start=start,
        tokens=sum(block.tokens for block in row),
        blocks=len(row),
        memory_bytes=sum(block.memory for block in row),
        disk_bytes=sum(block.disk for block in row),
        age=max((block.added for block in row if block.added is not None), default=None),
        used=min((block.used for block in row if block.used is not None), default=None),
        hits=first.hits,
        expires_in=None if left == inf else left,
        priority=PRIORITIES[first.weight],
        tenant=first.owner.tenant,
        namespace=first.owner.namespace,
        cache_key=first.owner.cache_key,
        tags=first.owner.tags,
        documents=tuple(sorted({name for block in row for name in block.owner.documents})),
        children=children,
    )
