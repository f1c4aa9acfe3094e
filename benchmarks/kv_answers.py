"""Scores of answers where chunks are put together: full recompute, the methods, two controls.

The packaged model, fp32, one thread; prompts of three or four chunks. A kind of prompt is measured
only where full recompute beats chance, which is the same question over chunks without the answer,
by `MARGIN` points of F1 and beyond its interval; else it is "not measurable on this model".

    passages     a question over four passages, one of which answers it
    key-value    the value of one of six keys, in three chunks
    phrase       a phrase told in one of four chunks of real text, asked for in its own wording

    python benchmarks/kv_answers.py --prompts 20 --kept FILE    of each kind; goes on where it was
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from kv_sentence import f1
from kv_sentence_prompts import WORDS
from record import Goal, Table, record
from reuse.controls import Naive, RandomLike, blend
from reuse.fidelity import PLACES, Bench, Method
from reuse.paired import paired
from reuse.prompts import CHUNKS, DATA, Cut, Prompt, prompts, rows_of

from thinkonce.kv.reuse.blend import Gradual
from thinkonce.kv.reuse.link import Link
from thinkonce.kv.reuse.looked import Looked
from thinkonce.kv.reuse.stock import STOCK
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import load

MARGIN = 10.0  # points of F1
PROMPTS, CHUNK = 20, 110  # of each kind; tokens of a chunk of text
KEPT = Path(__file__).parent / "build" / "kv_answers.jsonl"
FULL, CHANCE = "full", "chance"
LINK, GRADUAL = Link(16), Gradual(0.15, "both")
METHODS: Sequence[Method] = (
    Method(Naive()),
    Method(LINK),
    Method(RandomLike(LINK)),
    Method(blend(0.15, "both")),
    Method(GRADUAL),
    Method(RandomLike(GRADUAL)),
    Method(Naive(), "stock"),
    Method(LINK, "stock"),
    Method(Looked(0.15), "stock"),
    Method(Looked(0.3, link=8), "stock"),
)
# Each method and as many tokens as it takes, drawn at random; and what the fixed text alone does.
CONTROLLED: Sequence[tuple[Method, Method]] = (
    (Method(LINK), Method(RandomLike(LINK))),
    (Method(GRADUAL), Method(RandomLike(GRADUAL))),
    (Method(LINK), Method(Naive())),
    (Method(Naive(), "stock"), Method(Naive())),
)
CLAIM = "What a question over chunks is answered, where this model can answer it at all."
NOTES = [
    "SmolLM2-135M-Instruct, fp32, 1 thread; greedy, 16 tokens. F1 of words as SQuAD counts them, "
    "times 100; an interval is the bootstrap's of the mean difference from full recompute.",
    "Chance: full recompute over the same prompt with chunks that do not hold the answer. "
    f"A kind is measured if full recompute is {MARGIN:g} points above that, beyond its interval.",
    "Naive and random are controls: chunks side by side with nothing computed again, and as many "
    "tokens as the method above takes, drawn at random.",
]


class Asked(NamedTuple):
    """`without`: the same question over chunks that do not answer it."""

    prompt: Prompt
    without: Prompt
    answers: tuple[str, ...]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=PROMPTS, help="of each kind")
    options.add_argument("--kept", type=Path, default=KEPT, help="what was measured so far")
    options.add_argument("--page", action="store_true", help="write the page from what is kept")
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None or not DATA.is_dir():
        print(f"{packaged.DEFAULT} or {DATA} is not there: left out")
        return 0
    torch.set_num_threads(1)
    if not given.page:
        given.kept.parent.mkdir(parents=True, exist_ok=True)
        measure(given.prompts, given.kept)
    rows = [json.loads(line) for line in _lines(given.kept)]
    if rows:
        write(rows)
    return 0


def measure(count: int, kept: Path) -> None:
    """A line a prompt: F1 by method."""
    model = load()
    tokenizer = model.tokenizer

    def cut(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    def said(ids: Sequence[int]) -> str:
        ends = [place for place, token in enumerate(ids) if token in model.end_ids]
        return str(tokenizer.decode(ids[: ends[0] if ends else None])).split('"')[0]

    def score(ids: Sequence[int], known: Sequence[str]) -> float:
        return 100 * max(f1(said(ids), each) for each in known)

    bench = Bench(model.network, {"stock": cut(STOCK)})
    done = {json.loads(line)["prompt"] for line in _lines(kept)}
    every = list(asked(cut, count))
    for number, each in enumerate(every):
        if each.prompt.name in done:
            continue
        found = {
            n: score(ids, each.answers) for n, ids in bench.answers(each.prompt, METHODS, PLACES)
        }
        guessed = next(bench.answers(each.without, (), PLACES))[1]
        line = {"prompt": each.prompt.name, "kind": each.prompt.kind, "f1": found}
        line["f1"][CHANCE] = score(guessed, each.answers)
        with kept.open("a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)
        print(
            f"{number + 1} of {len(every)}: {each.prompt.name}, full {found[FULL]:.0f}", flush=True
        )


def asked(cut: Cut, count: int) -> Iterator[Asked]:
    """`count` of each kind, kinds in turns."""
    turns = (_given(cut, count, "passages"), _given(cut, count, "key-value"), _phrases(cut))
    yield from (each for turn in islice(zip(*turns, strict=False), count) for each in turn)


def _given(cut: Cut, count: int, kind: str) -> Iterator[Asked]:
    """Those of `reuse/prompts.py`; the chunks of the next one do not answer this one."""
    some = [each for each in prompts(cut, 8 * count) if each.kind == kind]
    known = _known(kind)
    for one, other in pairwise(some):
        number = int(one.name.split()[-1])
        yield Asked(one, replace(one, chunks=other.chunks), known[number])


def _known(kind: str) -> list[tuple[str, ...]]:
    if kind == "key-value":
        return [(row["value"],) for row in rows_of(DATA / "lost_in_the_middle/kv75.jsonl.gz")]
    found = (row["answers"] for row in rows_of(DATA / "lost_in_the_middle/nq_oracle.jsonl.gz"))
    return [tuple(literal_eval(each) if isinstance(each, str) else each) for each in found]


def _phrases(cut: Cut) -> Iterator[Asked]:
    drawn = random.Random("phrases in chunks")
    rows = rows_of(DATA / "minilongbench/samples.jsonl.gz")
    texts = [row["prompt"] for row in rows if row["task"] in ("gov_report", "multi_news", "qmsum")]
    head = tuple(cut("<|im_start|>user\n"))
    end = tuple(
        cut(
            "<|im_end|>\n<|im_start|>user\nWhat is the secret phrase of Anna?<|im_end|>\n"
            '<|im_start|>assistant\nThe secret phrase of Anna is "'
        )
    )
    number = 0
    while True:
        chunks = [_chunk(cut, drawn.choice(texts), drawn) for _ in range(CHUNKS)]
        phrase, at = " ".join(drawn.choice(words) for words in WORDS), drawn.randrange(CHUNKS)
        told = tuple(cut(f'The secret phrase of Anna is "{phrase}".\n'))
        with_it = [(*told, *chunk) if at == n else chunk for n, chunk in enumerate(chunks)]
        number += 1
        whole = Prompt(f"phrase {number}", "phrase", head, tuple(with_it), end)
        yield Asked(whole, replace(whole, chunks=tuple(chunks)), (phrase,))


def _chunk(cut: Cut, text: str, drawn: random.Random) -> tuple[int, ...]:
    pieces = [piece for piece in text.split("\n") if piece.strip()]
    begin = drawn.randrange(max(1, len(pieces) // 2))
    return (*cut("\n".join(pieces[begin : begin + 12]))[:CHUNK], *cut("\n"))


def _lines(kept: Path) -> list[str]:
    return kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []


# -- the page --------------------------------------------------------------------------------------

Rows = Sequence[Mapping[str, Any]]


def write(rows: Rows) -> None:
    tables, notes, goals = [], list(NOTES), []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        ours = [row["f1"] for row in rows if row["kind"] == kind]
        gain = paired([each[FULL] for each in ours], [each[CHANCE] for each in ours])
        is_measured = gain.mean >= MARGIN and gain.low > 0
        if is_measured:
            tables += [table(kind, ours), controls(kind, ours)]
            goals += [_goal(kind, ours, *pair) for pair in CONTROLLED[:2]]
        else:
            right = sum(each[FULL] == 100 for each in ours)
            notes.append(
                f"{kind}: not measurable on this model. Of {len(ours)} prompts it answers {right} "
                f"wholly right when it reads everything: F1 {_mean(ours, FULL):.1f}, chance "
                f"{_mean(ours, CHANCE):.1f} ({gain.mean:+.1f}, {gain.low:+.1f} to "
                f"{gain.high:+.1f}). What cannot be lost cannot be compared."
            )
    for each in tables:
        print(each.title, *each.rows, sep="\n")
    print(*notes[len(NOTES) :], sep="\n")
    record("kv_answers", CLAIM, tables, goals, notes, packages=["torch", "transformers"])


def table(kind: str, ours: Sequence[Mapping[str, float]]) -> Table:
    lines: list[list[str | float | int | None]] = []
    for name in (CHANCE, FULL, *(method.name for method in METHODS)):
        test = paired([each[name] for each in ours], [each[FULL] for each in ours])
        right = 100 * fmean(each[name] == 100 for each in ours)
        apart = f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f})"
        lines.append(
            [name, round(_mean(ours, name), 1), round(right, 1), apart, f"{test.sign:.2g}"]
        )
    columns = ["method", "F1", "all right %", "F1 - full", "p, signs"]
    return Table(f"{kind}, {len(ours)} prompts", columns, lines)


def _goal(kind: str, ours: Sequence[Mapping[str, float]], one: Method, other: Method) -> Goal:
    test = paired([each[one.name] for each in ours], [each[other.name] for each in ours])
    least = float(f"{test.sign:.1e}")
    met = test.mean > 0 and least < 0.01
    return Goal(f"{kind}: F1 of {one.name} above as many random tokens, p", "< 0.01", least, met)


def controls(kind: str, ours: Sequence[Mapping[str, float]]) -> Table:
    lines: list[list[str | float | int | None]] = []
    for one, other in CONTROLLED:
        first, second = ([each[method.name] for each in ours] for method in (one, other))
        test = paired(first, second)
        higher = sum(a > b for a, b in zip(first, second, strict=True))
        apart = f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f})"
        about = f"{higher} of {test.count}, lower on {test.below}"
        pair = f"{one.name} > {other.name}"
        lines.append([pair, about, apart, f"{test.sign:.1e}", f"{test.ranks:.1e}"])
    columns = ["F1 of", "higher on", "mean difference", "p, signs", "p, ranks"]
    return Table(f"{kind}: paired tests against the controls", columns, lines)


def _mean(ours: Sequence[Mapping[str, float]], name: str) -> float:
    return fmean(each[name] for each in ours)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
