"""What reading and loading have taken so far: which of the two is sooner done."""

from __future__ import annotations

__all__ = ("TRY_AGAIN", "Rate", "Rates")

_SHARE = 0.2  # of the newest measurement in the mean
TRY_AGAIN = 16
"""Every so many requests that could have loaded do, where computing was sooner done."""


class Rate:
    """Seconds a token, exponentially averaged; 0: not measured yet. Not thread-safe.

    `count` measurements took `seconds` together.
    """

    def __init__(self) -> None:
        self.a_token = self.seconds = 0.0
        self.count = 0

    def add(self, tokens: int, seconds: float) -> None:
        now = seconds / tokens
        self.a_token = now if not self.count else self.a_token + _SHARE * (now - self.a_token)
        self.count += 1
        self.seconds += seconds


class Rates:
    """`prefill`: tokens that went through the model. `load`: those that came from below memory."""

    def __init__(self) -> None:
        self.prefill, self.load = Rate(), Rate()
        self._turned_down = 0

    @property
    def load_is_slower(self) -> bool:
        """As far as it was measured."""
        return bool(self.prefill.count) and self.load.a_token >= self.prefill.a_token

    def load_is_sooner(self) -> bool:
        """True as well while one of the two was never measured, and now and then where it was
        not: what is never loaded is never measured again, and one load may have met a slow disk.
        """
        if not self.load_is_slower:
            return True
        self._turned_down += 1
        return self._turned_down % TRY_AGAIN == 0
