"""Labelled pairs and plain questions from the data folder, divided so that no question leaks.

Two questions of one pair hang together, over all sets at once, and what hangs together falls into
one part: what is measured was not trained on, in any pairing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ("CLASS_A", "PAIR_SETS", "Pair", "Part", "pairs", "questions")

Part = Literal["train", "calibration", "test"]

PAIR_SETS = ("qqp", "lcqmc", "bq_corpus", "oppo_xiaobu", "covid_pairs_zh", "pawsx_zh")
CLASS_A = ("pawsx_zh", "banking77", "clinc150", "arena_hard")
# Questions without partners: to make variations of, and to tell apart.
_QUESTIONS = {
    "banking77": "queries", "clinc150": "queries", "arena_hard": "prompts",
    "msmarco_dev_queries": "queries", "sogouq_sample": "queries", "sharegpt_v3_sample":
    "first_prompts",
}  # fmt: skip
# Of a hundred: how many fall into calibration and how many into test.
CALIBRATION, TEST = 10, 20


class Pair(NamedTuple):
    """Two questions; 1 where one answer answers both."""

    a: str
    b: str
    label: int
    source: str


def rows(path: Path) -> Iterator[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def questions(data: Path, name: str) -> list[str]:
    found = [str(row["q"]) for row in rows(data / name / f"{_QUESTIONS[name]}.jsonl.gz")]
    return list(dict.fromkeys(found))


def folded(text: str) -> str:
    """What two texts have in common that differ in nothing a reader would name."""
    kept = (c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())
    return "".join(kept) or text


def pairs(data: Path) -> dict[Part, list[Pair]]:
    """Every pair set, each pair in the part of all that hangs together with it."""
    found = [
        Pair(str(row["a"]), str(row["b"]), int(str(row["label"])), name)
        for name in PAIR_SETS
        for row in rows(data / name / "pairs.jsonl.gz")
    ]
    root = _components(found)
    parts: dict[Part, list[Pair]] = {"train": [], "calibration": [], "test": []}
    for pair in found:
        parts[_part(root(folded(pair.a)))].append(pair)
    return parts


def _part(name: str) -> Part:
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 100
    if number < TEST:
        return "test"
    return "calibration" if number < TEST + CALIBRATION else "train"


def _components(found: list[Pair]) -> Callable[[str], str]:
    """From a question to the name of what hangs together with it: its least member."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = above
        return name

    for pair in found:
        one, other = sorted((root(folded(pair.a)), root(folded(pair.b))))
        parent[other] = one
    return root
