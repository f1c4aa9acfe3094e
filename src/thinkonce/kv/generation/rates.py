"""What reading and loading have taken so far: which of the two is sooner done."""

from __future__ import annotations

__all__ = ("Rates",)

_SHARE = 0.2  # of the newest measurement in the mean


class Rates:
    """Seconds a token, exponentially averaged. Not thread-safe; 0: not measured yet."""

    def __init__(self) -> None:
        self.prefill = self.load = 0.0

    def read(self, tokens: int, seconds: float) -> None:
        """So many tokens went through the model."""
        self.prefill = _averaged(self.prefill, seconds / tokens)

    def loaded(self, tokens: int, seconds: float) -> None:
        self.load = _averaged(self.load, seconds / tokens)

    def load_is_sooner(self) -> bool:
        """True as well while one of the two was never measured."""
        return not self.prefill or self.load < self.prefill


def _averaged(before: float, now: float) -> float:
    return now if not before else before + _SHARE * (now - before)
