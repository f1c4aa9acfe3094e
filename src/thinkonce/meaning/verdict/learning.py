"""What an entry's own history says about the next question it might answer.

An entry whose answer was right or wrong for earlier questions is a better or worse neighbour than
its score alone says. With x = (1, score), c = 1 where its answer was right, and beta of the entry:

    P(c = 1 | score) = sigma(x' beta),   beta ~ N(mean, spread) over the entries of a namespace

`score` is the verdict's logit, so mean (0, 1) says "the verdict is right as it stands"; the prior
is shipped with that mean and fitted again to the entries of the namespace (empirical Bayes). The
posterior is the normal distribution at the mode (Laplace), so an entry without any history has
one too, and one whose history is all right or all wrong stays finite.

What decides is the chance that the answer is right, what is not known of beta averaged over: the
budget promises an average over hits, and orders them by it.

A prior that was fitted can make an entry less sure than the shipped one does, never surer. The
calibration and the audits say how many are wrong among hits that reach a cut; a fit that lifted
all scores would let others reach it, of which neither has said anything.

This follows the published mathematics of per-entry decisions (arXiv 2502.03771) in what it
models, and departs from it in the prior, in the logit in place of a threshold, in promising for
hits instead of requests, and in forgetting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log, sqrt
from typing import NamedTuple

import msgspec

from thinkonce.meaning.verdict.calibration import sigmoid

__all__ = (
    "SHIPPED",
    "Belief",
    "History",
    "Observations",
    "Posterior",
    "Prior",
    "belief",
    "careful",
    "chance",
    "fit_prior",
    "held",
    "posterior",
)

REMEMBERED = 32  # observations an entry keeps
FORGETTING = 0.97  # weight of an observation when the next one comes
LARGEST = 12.0  # scores beyond this, either way, are no surer
_STEPS, _CLOSE = 25, 1e-8
_EM_STEPS = 20
# What the shipped prior weighs in a fit, as a number of entries.
_SHIPPED_WEIGHT = 20.0

# (weight, score, 1 where the entry's answer was right).
Observations = Sequence[tuple[float, float, int]]


class Prior(msgspec.Struct, frozen=True):
    """Distribution of an entry's (offset, slope): means, variances, covariance."""

    offset: float = 0.0
    slope: float = 1.0
    var_offset: float = 0.5
    var_slope: float = 0.02
    covariance: float = 0.0


SHIPPED = Prior()


class Posterior(msgspec.Struct, frozen=True):
    """The same of one entry, its history taken in; what a decision needs."""

    offset: float
    slope: float
    var_offset: float
    var_slope: float
    covariance: float


class History(msgspec.Struct):
    """The last REMEMBERED observations of an entry, oldest first."""

    scores: list[float] = []
    right: list[bool] = []

    def add(self, score: float, is_right: bool) -> None:
        self.scores.append(held(score))
        self.right.append(is_right)
        del self.scores[:-REMEMBERED], self.right[:-REMEMBERED]

    def weighted(self) -> list[tuple[float, float, int]]:
        last = len(self.scores) - 1
        return [
            (FORGETTING ** (last - at), score, int(right))
            for at, (score, right) in enumerate(zip(self.scores, self.right, strict=True))
        ]


def held(score: float) -> float:
    return min(max(score, -LARGEST), LARGEST)


def posterior(prior: Prior, seen: Observations) -> Posterior:
    """Newton's method with step halving; about 5 steps of 1 µs an observation."""
    # Precision of the prior, 2 x 2: [[a, c], [c, b]].
    area = prior.var_offset * prior.var_slope - prior.covariance**2
    a, b, c = prior.var_slope / area, prior.var_offset / area, -prior.covariance / area
    offset, slope = prior.offset, prior.slope
    worth = _log_posterior(prior, (a, b, c), seen, (offset, slope))
    for _ in range(_STEPS):
        da, db = offset - prior.offset, slope - prior.slope
        g0, g1 = -(a * da + c * db), -(c * da + b * db)
        h00, h11, h01 = a, b, c
        for weight, score, right in seen:
            chance = sigmoid(offset + slope * score)
            miss, curve = weight * (right - chance), weight * chance * (1.0 - chance)
            g0 += miss
            g1 += miss * score
            h00 += curve
            h01 += curve * score
            h11 += curve * score * score
        area = h00 * h11 - h01 * h01
        s0, s1 = (h11 * g0 - h01 * g1) / area, (h00 * g1 - h01 * g0) / area
        if abs(s0) + abs(s1) < _CLOSE:
            break
        size = 1.0
        while size > 1e-3:
            tried = (offset + size * s0, slope + size * s1)
            found = _log_posterior(prior, (a, b, c), seen, tried)
            if found >= worth:
                offset, slope = tried
                worth = found
                break
            size /= 2
        else:
            break
    return Posterior(offset, slope, h11 / area, h00 / area, -h01 / area)


def _log_posterior(
    prior: Prior,
    precision: tuple[float, float, float],
    seen: Observations,
    at: tuple[float, float],
) -> float:
    a, b, c = precision
    da, db = at[0] - prior.offset, at[1] - prior.slope
    found = -(a * da * da + 2 * c * da * db + b * db * db) / 2
    for weight, score, right in seen:
        x = at[0] + at[1] * score
        found -= weight * log_one_plus_exp(-x if right else x)
    return found


def log_one_plus_exp(x: float) -> float:
    return x if x > 35 else log(1.0 + exp(x))


def chance(entry: Prior | Posterior, score: float) -> float:
    """P(right), the uncertainty of the entry's numbers averaged over (MacKay 1992)."""
    middle, deviation = _logit_of(entry, score)
    return sigmoid(middle / sqrt(1.0 + 0.39269908169872414 * deviation * deviation))


class Belief(NamedTuple):
    """An entry under the shipped prior and under the fitted one; the same object before a fit."""

    shipped: Prior | Posterior
    fitted: Prior | Posterior


def belief(fitted: Prior, seen: Observations = ()) -> Belief:
    """Of an entry of which `seen` is known."""
    shipped = posterior(SHIPPED, seen) if seen else SHIPPED
    if fitted is SHIPPED:
        return Belief(shipped, shipped)
    return Belief(shipped, posterior(fitted, seen) if seen else fitted)


def careful(entry: Belief, score: float) -> float:
    """P(right) by the prior that is less sure of it."""
    found = chance(entry.shipped, score)
    return found if entry.fitted is entry.shipped else min(found, chance(entry.fitted, score))


def _logit_of(entry: Prior | Posterior, score: float) -> tuple[float, float]:
    score = held(score)
    variance = entry.var_offset + score * (2.0 * entry.covariance + score * entry.var_slope)
    return entry.offset + entry.slope * score, sqrt(max(variance, 0.0))


def fit_prior(histories: Iterable[Observations], shipped: Prior = SHIPPED) -> Prior:
    """The distribution over the entries of a namespace, `shipped` counting as some entries.

    Expectation and maximisation in turns: each entry's posterior under the prior so far, then the
    mean and the spread of these posteriors.
    """
    known = [history for history in histories if history]
    prior = shipped
    for _ in range(_EM_STEPS):
        found = [posterior(prior, history) for history in known]
        total = len(found) + _SHIPPED_WEIGHT
        offset = (_SHIPPED_WEIGHT * shipped.offset + sum(p.offset for p in found)) / total
        slope = (_SHIPPED_WEIGHT * shipped.slope + sum(p.slope for p in found)) / total
        v0, v1, v01 = (_SHIPPED_WEIGHT * v for v in _spread(shipped, offset, slope))
        for p in found:
            spread = _spread(p, offset, slope)
            v0, v1, v01 = v0 + spread[0], v1 + spread[1], v01 + spread[2]
        prior = Prior(offset, slope, v0 / total, v1 / total, v01 / total)
    return prior


def _spread(p: Prior | Posterior, offset: float, slope: float) -> tuple[float, float, float]:
    d0, d1 = p.offset - offset, p.slope - slope
    return p.var_offset + d0 * d0, p.var_slope + d1 * d1, p.covariance + d0 * d1
