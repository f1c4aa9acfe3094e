"""How many further attempts a pool may be asked for, so that retries cannot become a storm.

Every request earns a share of an attempt and every further attempt costs a whole one. A pool that
fails for everybody is then asked little more often than there are requests, however many each of
them would like to make. A reserve lets the few requests of a quiet hour be tried again.
"""

from __future__ import annotations

__all__ = ("RESERVE", "Budget")

# Attempts that a pool begins with, and the most it can save up.
RESERVE = 10.0


class Budget:
    """Belongs to one event loop. `share`: further attempts for each request, in the long run."""

    __slots__ = ("_left", "_share")

    def __init__(self, share: float) -> None:
        self._share, self._left = share, RESERVE if share > 0 else 0.0

    @property
    def left(self) -> float:
        return self._left

    def earn(self) -> None:
        """A request begins."""
        self._left = min(self._left + self._share, RESERVE)

    def spend(self) -> bool:
        """Whether one further attempt may be made; it is counted."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
