"""Where blocks lie that are not in memory: what any such place can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.terms import USUAL, Terms

__all__ = ("BlockTier", "Purged", "TierStats")


@dataclass(frozen=True, slots=True)
class TierStats:
    """Now `blocks` take `bytes` of `max_bytes`; the rest counts since the tier was opened.

    `dropped`: blocks not written, because the queue was full or the place failed. `damaged`: of
    those found, not what was written. `failures`: reads and writes that the system refused.
    `expired` and `purged` ones are not among the `evicted`.
    """

    blocks: int = 0
    bytes: int = 0
    max_bytes: int = 0
    written: int = 0
    evicted: int = 0
    dropped: int = 0
    damaged: int = 0
    failures: int = 0
    expired: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge took: so many `blocks`, of `bytes` together, of which `bytes_left` still lie
    there: in a place that could not be written, or that another process has yet to give up.
    """

    blocks: int = 0
    bytes: int = 0
    bytes_left: int = 0


class BlockTier(Protocol):
    """Thread-safe. Nothing here raises for a place that fails: then nothing is found.

    A block's state is bytes; whoever asks knows their shape. What `load` gives is what was
    offered, to the bit, or None. What nobody used for as long as it was to live is not there.
    """

    def known(self, blocks: Sequence[Block]) -> int:
        """How many of `blocks`, from the first on, are there; their contents are not looked at."""
        ...

    def following(self, parent: bytes, most: int) -> list[Block]:
        """At most so many of the blocks that follow that one, whoever's they are; for explaining.

        Their tokens are as they are written, not checked against the digest.
        """
        ...

    def load(self, block: Block) -> memoryview | None: ...

    def is_marked(self, block: Block, owner: Owner) -> bool:
        """Whether somebody marked what it says as a document that `owner` is not marked with."""
        ...

    def offer(
        self, block: Block, state: memoryview, owner: Owner = NOBODY, terms: Terms = USUAL
    ) -> bool:
        """Keep a block on these terms at least, some time after this has returned; False where
        it will not be.

        `state` must stay as it is until it is written. `owner`: whose it is, for purges.
        """
        ...

    def used(self, blocks: Sequence[Block], terms: Terms = USUAL) -> None:
        """A request used this path, from the root on: their life begins anew. Of those that
        several requests use the longest life and the highest priority count.
        """
        ...

    def purge(self, rule: PurgeRule) -> Purged:
        """Find no block more of the owners for whom `rule` holds, and erase their bytes.

        It holds as `forget` does. It waits until they are erased, some seconds at most. Blocks
        of which nobody knows whose they are go too.
        """
        ...

    def forget(self, ids: Iterable[bytes] | None = None) -> int:
        """Find these blocks no more, or none of this model, and erase them; how many there were.

        It holds here at once, after a restart once `flush` has returned, and in other processes
        when they look the next time. What lies behind a block that is gone is of no use.
        """
        ...

    def stats(self) -> TierStats: ...

    def flush(self, timeout: float) -> bool:
        """Wait until all that was offered is written, or given up; False if it took too long."""
        ...

    def close(self) -> None:
        """Write what was offered, and let go of the place. Idempotent."""
        ...
