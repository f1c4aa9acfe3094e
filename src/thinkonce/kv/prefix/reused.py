"""What of prompts was not computed: tokens, by the method that reused them and by tier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ("NOTHING", "Reused")


@dataclass(frozen=True, slots=True)
class Reused:
    """`tokens` by method ("exact", "link", ...) and tier ("memory", "disk"). Of chunks that were
    moved, `recomputed` tokens were computed again; those count as computed. `is_exact`: the answer
    is what it would be had nothing been kept.
    """

    tokens: Mapping[tuple[str, str], int] = field(default_factory=dict)
    recomputed: int = 0
    is_exact: bool = True

    @classmethod
    def exactly(cls, memory: int, disk: int, *, is_exact: bool = True) -> Reused:
        """Of a prefix; `is_exact`: it was kept to the bit."""
        tokens = {("exact", "memory"): memory, ("exact", "disk"): disk}
        return cls(tokens, is_exact=is_exact or not memory + disk)

    @property
    def total(self) -> int:
        return sum(self.tokens.values())

    def on(self, tier: str) -> int:
        return sum(count for (_, its), count in self.tokens.items() if its == tier)

    @property
    def by_method(self) -> dict[str, int]:
        """In all tiers; those of which there are any, and "exact"."""
        found = {"exact": 0}
        for (method, _), count in self.tokens.items():
            found[method] = found.get(method, 0) + count
        return found

    def __add__(self, other: Reused) -> Reused:
        keys = dict.fromkeys((*self.tokens, *other.tokens))
        tokens = {key: self.tokens.get(key, 0) + other.tokens.get(key, 0) for key in keys}
        recomputed = self.recomputed + other.recomputed
        return Reused(tokens, recomputed, self.is_exact and other.is_exact)

    @classmethod
    def sum(cls, each: Iterable[Reused]) -> Reused:
        found = cls()
        for one in each:
            found += one
        return found


NOTHING = Reused()
