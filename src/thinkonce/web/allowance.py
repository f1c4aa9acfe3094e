"""How many requests a client may make: a bucket fills evenly, and each takes one out of it."""

from __future__ import annotations

from math import ceil

from thinkonce.clock import Clock

__all__ = ("Allowance",)


class Allowance:
    """`per_minute` requests in the long run, and as many at once after a quiet minute.

    Belongs to one event loop.
    """

    __slots__ = ("_at", "_clock", "_left", "per_minute")

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute, self._clock = per_minute, clock
        self._left, self._at = float(per_minute), clock.monotonic()

    def has_one(self) -> bool:
        """Whether `take` would give one."""
        now = self._clock.monotonic()
        gained = (now - self._at) * self.per_minute / 60
        self._left, self._at = min(self._left + gained, float(self.per_minute)), now
        return self._left >= 1

    def take(self) -> bool:
        if not self.has_one():
            return False
        self._left -= 1
        return True

    def seconds_to_one(self) -> int:
        """Whole seconds until there is one again; at least 1."""
        self.has_one()
        return max(ceil((1 - self._left) * 60 / self.per_minute), 1)
