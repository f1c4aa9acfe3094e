"""Exact binomial tails and the limits that follow from them.

Numbers of audits and of calibration pairs stay below some ten thousands, so that a tail summed
term by term in logarithms is both exact and quick.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, log, log1p

__all__ = ("bisected", "chance_of_at_most", "clopper_pearson", "log_sum_exp")

_HALVINGS = 60  # an interval of length 1 shrinks below what a float can tell


def chance_of_at_most(wrong: int, of: int, rate: float) -> float:
    """P(Bin(of, rate) <= wrong); 1 where `wrong >= of`.

    Raises ValueError for a rate outside 0..1.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"a rate of {rate}: between 0 and 1 would work")
    if wrong < 0:
        return 0.0
    if wrong >= of or rate == 0.0:
        return 1.0
    if rate == 1.0:
        return 0.0
    odds = log(rate) - log1p(-rate)
    term = of * log1p(-rate)  # of none
    terms = [term]
    for count in range(1, wrong + 1):
        term += log((of - count + 1) / count) + odds
        terms.append(term)
    return min(1.0, exp(log_sum_exp(terms)))


def clopper_pearson(wrong: int, of: int, eta: float) -> tuple[float, float]:
    """Lower and upper limit of a rate after `wrong` in `of`, each missed with chance `eta`.

    Valid for one `of` chosen beforehand (Clopper and Pearson, Biometrika 1934): a number to show,
    never one to act on after each audit. (0, 1) where nothing was audited.
    """
    if not of:
        return 0.0, 1.0
    low, high = 0.0, 1.0
    if wrong:
        low = bisected(lambda rate: 1.0 - chance_of_at_most(wrong - 1, of, rate) < eta)
    if wrong < of:
        high = bisected(lambda rate: chance_of_at_most(wrong, of, rate) >= eta)
    return low, high


def bisected(holds: Callable[[float], bool], low: float = 0.0, high: float = 1.0) -> float:
    """The largest number of low..high, to rounding, up to which `holds`; it holds from below."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def log_sum_exp(terms: list[float]) -> float:
    """log of the sum of exp(term), without overflow; -inf of no terms."""
    largest = max(terms, default=-inf)
    if largest == -inf:
        return -inf
    return largest + log(sum(exp(term - largest) for term in terms))
