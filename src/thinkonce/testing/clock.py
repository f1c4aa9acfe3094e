"""A clock that stands still until a test moves it."""

from __future__ import annotations

from thinkonce.clock import Clock

__all__ = ("FakeClock",)


class FakeClock:
    """`clock` is what code under test gets. Starts at a day in 2023, monotonic at 1,000 s."""

    def __init__(self, wall: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._wall, self._monotonic = wall, monotonic
        self.clock = Clock(wall=lambda: self._wall, monotonic=lambda: self._monotonic)

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError(f"time does not run back ({seconds} s); jump_wall sets the wall clock")
        self._wall += seconds
        self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self._wall += seconds
