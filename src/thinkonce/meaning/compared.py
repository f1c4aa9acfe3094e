"""How often questions were compared and what came of it, as numbers that can be added up."""

from __future__ import annotations

import msgspec

__all__ = ("Compared", "Promise")


class Compared(msgspec.Struct):
    """Sums since the start. Keys: how a hit was found; why there was none; what guards saw; why a
    question was not compared at all."""

    found: dict[str, int] = {}
    missed: dict[str, int] = {}
    vetoes: dict[str, int] = {}
    passed_over: dict[str, int] = {}


class Promise(msgspec.Struct, frozen=True):
    """Of one namespace: the share of wrong hits that audits have not excluded, and how many
    there were. What several processes say of it, they know from one store."""

    bound: float
    audits: int
    wrong: int

    def joined(self, other: Promise) -> Promise:
        """Who has seen more audits knows better."""
        return max(self, other, key=lambda each: (each.audits, each.bound))
