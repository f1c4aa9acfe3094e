"""Fits the first-stage score: one additive logistic model a language, from labelled pairs.

    python fit.py --language zh --seed 1

Plain numpy, deterministic. A curve a feature, drawn between knots at quantiles and held together
by a penalty on its bends; the penalty is the one that ranks the calibration part's first half
best, the second half draws the probabilities and the two cuts.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "semantic")]

from rows import Floats64, Rows, questions, rarity_of, rows_of  # noqa: E402

from thinkonce.meaning.text.gist import Rarity  # noqa: E402
from thinkonce.meaning.verdict.calibration import choose_cut, fit_isotonic  # noqa: E402
from thinkonce.meaning.verdict.score import FEATURES, Region, Score, shipped_path  # noqa: E402

# Quantiles at which knots lie: level beyond the last hundredth, or close together at both ends.
# Noisy labels at the very top favour the first, sound ones the second.
KNOTS = {
    "level": (0.01, 0.15, 0.29, 0.43, 0.57, 0.71, 0.85, 0.99),
    "close": (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 0.99, 0.997, 1.0),
}
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
LEVEL = 0.01  # times the penalty: pulls heights to 0, so that none is undetermined
MAX_ERROR = 0.03
LOST = 0.02  # share of right candidates that the lower cut may reject
ENCODER = "use"
MOST = {"zh": 9000, "en": 24000}  # questions of one set
_NEWTON_STEPS = 30


class Shape(msgspec.Struct):
    """The knots of every feature, and where each one's heights lie among the weights."""

    knots: list[Floats64]

    def starts(self) -> list[int]:
        return np.cumsum([1, *(len(knots) for knots in self.knots)]).tolist()

    def design(self, values: Floats64) -> Floats64:
        """1, then for each knot how much of its height a value takes on."""
        columns = [np.ones((len(values), 1))]
        for at, knots in enumerate(self.knots):
            columns.append(
                np.stack([np.interp(values[:, at], knots, row) for row in np.eye(len(knots))], 1)
            )
        return np.concatenate(columns, axis=1)

    def penalty(self) -> Floats64:
        starts = self.starts()
        found = np.zeros((starts[-1], starts[-1]))
        for start, end in pairwise(starts):
            bends = np.diff(np.eye(end - start), 2 if end - start > 2 else 1, axis=0)
            found[start:end, start:end] = bends.T @ bends + LEVEL * np.eye(end - start)
        return found


class Candidate(NamedTuple):
    merit: float
    shape: Shape
    weights: Floats64


def shape_of(values: Floats64, quantiles: tuple[float, ...]) -> Shape:
    return Shape(
        [
            np.array([0.0, 1.0]) if set(np.unique(column)) <= {0.0, 1.0}
            else np.unique(np.round(np.quantile(column, quantiles), 4))
            for column in values.T
        ]
    )  # fmt: skip


def fitted(design: Floats64, labels: npt.NDArray[np.int64], penalty: Floats64) -> Floats64:
    """Maximum of the penalised likelihood, by Newton's method with step halving."""
    weights = np.zeros(design.shape[1])

    def loss(at: Floats64) -> float:
        x = design @ at
        return float(np.logaddexp(0, x).sum() - x[labels > 0].sum() + at @ penalty @ at / 2)

    now = loss(weights)
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(design @ weights)))
        gradient = design.T @ (labels - chance) - penalty @ weights
        curvature = (design.T * (chance * (1 - chance))) @ design + penalty
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        size = 1.0
        while loss(weights + size * step) > now and size > 1e-4:
            size /= 2
        weights = weights + size * step
        before, now = now, loss(weights)
        if before - now < 1e-6 * abs(now):
            break
    return weights


def recall_at(precision: float, labels: npt.NDArray[np.int64], scores: Floats64) -> float:
    """The largest share of right ones that a cut with that precision accepts."""
    right = labels[np.argsort(-scores, kind="stable")].cumsum()
    good = right / np.arange(1, len(right) + 1) >= precision
    good[:20] = False
    return float(right[good].max() / right[-1]) if good.any() else 0.0


def merit(labels: npt.NDArray[np.int64], scores: Floats64) -> float:
    return sum(recall_at(p, labels, scores) for p in (0.8, 0.9, 0.95, 0.98))


def halves(rows: Rows) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    first = np.random.default_rng(1).random(rows.asked.max() + 1)[rows.asked] < 0.5
    return first, ~first


def fit(language: str, seed: int) -> Score:
    train = questions(language, "train", MOST[language], seed)
    rarity = rarity_of(train.texts)
    rows = rows_of(train, rarity)
    check = rows_of(questions(language, "calibration", 10**9, seed), rarity)
    print(f"{language}: {len(rows.labels)} rows, {rows.labels.sum()} right; "
          f"{len(check.labels)} to calibrate with, {check.labels.sum()} right")  # fmt: skip
    chosen, drawn = halves(check)
    found: list[Candidate] = []
    for name, quantiles in KNOTS.items():
        shape = shape_of(rows.values, quantiles)
        design, checked = shape.design(rows.values), shape.design(check.values)
        for strength in PENALTIES:
            weights = fitted(design, rows.labels, strength * shape.penalty())
            value = merit(check.labels[chosen], checked[chosen] @ weights)
            found.append(Candidate(value, shape, weights))
            print(f"  knots {name}, penalty {strength}: merit {value:.3f}")
    print(f"  by cosine: merit {merit(check.labels[chosen], check.values[chosen, 0]):.3f}")
    best = max(found, key=lambda candidate: candidate.merit)
    raw = best.shape.design(check.values[drawn]) @ best.weights
    return calibrated(language, best.shape, best.weights, rarity, (raw, check.labels[drawn]))


def calibrated(
    language: str,
    shape: Shape,
    weights: Floats64,
    rarity: Rarity,
    check: tuple[Floats64, npt.NDArray[np.int64]],
) -> Score:
    raw, labels = check
    curve = fit_isotonic(raw.tolist(), labels.tolist())
    chances = np.array([curve(value) for value in raw])
    cut = choose_cut(chances.tolist(), labels.tolist(), MAX_ERROR)
    reject = float(np.quantile(chances[labels > 0], LOST))
    below, above = chances < reject, chances >= (cut.score if cut else np.inf)
    starts = shape.starts()
    return Score(
        language,
        ENCODER,
        FEATURES,
        round(float(weights[0]), 5),
        tuple(tuple(knots.tolist()) for knots in shape.knots),
        tuple(
            tuple(round(float(w), 5) for w in weights[start:end]) for start, end in pairwise(starts)
        ),
        curve,
        rarity,
        MAX_ERROR,
        reject,
        cut.score if cut else None,
        Region(int(below.sum()), int(labels[below].sum())),
        Region(int(above.sum()), int((1 - labels[above]).sum())),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", choices=("en", "zh"), action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for language in options.language or ("zh", "en"):
        model = fit(language, options.seed)
        text = msgspec.json.format(msgspec.json.encode(model), indent=0)
        shipped_path(ENCODER, language).write_bytes(text + b"\n")
        print(f"  reject below {model.reject:.4f} {model.rejected}, accept {model.accept} "
              f"{model.accepted}")  # fmt: skip


if __name__ == "__main__":
    main()
