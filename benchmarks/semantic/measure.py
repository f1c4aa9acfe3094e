"""How well scores tell pairs apart: what a cache needs is recall where precision is high."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from labelled import Pair

__all__ = ("PRECISIONS", "area", "recall_at", "report")

PRECISIONS = (0.9, 0.95, 0.98, 0.99)
LEAST_ACCEPTED = 20  # fewer say nothing about a precision


def recall_at(precision: float, labels: Sequence[int], scores: Sequence[float]) -> float:
    """The largest recall of a threshold with at least that precision; 0 where there is none."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    right = np.asarray(labels)[order].cumsum()
    accepted = np.arange(1, len(order) + 1)
    # A threshold cannot part equal scores.
    ends = np.append(np.diff(np.asarray(scores)[order]) != 0, True)
    good = ends & (accepted >= LEAST_ACCEPTED) & (right / accepted >= precision)
    return float(right[good].max() / right[-1]) if good.any() else 0.0


def area(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Under the ROC curve: the chance that a right pair scores above a wrong one."""
    values, wanted = np.asarray(scores), np.asarray(labels)
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(1, len(values) + 1)
    positive = int(wanted.sum())
    negative = len(wanted) - positive
    below = ranks[wanted == 1].sum() - positive * (positive + 1) / 2
    return float(below / (positive * negative))


def report(asked: Sequence[Pair], scores: Sequence[float]) -> dict[str, dict[str, float]]:
    """By set: area, recall at each of PRECISIONS."""
    found = {}
    for name in sorted({pair.source for pair in asked}):
        mine = [
            (pair.label, score)
            for pair, score in zip(asked, scores, strict=True)
            if pair.source == name
        ]
        labels, values = zip(*mine, strict=True)
        found[name] = {"area": round(area(labels, values), 4)} | {
            f"r@{p}": round(recall_at(p, labels, values), 4) for p in PRECISIONS
        }
    return found
