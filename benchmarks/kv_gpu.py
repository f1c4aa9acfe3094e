"""What reading five documents once saves on a GPU, with a model of 8 billion random weights.

25,000 tokens of five documents and 100 new ones, bfloat16: cold, warm from main memory, and from
disk as after a restart; and whether 100 pairs of prompts get the same bits warm and cold. Needs a
GPU with 24 GB and says so where there is none; `--small` shows on a processor that it works, with
a model of no size, and records nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import Goal, Table, record
from transformers import LlamaConfig, LlamaForCausalLM

from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.probe import other_bits
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import Owner

DOCUMENTS, TOKENS, NEW, ROUNDS, PAIRS, CHUNK = 5, 5000, 100, 5, 100, 512
ROOM, NAME = 2**34, bytes(32)
CLAIM = "On a GPU too a prompt that begins like an earlier one costs its new tokens, bit for bit."
# The shape of Llama 3.1 8B.
LARGE = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
}
SMALL = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
}


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="cuda")
    options.add_argument("--chunk", type=int, default=CHUNK)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--pairs", type=int, default=PAIRS)
    options.add_argument("--small", action="store_true", help="on a processor; nothing is recorded")
    given = options.parse_args(argv)
    if not given.small and not torch.cuda.is_available():
        print("no GPU that torch can use: left out. On one it would read 25,100 tokens cold, from")
        print("memory and from disk, and compare the bits of 100 pairs. --small: on a processor")
        return 0
    device = torch.device("cpu" if given.small else given.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model_on(device, SMALL if given.small else LARGE), given.chunk, Path(folder))
        other = other_bits(bench.network, frozenset(), given.chunk)
        print("bits that the probe found changed:", other)
        differing = bench.differing(given.pairs, TOKENS // (10 if given.small else 1))
        print(f"pairs that differ: {differing} of {given.pairs}")
        seconds = bench.measure(DOCUMENTS * TOKENS // (20 if given.small else 1), given.rounds)
    for name, taken in seconds.items():
        print(name, *(round(1000 * each, 1) for each in taken), "ms")
    if not given.small:
        write(seconds, differing, given, torch.cuda.get_device_name(device))
    return int(bool(differing or other))


def model_on(device: torch.device, shape: dict[str, int]) -> Any:
    """Random weights, made where they are used: 16 GB would take minutes to move."""
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            network = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.05))
    finally:
        torch.set_default_dtype(torch.float32)
    return network.eval()


class Bench:
    """One model, read with what is kept in memory, on disk, and with nothing."""

    def __init__(self, network: Any, chunk: int, folder: Path) -> None:
        self.network, self._chunk, self._folder = network, chunk, folder
        self._chance = random.Random(1)
        self._index: PrefixIndex[torch.Tensor] = PrefixIndex(ROOM)
        self._warm, self._cold = self._reader(self._index), self._reader(None)

    def measure(self, shared: int, rounds: int) -> dict[str, list[float]]:
        """Seconds to the logits of the first token, by where the documents came from."""
        documents = self._tokens(shared)
        self._fill_disk(documents)
        self._read(self._warm, documents + self._tokens(NEW))
        seconds: dict[str, list[float]] = {"cold": [], "memory": [], "disk": []}
        for _ in range(rounds):
            prompt = documents + self._tokens(NEW)
            restarted = DiskTier(self._folder, NAME, ROOM)
            readers = {
                "cold": self._cold,
                "memory": self._warm,
                "disk": self._reader(PrefixIndex(ROOM), restarted),
            }
            for name, reader in readers.items():
                began = time.perf_counter()
                reading = self._read(reader, prompt)
                seconds[name].append(time.perf_counter() - began)
                assert (reading.cached_tokens > 0) == (name != "cold"), name
            restarted.close()
        return seconds

    def differing(self, pairs: int, most: int) -> int:
        """How many of so many prompts have other logits warm than cold."""
        found = 0
        for _ in range(pairs):
            owner = Owner(self._chance.randbytes(8).hex())
            shared = self._tokens(self._chance.randrange(1, most))
            ends = [self._tokens(self._chance.randrange(1, 600)) for _ in range(2)]
            self._read(self._warm, shared + ends[0], owner)
            prompt = shared + ends[1]
            warm, cold = (self._read(each, prompt, owner) for each in (self._warm, self._cold))
            found += not torch.equal(warm.logits, cold.logits)
        return found

    def _fill_disk(self, documents: list[int]) -> None:
        tier = DiskTier(self._folder, NAME, ROOM)
        self._read(self._reader(PrefixIndex(ROOM), tier), documents)
        if not tier.flush(600):
            raise SystemExit(f"{self._folder} did not take the documents' state in ten minutes")
        tier.close()

    def _reader(
        self, kept: PrefixIndex[torch.Tensor] | None, below: DiskTier | None = None
    ) -> ReusingGenerator:
        return exact_generator(
            Keeping(
                self.network, chunk_tokens=self._chunk, fingerprint=NAME, kept=kept, below=below
            ),
            frozenset(),
        )

    def _read(
        self, reader: ReusingGenerator, prompt: list[int], owner: Owner | None = None
    ) -> Reading:
        """The logits are in main memory when it returns, so the device has done its work."""
        reading = reader.read(Asking.of(prompt, owner or Owner("measured")), lambda: False)
        assert reading is not None
        return reading

    def _tokens(self, count: int) -> list[int]:
        most = self.network.config.vocab_size
        return [self._chance.randrange(most) for _ in range(count)]


def write(
    seconds: dict[str, list[float]], differing: int, given: argparse.Namespace, device: str
) -> None:
    cold = median(seconds["cold"])
    rows: list[list[str | float | int | None]] = [
        [name, 1000 * median(taken), round(cold / median(taken), 2)]
        for name, taken in seconds.items()
    ]
    what = f"{DOCUMENTS * TOKENS:,} + {NEW} tokens"
    table = Table(
        f"Time to the first token, ms, {what}", ["documents from", "ms", "cold / it"], rows
    )
    goals = [Goal(f"pairs of {given.pairs} whose bits differ", "= 0", differing, not differing)]
    shape = "random weights of the shape of Llama 3.1 8B, bfloat16"
    notes = [f"{device}; {shape}, chunks of {given.chunk} tokens, median of {given.rounds} rounds."]
    record("kv_gpu", CLAIM, [table], goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
