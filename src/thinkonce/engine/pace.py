"""How fast an upstream's stream is read: no faster than those who want it take it.

A stream is read by everybody who follows the call. What nobody has taken yet is held, within a
bound; past half of it the upstream is left waiting until the slowest has taken some, as without a
cache between them. One who takes nothing for long does not hold up the others: past the bound he
is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from thinkonce.clock import Clock
from thinkonce.flights.flight import MAX_FEED_BYTES

__all__ = ("Pace",)

WINDOW = MAX_FEED_BYTES // 2  # bytes that may be published and not taken
STALL_SECONDS = 10.0  # who takes nothing for that long is not waited for, if others take


class Pace:
    """Of one call that this process makes. Belongs to one event loop.

    `renew` shows life to followers elsewhere; it is called at least every `renew_seconds`.
    """

    def __init__(self, clock: Clock, renew: Callable[[], None], renew_seconds: float) -> None:
        self._clock, self._renew, self._renew_seconds = clock, renew, renew_seconds
        self._published = 0
        self._taken: dict[object, int] = {}  # bytes, by who takes them
        self._moved_at: dict[object, float] = {}
        self._moved = asyncio.Event()

    def published(self, size: int) -> None:
        """So many bytes more can be taken: from now on, by who has taken all there was."""
        for rider, taken in self._taken.items():
            if taken == self._published:
                self._moved_at[rider] = self._clock.monotonic()
        self._published += size

    def took(self, rider: object, size: int) -> None:
        """`rider` has passed on so many bytes more; 0 for one who has just come."""
        self._taken[rider] = self._taken.get(rider, 0) + size
        self._moved_at[rider] = self._clock.monotonic()
        self._moved.set()

    def left(self, rider: object) -> None:
        self._taken.pop(rider, None)
        self._moved_at.pop(rider, None)
        self._moved.set()

    async def room(self) -> None:
        """Wait until there is room to read on, be it that the slowest takes nothing for long."""
        while self._behind() > WINDOW:
            self._moved.clear()
            # Not wait_for: Python 3.11's loses a cancellation that comes with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._renew_seconds, STALL_SECONDS)):
                    await self._moved.wait()
            self._renew()

    def _behind(self) -> int:
        """Bytes that the slowest of those who are waited for has not taken."""
        behind = self._published - min(self._taken.values(), default=self._published)
        if behind <= WINDOW:
            return behind
        latest = self._clock.monotonic() - STALL_SECONDS
        waited_for = [
            taken
            for rider, taken in self._taken.items()
            if taken == self._published or self._moved_at[rider] >= latest
        ]
        # Where all stall, the one who got farthest must not lose his stream.
        return self._published - (min(waited_for) if waited_for else max(self._taken.values()))
