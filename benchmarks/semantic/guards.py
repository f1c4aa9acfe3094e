"""What the guards refuse: near misses by kind, true and false pairs of each set, and what it costs.

    python benchmarks/semantic/guards.py            # the half not tuned on; recorded
    python benchmarks/semantic/guards.py --tune     # the other half
    python benchmarks/semantic/guards.py --wrong qqp 60   # true paraphrases that are refused

A pair belongs to a half by a hash of its first question. Sets that are not there are left out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from near_misses import DATA, SAME, near_misses
from record import Goal, Table, record

from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.text.analysis import Analysed, analyse

SETS = ("qqp", "lcqmc", "bq_corpus", "oppo_xiaobu", "covid_pairs_zh", "pawsx_zh")
COSTED = 4000  # pairs timed
ROUNDS = 5
MOST = 0.08  # of the true paraphrases of a set of questions may be refused
STATEMENTS = "pawsx_zh"  # with words exchanged
CLAIM = "Guards refuse what is another question, and little of what is the same."
NOTES = [
    "Guards alone, without score and verifier, on the half of the pairs that no rule was tuned on. "
    "`same`: of pairs labelled one question, each a hit that is lost; `other`: of the rest.",
]


class Refused(NamedTuple):
    """Pairs of one set by label (other, same), and how many of each the guards refuse."""

    name: str
    pairs: tuple[int, int]
    refused: tuple[int, int]

    @property
    def is_of_questions(self) -> bool:
        return self.name != STATEMENTS

    def share(self, label: int) -> float:
        return self.refused[label] / max(1, self.pairs[label])


@lru_cache(maxsize=200_000)
def read(text: str) -> Analysed:
    return analyse(text)


def tuned_on(question: str) -> bool:
    return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] < 128


def pairs(name: str, tune: bool) -> list[tuple[str, str, int]]:
    file = DATA / name / "pairs.jsonl.gz"
    if not file.exists():
        print(f"{name}: not there, left out")
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [(row["a"], row["b"], row["label"]) for row in map(json.loads, lines)]
    return [row for row in rows if tuned_on(row[0]) == tune]


def suite(tune: bool) -> None:
    refused: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for pair in near_misses():
        if tuned_on(pair.real) == tune:
            counts = refused[pair.kind, pair.language]
            counts[0] += bool(examine(read(pair.a), read(pair.b)))
            counts[1] += 1
    print("kind          en refused        zh refused")
    for kind in dict.fromkeys(kind for kind, _ in refused):
        cells = [share(*refused[kind, language]) for language in ("en", "zh")]
        print(f"{kind:12}  {cells[0]:16}  {cells[1]:16}  {'(same)' if kind in SAME else ''}")
    for language in ("en", "zh"):
        same = [c for (kind, lang), c in refused.items() if lang == language and kind in SAME]
        print(f"dressed paraphrases, {language}: {share(*map(sum, zip(*same, strict=True)))}")


def share(count: int, of: int) -> str:
    return f"{count / of:6.1%} of {of}" if of else "-"


def sets(tune: bool) -> Iterator[Refused]:
    for name in SETS:
        rows = pairs(name, tune)
        by_label: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
        total = Counter(label for _, _, label in rows)
        for a, b, label in rows:
            vetoes = examine(read(a), read(b))
            by_label[label].update(veto.value for veto in vetoes)
            by_label[label]["any"] += bool(vetoes)
        if rows:
            print(f"{name}: share of negatives / positives vetoed ({total[0]} / {total[1]})")
            for veto in dict.fromkeys(["any", *sorted(by_label[0] | by_label[1])]):
                negatives, positives = (by_label[label][veto] / total[label] for label in (0, 1))
                print(f"   {veto:12} {negatives:6.3f} / {positives:6.3f}")
            refused = (by_label[0]["any"], by_label[1]["any"])
            yield Refused(name, (total[0], total[1]), refused)


def keep(found: list[Refused]) -> None:
    rows: list[list[str | float | int | None]] = [
        [one.name, *one.pairs[::-1], round(one.share(1), 4), round(one.share(0), 4)]
        for one in found
    ]
    columns = ["set", "pairs, same", "pairs, other", "refused, same", "refused, other"]
    table = Table("Labelled pairs that guards refuse", columns, rows)
    record("guards", CLAIM, [table], [goal(one) for one in found if one.is_of_questions], NOTES)


def goal(found: Refused) -> Goal:
    share = found.share(1)
    return Goal(f"true paraphrases refused, {found.name}", f"<= {MOST}", share, share <= MOST)


def wrong(name: str, count: int, tune: bool, only: str | None) -> Iterator[str]:
    found = []
    for a, b, label in pairs(name, tune):
        vetoes = [veto.value for veto in examine(read(a), read(b))] if label == 1 else []
        if vetoes and (only is None or only in vetoes):
            found.append(f"{' '.join(vetoes)}\n    {a}\n    {b}")
    random.Random(name).shuffle(found)
    yield from found[:count]


def cost() -> None:
    rows = [row for name in SETS for row in pairs(name, tune=False)]
    rows = random.Random(1).sample(rows, min(COSTED, len(rows)))
    texts = [text for a, b, _ in rows for text in (a, b)]
    reading = each(lambda: [analyse(text) for text in texts], len(texts))
    known = [(read(a), read(b)) for a, b, _ in rows]
    guards = each(lambda: [examine(a, b) for a, b in known], len(known))
    print(f"CPU: analysis {reading:.1f} us a text; guards {guards:.1f} us a pair ", end="")
    print(f"(medians of {ROUNDS} rounds)")


def each(work: object, count: int) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()  # type: ignore[operator]
        times.append((time.process_time() - start) / count * 1e6)
    return statistics.median(times)


def main(arguments: Iterable[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune", action="store_true", help="the half rules were tuned on")
    parser.add_argument("--wrong", nargs="+", metavar=("SET", "COUNT"), help="refused paraphrases")
    options = parser.parse_args(list(arguments))
    if options.wrong:
        name, count, *only = options.wrong
        for line in wrong(name, int(count), options.tune, only[0] if only else None):
            print(line)
        return
    suite(options.tune)
    found = list(sets(options.tune))
    if found and not options.tune:
        keep(found)
    cost()


if __name__ == "__main__":
    main(sys.argv[1:])
