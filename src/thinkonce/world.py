"""What the worlds that carry out the flow's steps have in common: tiers, flights, renewals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from thinkonce.entry import Entry
from thinkonce.flights.singleflight import Flights, Landing, Seat
from thinkonce.outcome import Reason
from thinkonce.steps import Ask, Made, Setting
from thinkonce.tiers.tier import Tier

__all__ = ("MAX_RENEWALS", "MEANING", "World", "land", "renewal_of", "tell_failure")

log = logging.getLogger("thinkonce")

# Calls of background renewals under way at once, per cache; beyond that stale answers stay stale
# longer.
MAX_RENEWALS = 8
FLIGHTS = "flights"  # the names under which failures of the flight table are counted,
MEANING = "meaning"  # and of comparing questions


class World:
    """`tier_failed` is told the tier's name and the error."""

    def __init__(
        self,
        setting: Setting,
        flights: Flights,
        tier_failed: Callable[[str, Exception], None],
    ) -> None:
        self.setting, self.flights, self.tier_failed = setting, flights, tier_failed
        self.renewals: dict[Hashable, object] = {}  # key -> the thread or task that renews it
        self.closed = False

    def look(self, tier: Tier, ask: Ask, peek: bool) -> Entry | None:
        assert ask.key is not None
        try:
            return tier.peek(ask.key) if peek else tier.get(ask.key)
        except Exception as error:
            self._note_failure(tier, ask, error)
            return None

    def lacks(self, tier: Tier, ask: Ask) -> bool:
        """Whether a look would find nothing, where that is known without a wait."""
        assert ask.key is not None
        try:
            return tier.lacks(ask.key)
        except Exception:  # then it is looked into, and what is wrong is counted
            return False

    def keep(self, tier: Tier, ask: Ask, entry: Entry) -> None:
        assert ask.key is not None
        try:
            tier.put(ask.key, entry)
        except Exception as error:
            self._note_failure(tier, ask, error)

    def drop(self, tier: Tier, ask: Ask) -> None:
        """Remove what `ask` found in `tier`, because it is of no use. Never blocks."""
        assert ask.key is not None
        try:
            tier.doom(ask.key)
        except Exception as error:
            self._note_failure(tier, ask, error)

    def join(self, ask: Ask) -> Seat | None:
        try:
            return self.take_seat(ask)
        except Exception as error:
            self.tier_failed(FLIGHTS, error)
            return None

    def take_seat(self, ask: Ask) -> Seat:
        assert ask.key is not None
        key = ask.key
        return self.flights.join(key.local, lambda: key.digest)

    def may_renew(self, ask: Ask) -> bool:
        assert ask.key is not None
        known = ask.key.local in self.renewals
        return not (known or self.closed or self.calls_beside(ask) >= MAX_RENEWALS)

    def calls_beside(self, ask: Ask) -> int:
        """Calls that renewals make now, besides one that `ask` would share."""
        return len(self.renewals)

    def _note_failure(self, tier: Tier, ask: Ask, error: Exception) -> None:
        ask.trouble = True
        self.tier_failed(tier.name, error)


def renewal_of(ask: Ask) -> Ask | None:
    """What to ask in the background in place of `ask`; None if that needs its caller."""
    return ask if ask.renewal is None else ask.renewal(ask)


def land(seat: Seat, made: object) -> None:
    """End the call that `seat` leads. An answer to something else is no follower's: one of them
    leads then."""
    if isinstance(made, Made) and made.refused is Reason.CHANGED:
        seat.abandon()
    else:
        seat.land(made)


def tell_failure(ask: Ask, landing: Landing) -> None:
    # Nobody waits for a renewal, so its failure would otherwise be invisible.
    if landing.error is not None:
        name, what = type(landing.error).__name__, ask.meta.scope
        log.warning("%s: renewal failed: %s: %s", what, name, landing.error)
