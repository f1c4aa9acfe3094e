"""Anything that can remember. What every tier promises is in `testing/tier_contract.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from thinkonce.entry import Entry
from thinkonce.selector import Purge, Selector
from thinkonce.sums import SumRow

__all__ = (
    "Fold",
    "Key",
    "Ledger",
    "Question",
    "Questions",
    "StoreTier",
    "Sums",
    "Tier",
    "TierStats",
)


class Key:
    """A key in its two forms: `local` inside this process, `digest` everywhere else.

    The digest (keyed BLAKE3, 32 bytes) is computed at first use: a memory-only cache never
    needs it. Not thread-safe in that two threads may compute it twice; both get equal bytes.
    """

    __slots__ = ("_digest", "_make", "local")

    def __init__(self, local: Hashable, make_digest: Callable[[], bytes] | bytes) -> None:
        self.local = local
        self._digest = make_digest if isinstance(make_digest, bytes) else b""
        self._make = make_digest

    @property
    def digest(self) -> bytes:
        if not self._digest:
            assert not isinstance(self._make, bytes)
            self._digest = self._make()
        return self._digest


class TierStats(msgspec.Struct, omit_defaults=True):
    """Counts since the tier was opened, and what it holds now.

    `errors` are those that nobody was told of: rows found corrupt, writes in the background that
    failed. A `TierError` is counted by whoever it was raised to.
    """

    entries: int = 0
    bytes: int = 0
    evictions: dict[str, int] = {}  # reason -> count
    dropped_writes: int = 0
    errors: int = 0


class Tier(Protocol):
    """Thread-safe. Every method may raise `TierError`; the caller treats that as a miss.

    `get` returns entries that are expired but not yet gone: freshness is the flow's business.
    It never returns a corrupt entry, nor one whose `gone_at` has passed. `put` may defer the
    write; it never blocks on a disk or a network. Entries handed out belong to the tier's
    process: treat them as read-only.
    """

    name: str
    persistent: bool

    def get(self, key: Key) -> Entry | None: ...

    def peek(self, key: Key) -> Entry | None:
        """What `get` would give, without noting a use of it."""
        ...

    def lacks(self, key: Key) -> bool:
        """Whether it is certain that `get` would find nothing. Never blocks, never raises."""
        ...

    def put(self, key: Key, entry: Entry) -> None: ...

    def delete(self, key: Key) -> bool: ...

    def doom(self, key: Key) -> None:
        """Remove what is of no use: gone for gets at once, from a disk later. Never blocks."""
        ...

    def purge(self, purge: Purge) -> int:
        """Remove what `purge` concerns, also from writes not yet carried out."""
        ...

    def entries(self, selector: Selector, limit: int, after: bytes = b"") -> Iterator[Entry]:
        """Entries in order of digest, beginning after `after`."""
        ...

    def stats(self) -> TierStats: ...

    def flush(self, timeout: float) -> bool:
        """Wait until deferred writes are durable; False if `timeout` seconds passed first."""
        ...

    def close(self) -> None: ...


# Puts small names of a dimension together; returns those that went.
Fold = Callable[[dict[str, list[int]], str], list[str]]


class Sums(Protocol):
    """Numbers that are added up over processes and restarts: what was saved."""

    def add(self, rows: Iterable[SumRow], fold: Fold) -> None:
        """All of it or, where it raises TierError, none. `fold` keeps the names few."""
        ...

    def read(self) -> list[SumRow]:
        """Raises TierError."""
        ...


class Question(NamedTuple):
    """What the entry under `digest` is found by, as `Hint` has it; empty where it is not known.

    `row` rises with every write to a partition, whoever writes.
    """

    row: int
    digest: bytes
    embedder: str
    vector: bytes
    fingerprint: bytes
    member: bytes = b""


class Questions(Protocol):
    """The hints of stored entries, by partition. Every method may raise TierError.

    A row lasts as long as its entry does, and is there as soon as the entry is durable.
    """

    def newer(self, partition: bytes, row: int, limit: int) -> list[Question]:
        """Up to `limit` rows behind `row`, in the order they were written."""
        ...

    def older(self, partition: bytes, row: int, limit: int) -> list[Question]:
        """Up to `limit` rows before `row`, the newest first."""
        ...

    def digests(self, partition: bytes) -> set[bytes]:
        """Of all rows of a partition."""
        ...

    def of(self, digest: bytes) -> Question | None:
        """That of one entry."""
        ...

    def renew(self, embedder: str, vectors: Iterable[tuple[bytes, bytes]]) -> int:
        """Give entries, by digest, a vector of `embedder`; how many of them were still there."""
        ...


class Ledger(Protocol):
    """What is learned of answers while they are served, by group and name, of all processes."""

    def read(self, group: str, name: bytes | None = None) -> dict[bytes, bytes]:
        """By name; `name` None: all of the group. Raises TierError."""
        ...

    def groups(self) -> list[str]:
        """Of all groups that have a head, b"", the names. Raises TierError."""
        ...

    def update(
        self,
        group: str,
        names: Collection[bytes],
        change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]],
    ) -> None:
        """Read `names`, have them changed, and write what `change` gives, at one go.

        All of it or, where it raises TierError, none. Of a group so many names are kept, those
        written last; b"" always is.
        """
        ...


class StoreTier(Tier, Protocol):
    """A tier that outlives the process, within a bound that may change while it runs."""

    @property
    def savings(self) -> Sums: ...

    @property
    def questions(self) -> Questions: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def max_bytes(self) -> int:
        """Bytes it may take."""
        ...

    def resize(self, max_bytes: int) -> None: ...

    def bytes_of(self, tenant: str) -> int:
        """Bytes that the entries of `tenant` take. Raises TierError."""
        ...

    def counted(self) -> TierStats:
        """What `stats` counts since the tier was opened, at once: no `entries`, no `bytes`."""
        ...
