"""How a prompt comes into a slab: the seam behind which a way of reusing attention state lies.

Slabs, decoding and counts are the generator's (`reusing.py`), blocks are `keeping.py`'s. A reader
says which prompts are its own, and fills the slab with their keys and values, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.causes import Explained
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.terms import USUAL, Terms

__all__ = ("Asking", "Reader", "Reads")

Reads = Generator[Read, None, Reading | None]
"""A step a forward pass; None at the end where the caller left meanwhile."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A prompt that is to be read, for whom and on which terms. `is_ahead`: for requests that are
    to come; then its full blocks alone are read, and it counts as nobody's.
    """

    prompt: Prompt
    owner: Owner = NOBODY
    terms: Terms = USUAL
    is_ahead: bool = False


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
