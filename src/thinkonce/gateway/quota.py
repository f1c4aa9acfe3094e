"""How many bytes a tenant's answers may take.

What they take is measured where they lie, and what is kept since is added. An answer that leaves
is seen at the next measurement only: until then there seems to be less room than there is, never
more, apart from what other processes keep in the same minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf

from thinkonce.clock import Clock
from thinkonce.errors import TierError
from thinkonce.shelf import Shelf

__all__ = ("Quota", "held_by")

log = logging.getLogger("thinkonce")

# Measured again after so many seconds; sooner where there is no room any more.
EVERY, EVERY_WHEN_FULL = 60.0, 10.0


class Quota:
    """Belongs to one event loop; `measure` runs in a thread and may raise TierError."""

    def __init__(self, most: int, measure: Callable[[], int], clock: Clock) -> None:
        self.most = most
        self._measure, self._clock = measure, clock
        self._used = most  # nothing is kept before it is known
        self.refused = False  # what was last to be kept
        self._measured_at = -inf

    def has_room(self, size: int) -> bool:
        return self._used + size <= self.most

    def takes(self, size: int) -> bool:
        """Whether `size` bytes may be kept; they are counted."""
        self.refused = not self.has_room(size)
        if not self.refused:
            self._used += size
        return not self.refused

    async def refresh(self) -> bool:
        """Measure, if that was too long ago; whether it was measured."""
        now = self._clock.monotonic()
        if now - self._measured_at < (EVERY_WHEN_FULL if self.refused else EVERY):
            return False
        self._measured_at = now
        try:
            self._used = await asyncio.to_thread(self._measure)
        except TierError as error:
            log.warning("a quota goes by its last measurement: %s", error)
            return False
        return True


def held_by(shelf: Shelf, tenant: str) -> int:
    """Bytes that the entries of `tenant` take: in the store, or in memory where there is none."""
    if shelf.store is not None:
        return shelf.store.bytes_of(tenant)
    held = list(shelf.memory.map.values())  # in one step: another thread adds to it
    return sum(entry.size for entry in held if entry.meta.tenant == tenant)
