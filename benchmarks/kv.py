"""What reading a prefix once saves: time to the first token behind 512 to 4,096 shared tokens.

The packaged model, fp32. A warm request shares its first tokens with one that came before and
brings 64 new ones; hashing, look-up and all copies count. Cold requests are measured three ways:
in one piece, in chunks, and in chunks that are kept, which is what a miss costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from itertools import count
from statistics import median
from typing import Any

import torch
from record import Goal, Table, record
from transformers import DynamicCache

from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.support import fingerprint_of, shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load

SHARED = (512, 1024, 2048, 4096)
NEW, ROUNDS, CHUNK = 64, 5, 128
WIDE = 256  # the other chunk length whose cost has a goal
GOALS = {512: 6.0, 1024: 9.0, 2048: 17.0, 4096: 20.0}  # cold / warm
MISS_GOAL, CHUNK_GOAL, WIDE_GOAL = 1.03, 1.15, 1.10
SHARERS, SHARED_ONCE_GOAL = 100, 1.05
CLAIM = "A prompt that begins like an earlier one costs its new tokens, and gives the same bits."

Cases = dict[str, list[float]]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shared", type=int, nargs="+", default=list(SHARED))
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", action="store_true", help="print what was measured as JSON")
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    torch.set_num_threads(given.threads)
    bench = Bench(load())
    measured = {shared: bench.measure(shared, given.rounds) for shared in given.shared}
    once = bench.stored_once() if len(given.shared) == len(SHARED) else None
    if given.json:
        print(json.dumps({"seconds": measured, "differences": bench.differences, "once": once}))
        return 0
    for row in rows(measured):
        print(*row, sep="\t")
    print(f"warm answers that differ from cold ones: {bench.differences}; stored once: {once}")
    if once is not None and given.rounds >= ROUNDS:
        write(measured, bench.differences, once, given.threads)
    return int(bool(bench.differences))


class Bench:
    """One model, read by generators that differ in what they keep."""

    def __init__(self, model: Model) -> None:
        self.differences = 0
        self._model = model
        self._bytes = shape_of(model.network).bytes_a_token
        self._tenants = count()
        self._random = torch.Generator().manual_seed(1)
        self._kept = self._reader(CHUNK, keep=True)
        self._anew = self._reader(CHUNK, keep=False)
        self._wide = self._reader(WIDE, keep=False)

    def measure(self, shared: int, rounds: int) -> Cases:
        """Seconds of wall clock to the first token, one a round; cases take turns."""
        prefix = self._tokens(shared)
        self._read(self._kept, prefix + self._tokens(NEW), "warm")
        seconds: Cases = {}
        for _ in range(rounds):
            prompt = prefix + self._tokens(NEW)
            found = timed(seconds, self._cases(prompt))
            self.differences += not torch.equal(found["kept"].logits, found["warm"].logits)
        return seconds

    def stored_once(self) -> float:
        """Bytes of many prompts that share 2,048 tokens and bring less than a chunk each, over
        the bytes of one of them.
        """
        index: PrefixIndex[torch.Tensor] = PrefixIndex(4096 * self._bytes)
        reader = self._reader(CHUNK, index)
        prefix = self._tokens(2048)
        for _ in range(SHARERS):
            self._read(reader, prefix + self._tokens(NEW), "all")
        return index.stats().bytes / (2048 * self._bytes)

    def _cases(self, prompt: list[int]) -> Mapping[str, Callable[[], Any]]:
        stranger = f"stranger {next(self._tenants)}"  # to whom nothing is known
        return {
            "one piece": lambda: self._in_one_piece(prompt),
            "chunks": lambda: self._read(self._anew, prompt, ""),
            "wide": lambda: self._read(self._wide, prompt, ""),
            "kept": lambda: self._read(self._kept, prompt, stranger),
            "warm": lambda: self._read(self._kept, prompt, "warm"),
        }

    def _in_one_piece(self, prompt: list[int]) -> torch.Tensor:
        network = self._model.network
        return forward(network, prompt, 0, DynamicCache(config=network.config))

    def _read(self, reader: ReusingGenerator, prompt: list[int], tenant: str) -> Reading:
        reading = reader.read(Asking.of(prompt, Owner(tenant)), lambda: False)
        assert reading is not None
        return reading

    def _reader(self, chunk: int, keep: bool | PrefixIndex[torch.Tensor]) -> ReusingGenerator:
        # Room for what is warm and for one stranger: what strangers leave behind is forgotten.
        index = PrefixIndex(3 * max(SHARED) * self._bytes) if keep is True else keep or None
        return exact_generator(
            Keeping(
                self._model.network,
                chunk_tokens=chunk,
                fingerprint=fingerprint_of(
                    self._model.network, self._model.tokenizer, chunk
                ).digest(),
                kept=index,
            ),
            self._model.end_ids,
        )

    def _tokens(self, length: int) -> list[int]:
        found: list[int] = torch.randint(
            20, self._model.vocabulary, (length,), generator=self._random
        ).tolist()
        return found


def timed(seconds: Cases, cases: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run each case once, note how long it took, and give what it gave."""
    found = {}
    for name, case in cases.items():
        began = time.perf_counter()
        found[name] = case()
        seconds.setdefault(name, []).append(time.perf_counter() - began)
    return found


def rows(measured: Mapping[int, Cases]) -> list[list[str | float | int | None]]:
    names = ("one piece", "chunks", "kept", "warm")
    return [
        [
            f"{shared:,} + {NEW}",
            *(1000 * median(cases[name]) for name in names),
            ratio(cases, "kept", "warm"),
        ]
        for shared, cases in measured.items()
    ]


def ratio(cases: Cases, one: str, other: str) -> float:
    return median(cases[one]) / median(cases[other])


def write(measured: Mapping[int, Cases], differences: int, once: float, threads: int) -> None:
    columns = ["shared + new", "in one piece", "in chunks", "chunks kept", "warm", "cold/warm"]
    title = f"Time to the first token, ms, {threads} thread{'s' * (threads > 1)}"
    goals = [Goal("warm answers whose bits differ", "= 0", differences, not differences)]
    for shared, cases in measured.items():
        found, least = ratio(cases, "kept", "warm"), GOALS[shared]
        what = f"cold / warm, {shared:,} shared tokens"
        goals.append(Goal(what, f">= {least:g}", round(found, 2), found >= least))
    every = measured.values()
    for what, one, other, most in (
        ("a miss / keeping nothing", "kept", "chunks", MISS_GOAL),
        (f"chunks of {CHUNK} / one piece", "chunks", "one piece", CHUNK_GOAL),
        (f"chunks of {WIDE} / one piece", "wide", "one piece", WIDE_GOAL),
    ):
        found = median(ratio(cases, one, other) for cases in every)
        goals.append(Goal(what, f"<= {most}", round(found, 3), found <= most))
    what = f"bytes of {SHARERS} prompts that share 2,048 tokens / of one"
    goals.append(Goal(what, f"<= {SHARED_ONCE_GOAL}", round(once, 3), once <= SHARED_ONCE_GOAL))
    notes = [f"SmolLM2-135M-Instruct, fp32, chunks of {CHUNK} tokens, median of {ROUNDS} rounds."]
    name = "kv" if threads == 1 else f"kv_{threads}"
    table = Table(title, columns, rows(measured), chart="cold/warm")
    record(name, CLAIM, [table], goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
