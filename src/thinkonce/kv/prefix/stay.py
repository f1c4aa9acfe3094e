"""How long a block stays, wherever it lies: the life and the priority of requests in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, NamedTuple, TypeVar

from thinkonce.kv.prefix.terms import PRIORITIES, Terms

__all__ = ("MEDIUM", "NOT_ASKED", "Raised", "Stay", "stay_on")

_WEIGHTS = {name: place for place, name in enumerate(PRIORITIES)}
MEDIUM = _WEIGHTS["medium"]
"""The weight of what nobody said anything of."""
_SHARE = 0.25  # what one tenant may raise above it: of the memory, and of the disk

Tenant = TypeVar("Tenant", bound=Hashable)


class Stay(NamedTuple):
    """`expires` in seconds of the monotonic clock, inf: when room is needed. Of two blocks the one
    of smaller `weight` goes first.
    """

    expires: float = inf
    weight: int = MEDIUM

    def or_longer(self, other: Stay) -> Stay:
        """The longest life and the highest priority that anybody asked for."""
        return Stay(max(self.expires, other.expires), max(self.weight, other.weight))

    def covers(self, other: Stay) -> bool:
        """Whether that asks for nothing more."""
        return self.expires >= other.expires and self.weight >= other.weight


NOT_ASKED = Stay(-inf, 0)
"""Of a block that no request has let go of yet."""


def stay_on(terms: Terms, now: float) -> Stay:
    """What these terms ask for a block that is used now, by the monotonic clock."""
    expires = inf if terms.life is None else now + terms.life
    return Stay(expires, _WEIGHTS[terms.priority])


class Raised(Generic[Tenant]):
    """What each tenant has raised above `medium`, in bytes. Not thread-safe.

    `block` tells whose it is and its bytes, and is called only where that counts.
    """

    def __init__(self) -> None:
        self._bytes: Counter[Tenant] = Counter()

    def allowed(
        self, before: int, asked: int, block: Callable[[], tuple[Tenant, int]], room: int
    ) -> int:
        """The weight that it may have: `asked`, or `medium` where its tenant has raised as much of
        `room` bytes as it may.
        """
        if asked <= MEDIUM or before > MEDIUM:
            return asked
        tenant, size = block()
        return asked if self._bytes[tenant] + size <= _SHARE * room else MEDIUM

    def changed(self, before: int, after: int, block: Callable[[], tuple[Tenant, int]]) -> None:
        """It has that weight now; 0: it is gone."""
        change = (after > MEDIUM) - (before > MEDIUM)
        if change:
            tenant, size = block()
            self._bytes[tenant] += change * size
            if not self._bytes[tenant]:
                del self._bytes[tenant]
