"""What audits of hits prove about the share of wrong ones, valid at whatever moment one looks.

An audit of a would-be hit tells x = 1 (wrong) or 0. Two bets are kept, each of which can hardly
grow while its hypothesis is true (Ville: P(it ever reaches 1/eta) <= eta), so that one may look
after every audit and act (Waudby-Smith and Ramdas, JRSS B 2024; Howard et al. 2021):

    certify   against "error >= delta":  mean over l of prod (1 + l w (delta - x) / (1 - delta))
    alarm     against "error <= delta":  mean over l of prod (1 + l w (x - delta) / delta)

Hits are audited band by band, at different rates. A hit of band b audited with chance q[b] counts
with weight w = (least q of the bands asked about) / q[b]: an audit then moves the bet, in the
mean, as far as the error among all hits of these bands says, whatever the rates were.

The certifying bet does not depend on the order of audits, so counts by rates and band are all it
needs, for every delta at once. The alarm must also see a change after thousands of good audits,
when a bet begun at the start has lost everything: half its capital is kept back and laid out over
all later moments, ln 2 / 2 * (1/ln(n+1) - 1/ln(n+2)) at the n-th audit (these sum up to 1/2).

What is certified: the error was not at or above delta all along. A later change for the worse is
the alarm's business, which is why both run.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p

import msgspec

from thinkonce.meaning.verdict.binomial import bisected, log_sum_exp

__all__ = ("Alarm", "Counts", "Stretch", "counts", "log_certainty", "upper_limit")

CERTIFY_BETS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
ALARM_BETS = (0.05, 0.1, 0.2, 0.4, 0.7)
_AT_START = 0.5  # share of the alarm's capital that is laid out at once

# (weight, right, wrong) of audits that count alike.
Counts = Sequence[tuple[float, int, int]]


class Stretch(msgspec.Struct):
    """Audits made under the same rates: by band, the strictest first."""

    rates: tuple[float, ...]
    right: list[int]
    wrong: list[int]

    def add(self, band: int, is_wrong: bool) -> None:
        (self.wrong if is_wrong else self.right)[band] += 1


def counts(stretches: Sequence[Stretch], step: int) -> list[tuple[float, int, int]]:
    """The audits of bands 0..`step` together, with their weights."""
    found = []
    for stretch in stretches:
        least = min(stretch.rates[: step + 1])
        for band in range(step + 1):
            right, wrong = stretch.right[band], stretch.wrong[band]
            if right or wrong:
                found.append((least / stretch.rates[band], right, wrong))
    return found


def log_certainty(audits: Counts, delta: float) -> float:
    """log of the bet against "error >= delta"; certified once it reaches log(1/eta)."""
    grows = delta / (1.0 - delta)
    capitals = [
        sum(
            right * log1p(bet * weight * grows) + wrong * log1p(-bet * weight)
            for weight, right, wrong in audits
        )
        for bet in CERTIFY_BETS
    ]
    return log_sum_exp(capitals) - log(len(CERTIFY_BETS))


def upper_limit(audits: Counts, eta: float) -> float:
    """The largest delta that the certifying bet has not refuted; 1 before there is evidence.

    Covers the true error at every moment with chance 1 - eta. The bet rises with delta, so
    halving finds it.
    """
    return bisected(lambda delta: log_certainty(audits, delta) < -log(eta), high=1.0 - 1e-9)


class Alarm(msgspec.Struct):
    """The bet against "error <= delta" over hits that were served, in the order of audits.

    `capitals` are logarithms, one a bet of ALARM_BETS; `audits` counts what was seen.
    """

    capitals: list[float] = msgspec.field(
        default_factory=lambda: [log(_AT_START)] * len(ALARM_BETS)
    )
    audits: int = 0

    def see(self, is_wrong: bool, weight: float, delta: float) -> None:
        """One audit; `weight` as in `counts`, 0 < delta < 1."""
        self.audits += 1
        fresh = log(_laid_out(self.audits))
        gain = weight * ((1.0 - delta) / delta if is_wrong else -1.0)
        self.capitals = [
            max(capital, fresh) + log1p(exp(-abs(capital - fresh))) + log1p(bet * gain)
            for bet, capital in zip(ALARM_BETS, self.capitals, strict=True)
        ]

    def log_capital(self) -> float:
        """log of the whole capital, what is not yet laid out included; 0 at the start."""
        playing = log_sum_exp(self.capitals) - log(len(ALARM_BETS))
        return log(exp(min(playing, 700.0)) + _kept_back(self.audits))


def _kept_back(audits: int) -> float:
    return (1.0 - _AT_START) * log(2.0) / log(audits + 2)


def _laid_out(audit: int) -> float:
    """Of the capital, at the `audit`-th audit, counted from 1."""
    return _kept_back(audit - 1) - _kept_back(audit)
