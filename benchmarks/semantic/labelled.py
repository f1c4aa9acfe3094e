"""Labelled questions of the data folder, divided by what hangs together.

Two questions of one pair hang together, over all sets at once, and what hangs together falls into
one part; the verifier is trained by it, so `test` holds nothing it has seen.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = (
    "DATA",
    "LANGUAGE",
    "PAIR_SETS",
    "Pair",
    "Part",
    "background",
    "folded",
    "intents",
    "joined",
    "pairs",
    "part_of",
    "rows",
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PAIR_SETS = ("qqp", "lcqmc", "bq_corpus", "oppo_xiaobu", "covid_pairs_zh", "pawsx_zh")
LANGUAGE = {"qqp": "en", "banking77": "en", "clinc150": "en"}  # the rest is Chinese
_FILES = {
    "banking77": "queries", "clinc150": "queries", "arena_hard": "prompts",
    "msmarco_dev_queries": "queries", "sogouq_sample": "queries",
    "sharegpt_v3_sample": "first_prompts",
}  # fmt: skip
Part = Literal["train", "calibration", "test"]
TEST, CALIBRATION = 20, 10  # of a hundred


class Pair(NamedTuple):
    """Two questions; `label` 1 where one answer answers both."""

    a: str
    b: str
    label: int
    source: str
    part: Part = "train"


def rows(path: Path) -> Iterator[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@lru_cache(maxsize=1)
def pairs(data: Path = DATA) -> tuple[Pair, ...]:
    """Every labelled pair with the part it belongs to, in the order of the files."""
    found = [
        (str(row["a"]), str(row["b"]), int(str(row["label"])), name)
        for name in PAIR_SETS
        for row in rows(data / name / "pairs.jsonl.gz")
    ]
    root = joined((folded(a), folded(b)) for a, b, _, _ in found)
    return tuple(Pair(a, b, label, name, part_of(root[folded(a)])) for a, b, label, name in found)


def intents(name: str, data: Path = DATA) -> list[tuple[str, str]]:
    """(question, intent) of banking77 or clinc150; `oos` is no intent of clinc150."""
    found = rows(data / name / f"{_FILES[name]}.jsonl.gz")
    return [(str(row["q"]), str(row["intent"])) for row in found]


def background(name: str, data: Path = DATA) -> list[str]:
    """Distinct questions of a set without partners, in the order of the file."""
    return list(
        dict.fromkeys(str(row["q"]) for row in rows(data / name / f"{_FILES[name]}.jsonl.gz"))
    )


def folded(text: str) -> str:
    """What two texts have in common that differ in nothing a reader would name."""
    kept = (c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())
    return "".join(kept) or text


def part_of(name: str) -> Part:
    """The part of all that hangs together under `name`, its least member."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 100
    if number < TEST:
        return "test"
    return "calibration" if number < TEST + CALIBRATION else "train"


def joined(edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """From each name in `edges` to the least of all names it is connected with."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = above
        return name

    for a, b in edges:
        one, other = sorted((root(a), root(b)))
        parent[other] = one
    return {name: root(name) for name in parent}
