"""How often questions were compared and what came of it, as numbers that can be added up."""

from __future__ import annotations

import msgspec

__all__ = ("Compared", "Promise", "Promises", "worst")


class Compared(msgspec.Struct):
    """Sums since the start. Keys: how a hit was found; why there was none; what guards saw; why a
    question was not compared at all."""

    found: dict[str, int] = {}
    missed: dict[str, int] = {}
    vetoes: dict[str, int] = {}
    passed_over: dict[str, int] = {}


class Promise(msgspec.Struct, frozen=True):
    """Of one account: the share of wrong hits that audits have not excluded, and how many there
    were. What several processes say of it, they know from one store."""

    bound: float
    audits: int
    wrong: int

    def joined(self, other: Promise) -> Promise:
        """Who has seen more audits knows better."""
        return max(self, other, key=lambda each: (each.audits, each.bound))


# By namespace and by account: a namespace has one for each tenant and language.
Promises = dict[tuple[str, str], Promise]


def worst(promises: Promises) -> dict[str, Promise]:
    """By namespace, that of the tenant for which audits exclude least. One without audits says
    nothing, unless none has any."""
    found: dict[str, Promise] = {}
    for (namespace, _), each in promises.items():
        held = found.setdefault(namespace, each)
        found[namespace] = max(held, each, key=lambda one: (one.audits > 0, one.bound))
    return found
