"""How often the judge of answers is mistaken, and what that makes of the error it reports.

With `a` the share of right pairs it calls wrong and `b` the share of wrong pairs it calls right:

    observed = a + true * (1 - a - b)        true = (observed - a) / (1 - a - b)

Both rates are known within limits only, from labelled pairs of answers. Each claim takes them at
the end that makes the claim harder.
"""

from __future__ import annotations

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.meaning.verdict.binomial import clopper_pearson

__all__ = ("Misjudgement", "measured")

LEAST_SKILL = 0.2  # 1 - a - b: a judge below this hardly tells right from wrong


class Misjudgement(msgspec.Struct, frozen=True):
    """Limits of `a` (`false_wrong`) and `b` (`missed`); none known: what is observed is taken as
    it is. Raises ConfigError for a judge too poor to draw conclusions from."""

    false_wrong: tuple[float, float] = (0.0, 0.0)
    missed: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        skill = 1.0 - self.false_wrong[1] - self.missed[1]
        if skill < LEAST_SKILL:
            accepts = f"a judge of answers that is mistaken less often (1 - a - b >= {LEAST_SKILL})"
            raise ConfigError("judge", f"1 - a - b = {skill:.2f}", accepts)

    def certify_at(self, error: float) -> float:
        """The observed rate below which the true error is surely below `error`."""
        low, high = self.false_wrong[0], self.missed[1]
        return low + error * (1.0 - low - high)

    def alarm_at(self, error: float) -> float:
        """The observed rate above which the true error is surely above `error`."""
        high, low = self.false_wrong[1], self.missed[0]
        return high + error * (1.0 - high - low)

    def corrected(self, observed: float) -> float:
        """The largest true error that an observed rate allows."""
        low, high = self.false_wrong[0], self.missed[1]
        return min(1.0, max(0.0, (observed - low) / (1.0 - low - high)))


def measured(
    right_pairs: int, called_wrong: int, wrong_pairs: int, called_right: int, eta: float = 0.025
) -> Misjudgement:
    """From the judge's verdicts on labelled pairs of answers; each limit is missed with `eta`."""
    return Misjudgement(
        clopper_pearson(called_wrong, right_pairs, eta),
        clopper_pearson(called_right, wrong_pairs, eta),
    )
