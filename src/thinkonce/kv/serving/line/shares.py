"""What each tenant has had of the model, in work; who had least is served next.

A virtual counter a tenant, as in Sheng et al., "Fairness in Serving Large Language Models"
(OSDI 2024), which carries start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) over to
tokens: a tenant that comes back begins where those who are served are, so that nobody saves up
turns. Work is counted as it is done: tokens that were loaded cost nothing.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ("MADE_WORK", "Shares")

# A token of an answer takes a forward pass of its own, a prompt's come many in one: on a CPU one
# takes as long as several of those; so many is an estimate, not a measurement.
MADE_WORK = 6

# Tenants that are gone are remembered only while they are ahead, and the furthest ahead longest.
_MOST_TENANTS = 1024


class Shares:
    """Counters of tenants. Not thread-safe."""

    def __init__(self) -> None:
        self._work: dict[str, float] = {}
        self._now = 0.0  # the counter of whoever was served last, when its turn came

    def arrive(self, tenant: str) -> None:
        """A job of this tenant waits from now on."""
        self._work[tenant] = max(self._work.get(tenant, 0.0), self._now)

    def charge(self, tenant: str, read: int, made: int) -> None:
        """So many tokens of prompts were computed for it, and of answers made."""
        self._work[tenant] = self._work.get(tenant, self._now) + read + MADE_WORK * made

    def least(self, tenants: Collection[str]) -> str:
        """Whose turn it is of `tenants`, at least one; of equals the first."""
        chosen = min(tenants, key=lambda tenant: self._work.get(tenant, self._now))
        self._now = max(self._now, self._work.get(chosen, self._now))
        return chosen

    def forget(self, here: Collection[str]) -> None:
        """Drop counters that say nothing any more; tenants that are `here` keep theirs."""
        if not here:
            self._now = max(self._work.values(), default=self._now)
        gone = [tenant for tenant in self._work if tenant not in here]
        gone.sort(key=lambda tenant: self._work[tenant])
        beyond = len(self._work) - _MOST_TENANTS
        for place, tenant in enumerate(gone):
            if place < beyond or self._work[tenant] <= self._now:
                del self._work[tenant]
