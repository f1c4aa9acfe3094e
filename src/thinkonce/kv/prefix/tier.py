"""Where blocks lie that are not in memory: what any such place can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from thinkonce.kv.prefix.blocks import Block

__all__ = ("BlockTier", "TierStats")


@dataclass(frozen=True, slots=True)
class TierStats:
    """Now `blocks` take `bytes` of `max_bytes`; the rest counts since the tier was opened.

    `dropped`: blocks not written, because the queue was full or the place failed. `damaged`: of
    those found, not what was written. `failures`: reads and writes that the system refused.
    """

    blocks: int = 0
    bytes: int = 0
    max_bytes: int = 0
    written: int = 0
    evicted: int = 0
    dropped: int = 0
    damaged: int = 0
    failures: int = 0


class BlockTier(Protocol):
    """Thread-safe. Nothing here raises for a place that fails: then nothing is found.

    A block's state is bytes; whoever asks knows their shape. What `load` gives is what was
    offered, to the bit, or None.
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

    def offer(self, block: Block, state: memoryview) -> bool:
        """Keep a block, some time after this has returned; False where it will not be.

        `state` must stay as it is until it is written.
        """
        ...

    def used(self, blocks: Sequence[Block]) -> None:
        """A request used this path, from the root on."""
        ...

    def forget(self, ids: Iterable[bytes] | None = None) -> int:
        """Find these blocks no more, or none of this model; how many there were.

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
