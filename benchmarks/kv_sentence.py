"""What is lost, and what is read, where an answer attends to a quarter of a long prompt's tokens.

The packaged model, fp32. A prompt is read once; each method goes on from a copy of its state. It is
shown the 16 tokens that full attention prefers: KL(full || method) of the next token at each of 15
places (the first comes from the exact reading), and whether both prefer the same. What a method
says by itself is judged against the answer, where full attention beats chance by 20 points.

Each prompt is a line of `--progress`; the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from kv_sentence_prompts import CHANCE, Prompt, prompts
from record import Goal, Table, record

from thinkonce.kv.generation.attending import Step
from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.sentence.decoder import Choosing, SentenceDecoder
from thinkonce.kv.sentence.ends import SentenceEnds
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load

SHARE, PLACES, PIECE = 0.25, 16, 512
LENGTHS, STEPS = (2048, 4096, 8000), 32
MARGIN = 0.20  # by which full attention must beat chance
LOSS_GOAL, BYTES_GOAL = 2.0, 0.40
SENTENCES, FULL = "sentences", "full"
CLAIM = "An answer to a long prompt may read a quarter of its state: what that loses."


def dot_score(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """As published: the dot product of a sentence's vector with a query, here the mean one of the
    heads that share it.
    """
    layers, kv_heads, _, dim = vectors.shape
    shared = queries.view(layers, kv_heads, -1, dim).mean(2)
    found: torch.Tensor = (vectors @ shared[..., None])[..., 0]
    return found


def random_score(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return torch.rand(vectors.shape[:3])


def latest_score(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return torch.arange(vectors.shape[2]).expand(vectors.shape[:3])


METHODS = {
    SENTENCES: Choosing(),
    "as published": Choosing(factor=3, score=dot_score),
    "top tokens": Choosing(factor=1),
    "random sentences": Choosing(score=random_score),
    "latest tokens": Choosing(score=latest_score),
}


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=20, help="of each kind")
    options.add_argument("--progress", type=Path, default=Path("kv_sentence.jsonl"))
    options.add_argument("--minutes", type=float, default=25.0, help="no prompt is begun later")
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    torch.set_num_threads(1)
    model = load()
    found = measured(Bench(model), given.prompts, given.progress, given.minutes * 60)
    if not found:
        return 0
    made = [*tables(found), pace_table(model)]
    for table in made:
        print(table.title, *([table.columns, *table.rows]), sep="\n")
    write(found, made)
    return 0


def measured(
    bench: Bench, count: int, progress: Path, seconds: float
) -> list[dict[str, dict[str, Any]]]:
    """One for each prompt, by method."""
    lines = progress.read_text("utf-8").splitlines() if progress.exists() else []
    known = {line["prompt"]: line["methods"] for line in map(json.loads, lines)}
    wanted, began = prompts(bench.cut, count), time.monotonic()
    for prompt in wanted:
        if prompt.name in known or time.monotonic() - began > seconds:
            continue
        known[prompt.name] = bench.measured(prompt)
        with progress.open("a", encoding="utf-8") as file:
            print(json.dumps({"prompt": prompt.name, "methods": known[prompt.name]}), file=file)
        print(prompt.name, len(prompt.tokens), f"{time.monotonic() - began:.0f} s", flush=True)
    return [known[prompt.name] for prompt in wanted if prompt.name in known]


class Bench:
    """One model. A prompt's state is read once and copied for each method."""

    def __init__(self, model: Model) -> None:
        self._network, self._tokenizer, self._end_ids = (
            model.network,
            model.tokenizer,
            model.end_ids,
        )
        self._ends = SentenceEnds(model.tokenizer)
        shape = shape_of(model.network)
        self._read, self._slab, self._memory = Slab(shape), Slab(shape), Slab(shape)

    def cut(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def measured(self, prompt: Prompt) -> dict[str, dict[str, Any]]:
        first = self._prefill(prompt)
        answer = [int(first.argmax())]
        truth, seconds = self._shown(self._whole(), answer, prompt, grows=True)
        found = {FULL: self._judged(prompt, answer, seconds) | {"tokens": len(prompt.tokens)}}
        for name, choosing in METHODS.items():
            torch.manual_seed(len(prompt.tokens))
            decoder = SentenceDecoder(
                self._network, self._ends, round(SHARE * len(prompt.tokens)), choosing
            )
            found[name] = self._method(prompt, decoder, answer, truth)
        return found

    def _method(
        self, prompt: Prompt, decoder: SentenceDecoder, answer: list[int], truth: torch.Tensor
    ) -> dict[str, Any]:
        with torch.inference_mode():
            self._memory.reserve(decoder.tokens)
        self._again(prompt)
        began = time.process_time()
        written = decoder.begun(prompt.tokens, self._slab, self._memory)
        begin = time.process_time() - began
        rows, seconds = self._shown(written.step, list(answer), prompt)
        divergence = (truth.exp() * (truth - rows)).sum(-1).clamp_min(0)
        agree = rows.argmax(-1) == truth.argmax(-1)
        said = answer
        if prompt.answers and not bool(agree.all()):
            self._again(prompt)
            said = answer[:1]
            step = decoder.begun(prompt.tokens, self._slab, self._memory).step
            self._shown(step, said, prompt, grows=True)
        whole = len(prompt.tokens) * self._slab.shape.bytes_a_token
        return {
            **self._judged(prompt, said, seconds),
            "kl": float(divergence.mean()),
            "agree": float(agree.float().mean()),
            "begin": begin,
            "attended": written.arena.bytes / whole,
            "beside": written.sentences.bytes / whole,
        }

    def _shown(
        self, step: Step, answer: list[int], prompt: Prompt, *, grows: bool = False
    ) -> tuple[torch.Tensor, list[float]]:
        """Log-probabilities behind each token but the last, and seconds of CPU of each step.

        `grows`: the answer goes on with what is preferred.
        """
        rows, seconds, length = [], [], len(prompt.tokens)
        for place in range(PLACES - 1):
            began = time.process_time()
            logits = step(answer[place], length + place)
            seconds.append(time.process_time() - began)
            rows.append(logits.log_softmax(-1))
            if grows:
                answer.append(int(logits.argmax()))
        return torch.stack(rows), seconds

    def _judged(
        self, prompt: Prompt, said: Sequence[int], seconds: Sequence[float]
    ) -> dict[str, Any]:
        ends = [place for place, token in enumerate(said) if token in self._end_ids]
        text = str(self._tokenizer.decode(said[: ends[0] if ends else None]))
        right = any(known.lower() in text.lower() for known in prompt.answers)
        best = max((f1(text, known) for known in prompt.answers), default=0.0)
        judged = {"right": right, "f1": best} if prompt.answers else {}
        return {"kind": prompt.kind, "text": text, "ms": 1000 * median(seconds), **judged} | {
            "mean_ms": 1000 * mean(seconds)
        }

    def _prefill(self, prompt: Prompt) -> torch.Tensor:
        slab, logits = self._read, torch.empty(0)
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(prompt.tokens) + PLACES)
        for start in range(0, len(prompt.tokens), PIECE):
            piece = prompt.tokens[start : start + PIECE]
            logits = forward(self._network, piece, start, slab.cache)
        self._again(prompt)
        return logits

    def _again(self, prompt: Prompt) -> None:
        """The prompt's state, as it was read, in the slab that answers write to."""
        with torch.inference_mode():
            self._slab.begin()
            self._slab.reserve(len(prompt.tokens) + PLACES)
            self._slab.load(self._read.tensor[:, :, :, : len(prompt.tokens)])

    def _whole(self) -> Step:
        return lambda token, place: forward(self._network, [token], place, self._slab.cache)


def paces(model: Model) -> list[list[str | float | int | None]]:
    """Milliseconds of CPU of a step over so much state, which is random: its cost is the same."""
    network, random = model.network, torch.Generator().manual_seed(1)
    rows: list[list[str | float | int | None]] = []
    for length in LENGTHS:
        slabs = [Slab(shape_of(network)) for _ in range(3)]
        with torch.inference_mode():
            for slab in slabs:
                slab.reserve(length + STEPS)
            state = torch.randn(slabs[0].tensor[:, :, :, :length].shape, generator=random)
            for slab in slabs[:2]:
                slab.load(state)
        budget = round(SHARE * length)
        tokens = torch.randint(20, model.vocabulary, (length + STEPS,), generator=random).tolist()
        decoder = SentenceDecoder(network, SentenceEnds(model.tokenizer), budget)
        written = decoder.begun(tokens[:length], slabs[1], slabs[2])
        seconds: dict[str, list[float]] = {FULL: [], SENTENCES: []}
        for place in range(length, length + STEPS):
            began = time.process_time()
            forward(network, [tokens[place]], place, slabs[0].cache)
            between = time.process_time()
            written.step(tokens[place], place)
            seconds[FULL].append(between - began)
            seconds[SENTENCES].append(time.process_time() - between)
        full, less = (1000 * mean(seconds[name]) for name in (FULL, SENTENCES))
        rows.append([f"{length:,}", budget, round(full, 1), round(less, 1), round(full / less, 2)])
    return rows


def f1(said: str, known: str) -> float:
    """Of words, as SQuAD counts them, without articles being dropped."""
    ours, theirs = (_words(text) for text in (said, known))
    rest, same = list(theirs), 0
    for word in ours:
        if word in rest:
            rest.remove(word)
            same += 1
    return 2 * same / (len(ours) + len(theirs)) if same else 0.0


def _words(text: str) -> list[str]:
    return "".join(each if each.isalnum() else " " for each in text.lower()).split()


Found = Sequence[Mapping[str, Mapping[str, Any]]]


def tables(found: Found) -> list[Table]:
    far = ["kind", "prompts", "method", "KL", "KL, worst", "top-1 %", "answer in it %", "F1 %"]
    return [
        Table("How far from full attention", far, _rows(found)),
        Table(
            "What a step reads and costs",
            ["method", "attended / all bytes", "beside them", "ms a token", "before the first, ms"],
            [_cost(found, name) for name in (FULL, *METHODS)],
        ),
    ]


def _rows(found: Found) -> list[list[str | float | int | None]]:
    rows: list[list[str | float | int | None]] = []
    for kind in dict.fromkeys(each[FULL]["kind"] for each in found):
        ours = [each for each in found if each[FULL]["kind"] == kind]
        is_judged = beats_chance(found, kind)
        for name in (FULL, *METHODS):
            kls = [each[name].get("kl", 0.0) for each in ours]
            rows.append(
                [
                    *(kind, len(ours), name, round(mean(kls), 4)),
                    round(max(kls), 4),
                    round(100 * mean(each[name].get("agree", 1.0) for each in ours), 1),
                    _share(ours, name, "right") if is_judged or name == FULL else None,
                    _share(ours, name, "f1") if is_judged or name == FULL else None,
                ]
            )
    return rows


def _share(ours: Found, name: str, what: str) -> float | None:
    known = [float(each[name][what]) for each in ours if what in each[name]]
    return round(100 * mean(known), 1) if known else None


def beats_chance(found: Found, kind: str) -> bool:
    right = _share([each for each in found if each[FULL]["kind"] == kind], FULL, "right")
    return right is not None and right / 100 >= CHANCE[kind] + MARGIN


def _cost(found: Found, name: str) -> list[str | float | int | None]:
    def of(what: str) -> float | None:
        known = [each[name][what] for each in found if what in each[name]]
        return round(mean(known), 4) if known else None

    return [name, of("attended") or 1.0, of("beside"), of("mean_ms"), _ms(of("begin"))]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def pace_table(model: Model) -> Table:
    columns = ["tokens", "attended", "full, ms a token", "sentences, ms a token", "full/sentences"]
    return Table("What a step costs over longer prompts", columns, paces(model))


def write(found: Found, made: Sequence[Table]) -> None:
    goals, notes = [], []
    for kind in CHANCE:
        ours = [each for each in found if each[FULL]["kind"] == kind]
        if not ours:
            continue
        if not beats_chance(found, kind):
            right = _share(ours, FULL, "right")
            notes.append(
                f"{kind}: not measurable on this model, full attention is right in {right} %."
            )
            continue
        for what, called in (("right", "points of answers lost"), ("f1", "points of F1 lost")):
            full, less = _share(ours, FULL, what) or 0.0, _share(ours, SENTENCES, what) or 0.0
            lost = round(full - less, 1)
            goals.append(Goal(f"{kind}: {called}", f"<= {LOSS_GOAL:g}", lost, lost <= LOSS_GOAL))
    attended = max(each[SENTENCES]["attended"] for each in found)
    what = "attended bytes / all bytes of the prompt"
    goals.append(Goal(what, f"<= {BYTES_GOAL}", round(attended, 3), attended <= BYTES_GOAL))
    notes.insert(
        0,
        f"SmolLM2-135M-Instruct, fp32, one thread, {len(found)} prompts of 2,000 to 3,500 tokens; "
        f"{SHARE:.0%} of the tokens are attended to. Top tokens: those the question looks at most, "
        "chosen once. Latest: the first 32 and the latest. Random: as many sentences, drawn.",
    )
    record("kv_sentence", CLAIM, made, goals, notes, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
