"""What attention state on disk saves after a restart, how fast it loads, and how soon it is found.

The packaged model, fp32. `restart` is a request whose first tokens another process read and left
on disk: nothing is in memory. Loading, with its digests and copies, is held against reading the
same files from one end to the other; files are in the page cache in both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from record import Goal, Table, record

from thinkonce.kv.disk.record import Form, Plain
from thinkonce.kv.disk.rows import HEAD, Kind, checked, row_of
from thinkonce.kv.disk.sealed import Sealed
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.support import fingerprint_of, shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load
from thinkonce.tiers.cipher import Cipher

SHARED = (512, 2048)
NEW, ROUNDS, CHUNK = 64, 5, 128
RATE_BLOCKS, RATE_GOAL = 24, 0.6
ROWS, OPEN_GOAL = 1_000_000, 2.0
BUDGET = 2**33
MODEL = bytes(32)
FORMS: dict[str, Form] = {"plain": Plain(), "sealed": Sealed(Cipher([bytes(32)]), bytes(32))}
CLAIM = "A prompt that was read before a restart is loaded from disk, with the same bits."


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shared", type=int, nargs="+", default=list(SHARED))
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--folder", type=Path, help="on the disk to be measured")
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        opening = [opened(Path(folder) / "rows", ROWS) for _ in range(given.rounds)]
        rates = {
            name: [
                rate(Path(folder) / f"{name} {n}", RATE_BLOCKS, form) for n in range(given.rounds)
            ]
            for name, form in FORMS.items()
        }
        bench = Bench(load(), Path(folder) / "restart")
        rows = [bench.measure(shared, given.rounds) for shared in given.shared]
    ratios = [each.loaded / each.read for each in rates["plain"]]
    print("opening", ROWS, "blocks, s:", *(round(seconds, 2) for seconds in opening))
    for name, found in rates.items():
        shown = (f"{each.loaded:.2f}/{each.read:.2f}/{each.written:.2f}" for each in found)
        print(f"{name}, loaded / read / written, GB/s:", *shown)
    for row in rows:
        print(*row, sep="\t")
    print("answers after a restart that differ:", bench.differences)
    if given.rounds >= ROUNDS:
        write(rows, bench.differences, median(opening), rates, median(ratios))
    return int(bool(bench.differences))


def opened(folder: Path, count: int) -> float:
    """Seconds until a folder of so many blocks answers."""
    path = folder / MODEL.hex() / "0001.rows"
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_bytes(HEAD + chains(count).tobytes())
    began = time.perf_counter()
    tier = DiskTier(folder, MODEL, BUDGET)
    seconds = time.perf_counter() - began
    assert tier.stats().blocks == count
    tier.close()
    return seconds


def chains(count: int) -> Any:
    """Rows of prompts of 16 blocks each."""
    first = row_of(bytes(16), bytes(16), Kind.LIVE, expires=inf, segment=1, length=5000)
    rows = np.repeat(first, count)
    rows["id"] = np.frombuffer(os.urandom(16 * count), "V16")
    rows["parent"][1:] = rows["id"][:-1]
    rows["parent"][::16] = np.void(bytes(16))
    return checked(rows)


class Rates(NamedTuple):
    """GB/s of loading blocks, of reading their files, and of writing them."""

    loaded: float
    read: float
    written: float


def rate(folder: Path, count: int, form: Form) -> Rates:
    size = 128 * 46_080
    state = memoryview(os.urandom(size))
    tier, blocks, parent = DiskTier(folder, MODEL, BUDGET, form=form), [], bytes(16)
    began = time.perf_counter()
    for number in range(count):
        blocks.append(Block(number.to_bytes(16, "big"), parent, bytes(4 * CHUNK)))
        parent = blocks[-1].id
        tier.offer(blocks[-1], state)
        assert tier.flush(60)
    written = time.perf_counter() - began
    files = sorted(folder.rglob("*.blocks"))
    taken = {"load": 1e9, "read": 1e9}
    for _ in range(3):  # the first time the page cache is filled
        began = time.perf_counter()
        all_loaded(tier, blocks)
        between = time.perf_counter()
        read(files)
        taken["load"] = min(taken["load"], between - began)
        taken["read"] = min(taken["read"], time.perf_counter() - between)
    tier.close()
    seconds = (taken["load"], taken["read"], written)
    return Rates(*(count * size / each / 1e9 for each in seconds))


def all_loaded(tier: DiskTier, blocks: list[Block]) -> None:
    for block in blocks:
        assert tier.load(block) is not None


def read(files: list[Path]) -> None:
    for path in files:
        descriptor, offset = os.open(path, os.O_RDONLY), 0
        while count := os.preadv(descriptor, [bytearray(128 * 46_080)], offset):
            offset += count
        os.close(descriptor)


class Bench:
    def __init__(self, model: Model, folder: Path) -> None:
        self.differences = 0
        self._model, self._folder = model, folder
        self._bytes = shape_of(model.network).bytes_a_token
        self._random = torch.Generator().manual_seed(1)

    def measure(self, shared: int, rounds: int) -> list[str | float | int | None]:
        """Milliseconds to the first token: nothing known, from disk, from memory."""
        prefix = self._tokens(shared)
        seconds: dict[str, list[float]] = {}
        with self._reader() as reader:
            self._timed(reader, prefix + self._tokens(1))
        for _ in range(rounds):
            prompt = prefix + self._tokens(NEW)
            found: dict[str, Any] = {}
            with self._reader() as reader:
                found["restart"] = self._timed(reader, prompt)
                found["memory"] = self._timed(reader, prompt)
            found["cold"] = self._timed(self._made(None), prompt)
            for name, (took, reading) in found.items():
                seconds.setdefault(name, []).append(took)
                self.differences += not torch.equal(reading.logits, found["cold"][1].logits)
            assert found["restart"][1].cached_tokens == shared
        medians = [1000 * median(seconds[name]) for name in ("cold", "restart", "memory")]
        return [f"{shared:,} + {NEW}", *medians, medians[0] / medians[1]]

    def _timed(self, reader: ReusingGenerator, prompt: list[int]) -> tuple[float, Any]:
        began = time.perf_counter()
        reading = reader.read(Asking.of(prompt), lambda: False)
        return time.perf_counter() - began, reading

    @contextmanager
    def _reader(self) -> Iterator[ReusingGenerator]:
        tier = DiskTier(self._folder, MODEL, BUDGET)
        try:
            yield self._made(tier)
        finally:
            tier.close()

    def _made(self, tier: DiskTier | None) -> ReusingGenerator:
        network, tokenizer = self._model.network, self._model.tokenizer
        return exact_generator(
            Keeping(
                network,
                chunk_tokens=CHUNK,
                fingerprint=fingerprint_of(network, tokenizer, CHUNK).digest(),
                kept=None if tier is None else PrefixIndex(2 * max(SHARED) * self._bytes),
                below=tier,
            ),
            self._model.end_ids,
        )

    def _tokens(self, length: int) -> list[int]:
        found: list[int] = torch.randint(
            20, self._model.vocabulary, (length,), generator=self._random
        ).tolist()
        return found


def write(
    rows: list[Any],
    differences: int,
    opening: float,
    rates: dict[str, list[Rates]],
    ratio: float,
) -> None:
    each = [[n, *(median(c) for c in zip(*found, strict=True))] for n, found in rates.items()]
    tables = [
        Table(
            "Time to the first token, ms, 1 thread",
            ["shared + new", "cold", "from disk, after a restart", "from memory", "cold/restart"],
            rows,
            chart="cold/restart",
        ),
        Table("Blocks of 5.9 MB, GB/s", ["folder", "loaded", "files read", "written"], each),
    ]
    goals = [
        Goal("answers after a restart whose bits differ", "= 0", differences, not differences),
        Goal("loading / reading files", f">= {RATE_GOAL}", round(ratio, 2), ratio >= RATE_GOAL),
        Goal(
            f"opening {ROWS:,} blocks, s",
            f"< {OPEN_GOAL:g}",
            round(opening, 2),
            opening < OPEN_GOAL,
        ),
    ]
    notes = [f"SmolLM2-135M-Instruct, fp32, chunks of {CHUNK} tokens; files in the page cache."]
    record("kv_disk", CLAIM, tables, goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
