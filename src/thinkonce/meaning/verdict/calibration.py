"""From scores to probabilities, and to a cut that keeps a promise.

    isotonic   the non-decreasing step function of least squared error (pool adjacent violators)
    Platt      1 / (1 + exp(-(slope * score + offset))), for few labels; its targets are drawn
               in from 0 and 1 (Platt 1999; the Newton steps after Lin, Lin and Weng 2007)
    cut        fixed-sequence testing, from strict to loose: P(error among accepted <= max_error)
               >= 1 - eta on exchangeable data (Angelopoulos et al., Learn then Test, 2021)

Both curves rise with the score, so that no order is turned round. Fitting needs numpy and runs
where calibrations are made; a fitted curve is plain numbers and answers without it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import exp, log
from typing import TYPE_CHECKING

import msgspec

from thinkonce.meaning.verdict.binomial import chance_of_at_most

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = (
    "Curve",
    "Cut",
    "Isotonic",
    "Platt",
    "Tally",
    "choose_cut",
    "cut_among",
    "fit_isotonic",
    "fit_platt",
    "ladder",
    "logit",
    "sigmoid",
    "tallied",
)

KNOTS = 200  # of an isotonic curve; more tell apart what no calibration set can
RUNGS = (0.5, 1.0, 1.4, 2.0, 2.8, 4.0, 6.0)
LEAST = 20  # pairs that an unpromised ladder lies about; about fewer it would meet no traffic
STEPS = 200  # cuts that are counted
STARTS = 4  # cuts that testing may begin from, each with its share of eta
_NEWTON_STEPS = 50
_EDGE = 1e-9  # probabilities stay this far from 0 and 1


class Isotonic(msgspec.Struct, frozen=True, tag="isotonic"):
    """`chances[i]` at `scores[i]`, straight between them, level beyond; both never fall."""

    scores: tuple[float, ...]
    chances: tuple[float, ...]

    def __call__(self, score: float) -> float:
        after = bisect_right(self.scores, score)
        if after == 0:
            return self.chances[0]
        if after == len(self.scores):
            return self.chances[-1]
        left, right = self.scores[after - 1], self.scores[after]
        share = (score - left) / (right - left)
        low, high = self.chances[after - 1], self.chances[after]
        return low + share * (high - low)


class Platt(msgspec.Struct, frozen=True, tag="platt"):
    """A logistic curve; `slope` is never negative."""

    slope: float
    offset: float

    def __call__(self, score: float) -> float:
        return sigmoid(self.slope * score + self.offset)


Curve = Isotonic | Platt


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """Calibration pairs that score at least `score`: how many, and how many of them wrong."""

    score: float
    accepted: int
    wrong: int


class Cut(msgspec.Struct, frozen=True):
    """Accept scores of at least `score`. `wrong` of `accepted` calibration pairs were wrong."""

    score: float
    accepted: int
    wrong: int
    max_error: float
    eta: float


def fit_isotonic(scores: Sequence[float], labels: Sequence[int]) -> Isotonic:
    """From scores and labels (1 = right). Raises ValueError where there are none.

    A block of n labels with k right stands for (k + 1/2) / (n + 1): a dozen right ones in a row
    are no certainty.
    """
    import numpy as np

    _check(scores, labels)
    order = np.argsort(np.asarray(scores, dtype=float), kind="stable")
    values = np.asarray(scores, dtype=float)[order]
    right = np.asarray(labels, dtype=float)[order]
    starts = np.flatnonzero(np.append(True, np.diff(values) > 0))
    counts = np.diff(np.append(starts, len(values)))
    blocks = _pooled(
        np.add.reduceat(values, starts), np.add.reduceat(right, starts), counts.astype(float)
    )
    at = [float(total / count) for total, _, count in blocks]
    chances = [(k + 0.5) / (count + 1.0) for _, k, count in blocks]
    kept = sorted({round(i) for i in np.linspace(0, len(at) - 1, min(KNOTS, len(at)))})
    rising = np.maximum.accumulate([chances[i] for i in kept])
    return Isotonic(tuple(at[i] for i in kept), tuple(float(chance) for chance in rising))


def _pooled(
    totals: npt.NDArray[np.float64], right: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]
) -> list[tuple[float, float, float]]:
    """Neighbours are joined while the share of right ones would fall: (sum of scores, right, n)."""
    blocks: list[tuple[float, float, float]] = []
    for total, k, n in zip(totals.tolist(), right.tolist(), counts.tolist(), strict=True):
        blocks.append((total, k, n))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    return blocks


def fit_platt(scores: Sequence[float], labels: Sequence[int]) -> Platt:
    """Maximum likelihood with drawn-in targets; a falling curve is replaced by a level one.

    Raises ValueError where there are no labels.
    """
    import numpy as np

    _check(scores, labels)
    values, right = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    positives = right.sum()
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(right) - positives + 2)
    target = np.where(right > 0, high, low)
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    design = np.stack([(values - centre) / spread, np.ones(len(values))])
    weights = np.array([0.0, logit(float(target.mean()))])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(weights @ design, -500, 500)))
        gradient = design @ (target - chance)
        curvature = (design * (chance * (1 - chance))) @ design.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-10:
            break
    slope = float(weights[0]) / spread
    if slope < 0:
        return Platt(0.0, logit(float(target.mean())))
    return Platt(slope, float(weights[1] - weights[0] * centre / spread))


def tallied(scores: Sequence[float], labels: Sequence[int]) -> tuple[Tally, ...]:
    """Cuts from strict to loose, in equal ratios of what they accept; few enough to be shipped."""
    ranked = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
    found: list[Tally] = []
    wrong, goal, ratio = 0, 1.0, max(1.0, len(ranked)) ** (1 / STEPS)
    for at, (score, label) in enumerate(ranked, start=1):
        wrong += not label
        is_last_of_equals = at == len(ranked) or ranked[at][0] < score
        if at >= goal and is_last_of_equals:
            found.append(Tally(score, at, wrong))
            goal = max(at + 1.0, goal * ratio)
    return tuple(found)


def choose_cut(
    scores: Sequence[float],
    labels: Sequence[int],
    max_error: float,
    eta: float = 0.05,
    starts: int = STARTS,
) -> Cut | None:
    """The loosest cut that testing reaches; None where no cut keeps the promise."""
    return cut_among(tallied(scores, labels), max_error, eta, starts)


def cut_among(
    tallies: Sequence[Tally], max_error: float, eta: float = 0.05, starts: int = STARTS
) -> Cut | None:
    """`choose_cut` of pairs that were counted before.

    Which cuts are tried depends on the scores alone, never on the labels: the first accepts as
    many pairs as an errorless sample needs, the last all. From each of `starts` cuts the walk
    goes on while P(Bin(n, max_error) <= wrong) <= eta / starts; several starts, because noisy
    labels at the very top would end a single walk at its first step.
    """
    share = eta / starts
    tried = [tally for tally in tallies if (1.0 - max_error) ** tally.accepted <= share]
    passed = [chance_of_at_most(one.wrong, one.accepted, max_error) <= share for one in tried]
    found: Tally | None = None
    for number in range(starts):
        at = number * len(tried) // starts
        while at < len(tried) and passed[at]:
            if found is None or tried[at].accepted > found.accepted:
                found = tried[at]
            at += 1
    if found is None:
        return None
    return Cut(found.score, found.accepted, found.wrong, max_error, eta)


def ladder(
    tallies: Sequence[Tally], max_error: float, eta: float = 0.05
) -> tuple[tuple[float, ...], int]:
    """Cuts from strict to loose for audits to choose from, and the one to begin with.

    One rung is the cut that `cut_among` promises; the others accept a half to six times as many
    pairs. Without such a cut the rungs lie about the loosest one of which no more than
    `max_error` was wrong, LEAST pairs at least, and the one to begin with is -1: nothing is
    promised.
    """
    cut = cut_among(tallies, max_error, eta)
    good = [tally.accepted for tally in tallies if tally.wrong <= max_error * tally.accepted]
    accepted = cut.accepted if cut else max([*good, LEAST])
    rungs = {_reaching(tallies, accepted * rung) for rung in RUNGS}
    cuts = tuple(sorted(rungs | ({cut.score} if cut else set()), reverse=True))
    return cuts, cuts.index(cut.score) if cut else -1


def _reaching(tallies: Sequence[Tally], accepted: float) -> float:
    """The strictest cut that accepts so many pairs; the loosest where none does."""
    return next((one.score for one in tallies if one.accepted >= accepted), tallies[-1].score)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    return 1.0 / (1.0 + exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + exp(x))


def logit(chance: float) -> float:
    """The inverse of `sigmoid`; 0 and 1 give large finite numbers."""
    held = min(max(chance, _EDGE), 1.0 - _EDGE)
    return log(held / (1.0 - held))


def _check(scores: Sequence[float], labels: Sequence[int]) -> None:
    if not scores or len(scores) != len(labels):
        message = f"{len(scores)} scores and {len(labels)} labels: as many of each, and some"
        raise ValueError(message)
