"""Per-entry thresholds as vCache publishes them (arXiv 2502.03771): a baseline to compare with.

Written from the paper's formulas alone. Per entry: a logistic curve by maximum likelihood over
(similarity, right or wrong); its threshold's variance by the delta method, or by a table where
right and wrong separate; the smallest chance of exploring that keeps P(correct) >= 1 - delta over
all requests. Fewer than six observations: always explore.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ("Curve", "explore_chance", "fit")

LEAST_SEEN = 6
_EPSILONS = (np.arange(50) + 0.5) / 50
_QUANTILES = np.array([NormalDist().inv_cdf(1 - float(e)) for e in _EPSILONS])
# Variance of the threshold where the classes separate, by number of observations.
_SEPARATED = ((6, 0.035), (10, 0.019), (12, 0.01))
_NEWTON_STEPS, _SLOPE_LIMIT = 100, 1e3


class Curve(NamedTuple):
    """`steepness` gamma, `threshold` t and its `variance`."""

    steepness: float
    threshold: float
    variance: float


def explore_chance(curve: Curve | None, similarity: float, delta: float) -> float:
    """tau: with this chance the model is asked. None: too little is known, 1."""
    if curve is None:
        return 1.0
    bounds = np.clip(curve.threshold + _QUANTILES * np.sqrt(curve.variance), 0, 1)
    alpha = (1 - _EPSILONS) * _sigmoid(curve.steepness * (similarity - bounds))
    return float(max(0.0, (1 - delta / (1 - alpha)).min()))


def fit(seen: Sequence[tuple[float, int]]) -> Curve | None:
    """From (similarity, right) of one entry."""
    if len(seen) < LEAST_SEEN:
        return None
    similarity = np.array([s for s, _ in seen])
    right = np.array([float(c) for _, c in seen])
    if right.min() == right.max():
        # One class only: the likelihood pushes the threshold out of the way.
        return Curve(_SLOPE_LIMIT, 0.0 if right[0] else 1.0, _table(len(seen)))
    offset, slope, covariance = _maximum_likelihood(similarity, right)
    steepness = max(slope, 1e-6)
    threshold = float(np.clip(-offset / steepness, 0, 1))
    if similarity[right > 0].min() > similarity[right == 0].max() or covariance is None:
        return Curve(steepness, threshold, _table(len(seen)))
    gradient = np.array([-1 / steepness, offset / steepness**2])
    return Curve(steepness, threshold, float(gradient @ covariance @ gradient))


def _maximum_likelihood(
    similarity: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> tuple[float, float, npt.NDArray[np.float64] | None]:
    design = np.stack([np.ones_like(similarity), similarity], axis=1)
    beta = np.zeros(2)
    covariance = None
    for _ in range(_NEWTON_STEPS):
        chance = _sigmoid(design @ beta)
        curvature = (design.T * (chance * (1 - chance))) @ design
        if np.linalg.cond(curvature) > 1e12 or abs(beta[1]) > _SLOPE_LIMIT:
            break  # the classes separate: the maximum lies at infinity
        covariance = np.linalg.inv(curvature)
        step = covariance @ (design.T @ (right - chance))
        beta = beta + step * min(1.0, 50 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            return float(beta[0]), float(beta[1]), covariance
    return float(beta[0]), float(beta[1]), None


def _table(seen: int) -> float:
    counts, variances = zip(*_SEPARATED, strict=True)
    return float(np.interp(seen, counts, variances))


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return found
