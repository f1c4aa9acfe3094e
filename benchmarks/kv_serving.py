"""What reading a document once is worth to many who ask about it, through the line and the worker.

The packaged model, fp32: questions of 16 tokens behind one document of 2,048, with and without
reuse, over the length of the answer; how much memory prompts take that share it; and how long a
short request waits behind a long answer, one after the other and by turns.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from record import Goal, Table, record

from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.generator import Prefilled, Read, Sampling, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.support import fingerprint_of, shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.ticket import Turn
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load

DOCUMENT, QUESTION, CHUNK, MEMORY = 2048, 16, 128, 2**30
ANSWERS = (8, 1, 32)  # tokens; the one with a goal comes first, all its questions are asked
QUESTIONS, FEW, SHARERS, LONG = 50, 5, 100, 128
GOAL_TOKENS, GOAL, ONCE_GOAL = 8, 7.0, 1.05
CLAIM = "Whoever asks about a document that was read before does not wait for it to be read again."


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cold", type=int, default=3, help="questions read in full, each length")
    options.add_argument("--questions", type=int, default=QUESTIONS)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    torch.set_num_threads(given.threads)
    bench = Bench(load())
    rows = []
    for tokens in ANSWERS:
        asked = given.questions if tokens == GOAL_TOKENS else min(FEW, given.questions)
        rows.append(bench.rates(tokens, given.cold, asked))
        print(*rows[-1], sep="\t", flush=True)
    rows.sort(key=lambda row: float(row[0] or 0))
    once = bench.stored_once()
    waits = [bench.wait_behind_a_long_answer(sequences) for sequences in (1, 4)]
    print(f"stored once: {once:.3f}; a short request behind a long answer: {waits} s")
    if given.questions >= QUESTIONS:
        write(rows, once, waits, given.cold, given.threads)
    return 0


class Bench:
    """One model behind a line; each measurement begins with an empty memory."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._random = torch.Generator().manual_seed(1)
        self._document = self._tokens(DOCUMENT)
        self._fingerprint = fingerprint_of(model.network, model.tokenizer, CHUNK).digest()

    def rates(self, tokens: int, cold: int, warm: int) -> list[str | float | int | None]:
        """Requests per second without and with reuse, of 50 of which the first reads all.

        Without reuse every request costs the same, so `cold` of them stand for all; with it the
        first and `warm` - 1 further ones do.
        """
        generator, _ = self._generator(keep=False)
        without = cold / self._seconds(generator, cold, tokens)
        generator, _ = self._generator(keep=True)
        first = self._seconds(generator, 1, tokens)
        further = self._seconds(generator, warm - 1, tokens) / (warm - 1)
        with_it = QUESTIONS / (first + (QUESTIONS - 1) * further)
        return [tokens, round(without, 4), round(with_it, 4), round(with_it / without, 2)]

    def stored_once(self) -> float:
        """Bytes of prompts that share the document over the bytes of one."""
        generator, index = self._generator(keep=True)
        with_one = DOCUMENT * shape_of(self._model.network).bytes_a_token
        self._run(generator, [self._job(generator, 1) for _ in range(SHARERS)], sequences=4)
        assert index is not None
        return index.stats().bytes / with_one

    def wait_behind_a_long_answer(self, sequences: int) -> float:
        """Seconds until a short request has its answer that comes just after a long one."""
        generator, _ = self._generator(keep=True)
        ended: list[float] = []
        began = time.perf_counter()
        long = self._job(generator, LONG, prompt=self._tokens(64))
        short = self._job(generator, 1, lambda: ended.append(time.perf_counter()), self._tokens(64))
        self._run(generator, [long, short], sequences)
        return round(ended[0] - began, 2)

    def _seconds(self, generator: ReusingGenerator, requests: int, tokens: int) -> float:
        jobs = [self._job(generator, tokens) for _ in range(requests)]
        began = time.perf_counter()
        self._run(generator, jobs, sequences=4)
        return time.perf_counter() - began

    def _run(
        self,
        generator: ReusingGenerator,
        jobs: Sequence[tuple[Callable[[Callable[[], bool]], Iterator[Turn]], Demand]],
        sequences: int,
    ) -> None:
        line, lost = Scheduler(len(jobs), sequences=sequences), threading.Event()
        for job, demand in jobs:
            line.submit(job, lambda why: lost.set(), demand)
        line.close()
        assert not lost.is_set()

    def _job(
        self,
        generator: ReusingGenerator,
        tokens: int,
        ended: Callable[[], None] = lambda: None,
        prompt: list[int] | None = None,
    ) -> tuple[Callable[[Callable[[], bool]], Iterator[Turn]], Demand]:
        asked = prompt or self._document + self._tokens(QUESTION)
        sampling = Sampling(max_tokens=tokens, temperature=0)
        owner = Owner("everyone")

        def run(cancelled: Callable[[], bool]) -> Iterator[Turn]:
            for step in generator.generate(Asking.of(asked, owner), sampling, cancelled):
                match step:
                    case Read():
                        yield Turn(read=step.tokens)
                    case Token():
                        yield Turn(made=1)
                    case Prefilled():
                        pass
            ended()

        return run, Demand(owner.tenant, len(asked), generator.known(Asking.of(asked, owner)))

    def _generator(
        self, *, keep: bool
    ) -> tuple[ReusingGenerator, PrefixIndex[torch.Tensor] | None]:
        index: PrefixIndex[torch.Tensor] | None = PrefixIndex(MEMORY) if keep else None
        return exact_generator(
            Keeping(
                self._model.network,
                chunk_tokens=CHUNK,
                fingerprint=self._fingerprint,
                kept=index,
                memory=MEMORY,
            ),
            frozenset(),  # so that every answer has its length
        ), index

    def _tokens(self, length: int) -> list[int]:
        found: list[int] = torch.randint(
            20, self._model.vocabulary, (length,), generator=self._random
        ).tolist()
        return found


def write(
    rows: list[list[str | float | int | None]],
    once: float,
    waits: list[float],
    cold: int,
    threads: int,
) -> None:
    faster = next(float(row[3] or 0) for row in rows if row[0] == GOAL_TOKENS)
    what = f"requests per second with / without reuse, answers of {GOAL_TOKENS} tokens"
    stored = f"bytes of {SHARERS} prompts that share {DOCUMENT:,} tokens / of one"
    goals = [
        Goal(what, f">= {GOAL:g}", faster, faster >= GOAL),
        Goal(stored, f"<= {ONCE_GOAL}", round(once, 3), once <= ONCE_GOAL),
    ]
    title = f"{QUESTIONS} questions over {DOCUMENT:,} tokens, requests per second"
    tables = [
        Table(title, ["tokens of an answer", "without", "with reuse", "ratio"], rows),
        Table(
            f"A short request behind an answer of {LONG} tokens",
            ["", "seconds to its answer"],
            [["one after the other", waits[0]], ["by turns", waits[1]]],
        ),
    ]
    notes = [
        f"SmolLM2-135M-Instruct, fp32, {threads} thread{'s' * (threads > 1)}, chunks of {CHUNK}; "
        f"{cold} questions of each length without reuse, where each costs the same. The first "
        "question with reuse reads the document and counts; of lengths other than "
        f"{GOAL_TOKENS} tokens {FEW} are asked and stand for the rest."
    ]
    record("kv_serving", CLAIM, tables, goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
