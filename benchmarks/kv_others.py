"""Prefix reuse of four engines: what a warm prompt costs, and whether it says the same.

The packaged model: transformers' recipe of copying a cache, vLLM on the CPU and this engine read
the same weights, llama.cpp the GGUF file they come from. Each runs in a process, and where its
pins differ an environment, of its own; they take turns within each round. A prompt is 1,024
tokens of this project's documents and 64 others; a cold one may use nothing of what was read
before. `answers that changed` are those whose 64 greedy tokens differ between cold and warm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from record import Goal, Table, record
from transformers import AutoTokenizer

from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.conversion import converted
from thinkonce.settings import data_folder

HERE = Path(__file__).parent
SHARED, NEW, ANSWER, ROUNDS, CONTEXT = 1024, 64, 64, 10, 2048
CLAIM = "A warm prompt gives the bits of a cold one; other engines may say something else."
# Contender, what it is called, and its environment if it is not this one.
CONTENDERS = {
    "exact": ("thinkonce", ""),
    "copied": ("transformers, cache copied", ""),
    "llama_cpp": ("llama.cpp, Q4_1", "llama_cpp"),
    "vllm_cpu": ("vLLM", "vllm"),
}


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = options.parse_args(argv)
    model = packaged.MODELS[0]
    source, place = packaged.locate(model), converted(model, data_folder() / "models")
    if source is None or place is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    setting = {
        "model": str(place),
        "gguf": str(source),
        "threads": given.threads,
        "dtype": given.dtype,
        "context": CONTEXT,
    }
    with ExitStack() as stack:
        racers = [stack.enter_context(racer(name, setting)) for name in present()]
        for prompt, again in prompts(place, given.rounds):
            for each in racers:
                each.race(prompt, again)
    for each in racers:
        print(*each.row(), sep="\t")
    if given.rounds >= ROUNDS:
        write(racers, given.threads, given.dtype)
    return 0


@dataclass
class Racer:
    """One contender's process, and what was measured of it."""

    name: str
    version: str
    process: subprocess.Popen[str]
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    changed: int = 0

    def race(self, prefix: list[int], prompt: list[int]) -> None:
        """Leave `prefix` behind, then time and compare `prompt` cold and warm."""
        self.ask(prefix, 1, known=True)
        cold, warm = (self.ask(prompt, 1, known=known) for known in (False, True))
        self.cold.append(cold["seconds"])
        self.warm.append(warm["seconds"])
        self.cached.append(warm["cached"])
        answers = [self.ask(prompt, ANSWER, known=known)["answer"] for known in (False, True)]
        self.changed += answers[0] != answers[1]

    def ask(self, prompt: list[int], tokens: int, *, known: bool) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"prompt": prompt, "tokens": tokens, "known": known}))
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return dict(json.loads(line))

    def row(self) -> list[str | float | int | None]:
        ratio = median(self.cold) / median(self.warm)
        return [
            f"{self.name} {self.version}",
            1000 * median(self.cold),
            1000 * median(self.warm),
            round(ratio, 2),
            int(median(self.cached)),
            f"{self.changed} of {len(self.cold)}",
        ]


def present() -> Iterator[str]:
    for name, (title, home) in CONTENDERS.items():
        if Path(python_of(home)).exists():
            yield name
        else:
            made = f"make bench-{'vllm' if home == 'vllm' else 'tools'}"
            print(f"{title} is left out: {python_of(home)} is not there ({made} installs it)")


def python_of(home: str) -> str:
    """BENCH_VLLM_PYTHON and the like name another one."""
    if not home:
        return sys.executable
    kept = HERE.parent / ".venv" / home / "bin/python"
    return os.environ.get(f"BENCH_{home.upper()}_PYTHON", str(kept))


@contextmanager
def racer(name: str, setting: dict[str, Any]) -> Iterator[Racer]:
    title, home = CONTENDERS[name]
    process = subprocess.Popen(
        [python_of(home), str(HERE / "contenders" / f"{name}.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(setting["threads"])},
    )
    try:
        assert process.stdin
        assert process.stdout
        print(json.dumps(setting), file=process.stdin, flush=True)
        if not (line := process.stdout.readline()):
            raise SystemExit(f"{title} did not start: {process.wait()}")
        found = Racer(title, json.loads(line)["version"], process)
        for known in (True, False):  # the first of anything is slow
            found.ask(list(range(20, 320)), 4, known=known)
        yield found
    finally:
        process.kill()
        process.wait()


def prompts(model: Path, rounds: int) -> Iterator[tuple[list[int], list[int]]]:
    """A prefix, and it with other tokens behind, in each round others."""
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    pages = sorted((HERE.parent / "docs").glob("*.md"))
    text = "\n".join(page.read_text() for page in pages)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    size = SHARED + NEW
    if len(ids) < rounds * size:
        raise SystemExit(f"{rounds} rounds need {rounds * size} tokens; docs/ has {len(ids)}")
    for n in range(rounds):
        part = ids[n * size : (n + 1) * size]
        yield part[:SHARED], part


def write(racers: list[Racer], threads: int, dtype: str) -> None:
    columns = ["engine", "cold", "warm", "cold/warm", "tokens cached", "answers that changed"]
    title = f"Time to the first token, ms, {SHARED:,} shared tokens + {NEW}"
    ours = racers[0]
    goals = [Goal("answers of ours that changed", "= 0", ours.changed, not ours.changed)]
    notes = [
        f"SmolLM2-135M-Instruct, {dtype}, {threads} thread{'s' * (threads > 1)}, greedy, median of "
        f"{len(ours.cold)} rounds. llama.cpp computes with the quantised weights of the file.",
    ]
    table = Table(title, columns, [each.row() for each in racers], chart="cold/warm")
    record("kv_others", CLAIM, [table], goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
