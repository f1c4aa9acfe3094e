"""Prompt modules: time to the first token, and how far answers are from reading everything.

The packaged model, fp32, one thread; CPU seconds. A schema after the persona of Prompt Cache (eight
traits of three members, a parameter, a question behind it) is compiled once, then prompts take one
member of each trait. Fidelity, on those and on real prompts whose passages are members of unions
beside passages of other prompts: against one pass over the same ids at the same positions, and
against one over the plain prompt without holes. KL and agreement of the next token at 16 places.

    python benchmarks/kv_modules.py --quick         minutes, nothing is written down
    python benchmarks/kv_modules.py --prompts 200   hours; goes on where it was stopped
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from record import Goal, Table, record
from reuse.persona import QUESTIONS, SCHEMA, choices
from reuse.prompts import Prompt, prompts

from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.modules.chat import compiled
from thinkonce.kv.modules.layout import Layout, Leaf, Place
from thinkonce.kv.modules.prompt import ModulePrompt, Piece, SchemaPrompt, put_together
from thinkonce.kv.modules.reader import ModuleReader
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load

PLACES, PROMPTS, QUICK, SWITCHES = 16, 200, 4, 6
KEPT = Path(__file__).parent / "build" / "kv_modules.jsonl"
CLAIM = "Texts with fixed positions are read once; a prompt computes its arguments and question."
MOST = 4 << 30  # bytes of attention state
Rows = Sequence[Mapping[str, Any]]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=PROMPTS)
    options.add_argument("--quick", action="store_true", help="four prompts, nothing written")
    options.add_argument("--kept", type=Path, default=KEPT, help="what was measured so far")
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    torch.set_num_threads(1)
    bench = Bench(load())
    count = QUICK if given.quick else given.prompts
    given.kept.parent.mkdir(parents=True, exist_ok=True)
    speed = bench.speed()
    bench.fidelity(count, given.kept)
    rows = [json.loads(line) for line in given.kept.read_text("utf-8").splitlines()]
    tables = [speed_table(speed), *(fidelity_table(rows, kind) for kind in ("persona", "real"))]
    for table in tables:
        print(table.title, *("\t".join(map(str, row)) for row in table.rows), sep="\n")
    if not given.quick:
        write(speed, rows, tables)
    return 0


def never() -> bool:
    return False


class Bench:
    """One model, whose blocks are kept in memory."""

    def __init__(self, model: Model) -> None:
        self._model = model
        index: PrefixIndex[torch.Tensor] = PrefixIndex(MOST)
        keeping = Keeping(model.network, chunk_tokens=128, fingerprint=bytes(32), kept=index)
        self._generator = ReusingGenerator(keeping, frozenset(), [ModuleReader(keeping)])
        self._persona = compiled(SCHEMA, model.tokenizer, model.context_tokens)

    def _cut(self, text: str) -> list[int]:
        ids = self._model.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(ids["input_ids"])

    def _asked(self, taken: Sequence[str], question: str, *, is_exact: bool) -> ModulePrompt:
        tokenizer, schema = self._model.tokenizer, self._persona
        text = schema.chat.trailing(tokenizer, [{"role": "user", "content": question}])
        trailing = tokenizer(text, add_special_tokens=False)["input_ids"]
        return put_together(
            schema.layout, ["name", *taken], {"who": "Anna"}, trailing, self._cut, is_exact=is_exact
        )

    # -- time to the first token -----------------------------------------------------------------

    def speed(self) -> dict[str, Any]:
        """CPU seconds, and tokens that were computed after a member was switched."""
        began = time.process_time()
        for _ in self._generator.preload(Asking.of(SchemaPrompt.made(self._persona.layout)), never):
            pass
        found: dict[str, Any] = defaultdict(list)
        found["compile"] = time.process_time() - began
        found["scaffold tokens"] = self._persona.rows
        drawn = random.Random(7)
        for taken in drawn.sample(list(choices()), SWITCHES):
            for name, is_exact in (("full", True), ("modules", False)):
                asked = self._asked(taken, drawn.choice(QUESTIONS), is_exact=is_exact)
                began = time.process_time()
                reading = self._read(asked)
                found[name].append(time.process_time() - began)
            found["tokens"].append(len(asked))
            found["computed"].append(len(asked) - reading.cached_tokens)
            leaves = sum(len(piece.tokens) for piece in asked.pieces if piece.leaf is not None)
            found["of modules"].append(leaves - reading.cached_tokens)
        return found

    def _read(self, asked: ModulePrompt) -> Reading:
        found = self._generator.read(Asking.of(asked), never)
        assert found is not None
        return found

    # -- fidelity --------------------------------------------------------------------------------

    def fidelity(self, count: int, kept: Path) -> None:
        """A line a prompt, in one order; those that are in the file are not measured again."""
        done = {json.loads(line)["prompt"] for line in _lines(kept)}
        for name, kind, asked in self._prompts(count):
            if name in done:
                continue
            row = {"prompt": name, "kind": kind, "tokens": len(asked), **self._compared(asked)}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name}: {row}", flush=True)

    def _prompts(self, count: int) -> Iterator[tuple[str, str, ModulePrompt]]:
        drawn, every = random.Random(8), list(choices())
        for number in range(count // 4):
            asked = self._asked(drawn.choice(every), drawn.choice(QUESTIONS), is_exact=False)
            yield f"persona {number}", "persona", asked
        real = prompts(self._cut_special, count - count // 4 + 1)
        for one, other in pairwise(real):
            yield one.name, "real", _beside(one, other)

    def _cut_special(self, text: str) -> list[int]:
        return list(self._model.tokenizer.encode(text, add_special_tokens=False))

    def _compared(self, asked: ModulePrompt) -> dict[str, float]:
        """Of modules, against reading all at its positions and plainly, on its 16 tokens each."""
        placed = ModulePrompt.made(asked.layout, asked.pieces, is_exact=True)
        plain = ModulePrompt.made(asked.layout, [Piece(0, tuple(asked))], is_exact=True)
        found: dict[str, float] = {}
        for name, truth, ways in (
            ("placed", placed, {"modules": asked}),
            ("plain", plain, {"modules": asked, "holes": placed}),
        ):
            right, answer = self._truth(truth)
            for way, prompt in ways.items():
                shown = self._shown(prompt, answer)
                divergence = (right.exp() * (right - shown)).sum(-1).clamp_min(0)
                agree = (right.argmax(-1) == shown.argmax(-1)).float()
                found[f"{way} {name} kl"] = float(divergence.mean())
                found[f"{way} {name} agree"] = float(agree.mean())
                found[f"{way} {name} first"] = float(agree[0])
        return found

    def _truth(self, prompt: ModulePrompt) -> tuple[torch.Tensor, list[int]]:
        """Log-probabilities [PLACES, vocabulary], and the tokens they prefer."""
        reading = self._read(prompt)
        assert reading.continued is not None
        logits, answer, at = [reading.logits], list[int](), reading.continued.position
        while len(answer) < PLACES - 1:
            answer.append(int(logits[-1].argmax()))
            logits.append(reading.continued.step(answer[-1], at))
            at += 1
        return torch.stack(logits).log_softmax(-1), answer

    def _shown(self, prompt: ModulePrompt, answer: Sequence[int]) -> torch.Tensor:
        reading = self._read(prompt)
        assert reading.continued is not None
        logits, at = [reading.logits], reading.continued.position
        for place, token in enumerate(answer):
            logits.append(reading.continued.step(token, at + place))
        return torch.stack(logits).log_softmax(-1)


def _beside(one: Prompt, other: Prompt) -> ModulePrompt:
    """A prompt whose chunks are no defaults: each is a union's member beside one of another's."""
    leaves, modules, pieces = [Leaf(0, one.head, ())], dict[tuple[str, ...], Place](), list[Piece]()
    at = len(one.head)
    for number, chunk in enumerate(one.chunks):
        default = other.chunks[number % len(other.chunks)]
        end = at + max(len(chunk), len(default))
        for name, ids in ((f"default-{number}", default), (f"chunk-{number}", chunk)):
            modules[name,] = Place(at, end, number, is_default=ids is default)
            leaves.append(Leaf(at, tuple(ids), (name,)))
        at = end
    layout = Layout("real", at, tuple(leaves), (), modules)
    taken = [leaf for leaf in leaves if not leaf.module or leaf.module[0].startswith("chunk")]
    pieces = [Piece(leaf.start, leaf.tokens, leaf) for leaf in taken]
    return ModulePrompt.made(layout, [*pieces, Piece(at, one.asked)])


def _lines(kept: Path) -> list[str]:
    return kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []


# -- the page --------------------------------------------------------------------------------------


def speed_table(speed: Mapping[str, Any]) -> Table:
    full, modules = median(speed["full"]), median(speed["modules"])
    tokens, computed = median(speed["tokens"]), median(speed["computed"])
    rows: list[list[str | float | int | None]] = [
        ["everything read", tokens, round(full, 3), 1.0],
        ["modules", computed, round(modules, 3), round(full / modules, 1)],
        ["compiling the schema, once", speed["scaffold tokens"], round(speed["compile"], 1), None],
    ]
    columns = ["", "tokens computed", "seconds", "full / modules"]
    title = f"Persona of eight traits, {SWITCHES} prompts: CPU seconds to the first token"
    return Table(title, columns, rows)


WAYS = {
    "modules placed": "modules, against the same positions",
    "modules plain": "modules, against the plain prompt",
    "holes plain": "everything read with holes, against the plain prompt",
}


def fidelity_table(rows: Rows, kind: str) -> Table:
    some = [row for row in rows if row["kind"] == kind]
    lines: list[list[str | float | int | None]] = []
    for key, said in WAYS.items():
        divergence = sorted(row[f"{key} kl"] for row in some)
        if not divergence:
            continue
        lines.append(
            [
                said,
                round(fmean(divergence), 4),
                round(median(divergence), 4),
                round(divergence[min(len(some) - 1, int(0.95 * len(some)))], 4),
                round(fmean(row[f"{key} agree"] for row in some), 3),
                round(fmean(row[f"{key} first"] for row in some), 3),
            ]
        )
    columns = ["", "KL mean", "median", "P95", "agreement", "first token"]
    return Table(f"{len(some)} {kind} prompts, {PLACES} places each", columns, lines)


def write(speed: Mapping[str, Any], rows: Rows, tables: Sequence[Table]) -> None:
    ratio = median(speed["full"]) / median(speed["modules"])
    switched = max(speed["of modules"])
    goals = [
        Goal("full / modules, CPU time to the first token", ">= 10", round(ratio, 1), ratio >= 10),
        Goal("tokens of modules computed after a switch", "0", switched, switched == 0),
    ]
    notes = [
        "SmolLM2-135M-Instruct, fp32, 1 thread. KL(truth || method) in nats, a mean over the "
        "places; truth is one pass over the same ids.",
        "Real prompts are the hard case: no passage was encoded with the ones it stands beside.",
    ]
    record("kv_modules", CLAIM, list(tables), goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
