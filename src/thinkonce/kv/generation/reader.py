"""How a prompt comes into a slab: the seam behind which a way of reusing attention state lies.

Slabs, decoding and counts are the generator's (`reusing.py`), blocks are `keeping.py`'s. A reader
says which prompts are its own, and fills the slab with their keys and values, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol

from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Explained

__all__ = ("Reader", "Reads")

Reads = Generator[Read, None, Reading | None]
"""A step a forward pass; None at the end where the caller left meanwhile."""


class Reader(Protocol):
    """Used by one thread, except where a method says otherwise."""

    def takes(self, asking: Asking) -> bool:
        """Whether this prompt is to be read in this way. From any thread."""
        ...

    def read(self, slab: Slab, asking: Asking, cancelled: Callable[[], bool]) -> Reads:
        """Fill a slab that has room; nothing in it counts before. `cancelled` is asked between
        steps. Closing the iterator frees what it holds.
        """
        ...

    def keepable(self, asking: Asking) -> int:
        """Tokens of the prompt that would be kept, were all of it read. From any thread."""
        ...

    def known(self, asking: Asking) -> Callable[[], int]:
        """What tells how many tokens would be loaded, in memory now, or below it when this was
        asked. From any thread; what it gives asks nothing of a disk.
        """
        ...

    def explain(self, asking: Asking, *, is_admin: bool = False) -> Explained:
        """What would be loaded now, and why not more. From any thread."""
        ...
