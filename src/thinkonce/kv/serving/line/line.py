"""Who waits for the model, and who of them is next.

Between tenants: whoever had least of the model so far (`shares.py`). Of one tenant's: the request
of whose prompt most is in memory, so that requests which share a prefix follow the one that
computed it; of equals the oldest, and one that waited `patience` seconds before all others. That
is the longest prefix match under a fair share of Cao et al., "Locality-aware Fair Scheduling in
LLM Serving" (2025), with an age limit in place of a deficit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from thinkonce.kv.serving.line.shares import Shares

__all__ = ("Demand", "Line", "Waiting")


@dataclass(frozen=True, slots=True)
class Demand:
    """What the line knows of a request: whose it is, how many `tokens` its prompts have, and how
    many of them are `known` at the moment it is called.
    """

    tenant: str = ""
    tokens: int = 0
    known: Callable[[], int] = lambda: 0


class Waiting(Protocol):
    """What waits. `since` in seconds of the line's clock."""

    @property
    def demand(self) -> Demand: ...

    @property
    def since(self) -> float: ...


_One = TypeVar("_One", bound=Waiting)


class Line(Generic[_One]):
    """Bounded in requests and in tokens of their prompts. Not thread-safe.

    An empty line takes a request of any size, since nothing would ever let it in otherwise.
    """

    def __init__(self, max_tokens: int, patience: float) -> None:
        self.max_tokens, self._patience = max_tokens, patience
        self._all: list[_One] = []  # in the order they came
        self.shares = Shares()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[_One]:
        """Oldest first."""
        return iter(self._all)

    @property
    def tokens(self) -> int:
        return sum(one.demand.tokens for one in self._all)

    def add(self, one: _One) -> None:
        """Behind those that came before it."""
        self.shares.arrive(one.demand.tenant)
        self._all.append(one)
        self._all.sort(key=lambda each: each.since)  # it may have waited before

    def remove(self, one: _One) -> bool:
        """False where it does not wait."""
        if one not in self._all:
            return False
        self._all.remove(one)
        return True

    def has_room(self, tokens: int) -> bool:
        """Whether a prompt of so many tokens may wait, too."""
        return not self._all or self.tokens + tokens <= self.max_tokens

    def next(self, now: float, excluded: Collection[str] = ()) -> _One | None:
        """Take out whose turn it is; None where all that wait are of `excluded` tenants."""
        tenants = dict.fromkeys(one.demand.tenant for one in self._all)
        eligible = [tenant for tenant in tenants if tenant not in excluded]
        if not eligible:
            return None
        tenant = self.shares.least(eligible)
        chosen = self._of(tenant, now)
        self._all.remove(chosen)
        return chosen

    def to_push_out(self, tenant: str) -> _One | None:
        """The newest request of the tenant with most of them, where `tenant` has fewer still
        with one more: one client that fills the line does not shut out the others.
        """
        counts = Counter(one.demand.tenant for one in self._all)
        if not counts:
            return None
        longest, count = counts.most_common(1)[0]
        if count <= counts[tenant] + 1:
            return None
        return next(one for one in reversed(self._all) if one.demand.tenant == longest)

    def _of(self, tenant: str, now: float) -> _One:
        theirs = [one for one in self._all if one.demand.tenant == tenant]
        if len(theirs) == 1 or now - theirs[0].since >= self._patience:
            return theirs[0]
        return max(theirs, key=lambda one: one.demand.known())
