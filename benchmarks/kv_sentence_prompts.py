"""Prompts of 2,000 to 3,500 tokens for `kv_sentence.py`, the same in every run.

    phrases      a line 'The secret phrase of Anna is "wooden rocket candle".' in real text
    passages     the passage that answers a question, among passages of other questions
    long texts   real text, gone on with; nothing to be right or wrong about

A kind whose data are not there is left out, and said.
"""

from __future__ import annotations

import gzip
import json
import random
from ast import literal_eval
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ("CHANCE", "Prompt", "prompts")

DATA = Path(__file__).resolve().parents[2] / "shared/data"
LEAST, MOST = 2000, 3000  # tokens of a prompt
WORDS = (
    ("copper", "silver", "purple", "frozen", "golden", "broken", "green", "wooden"),
    ("lantern", "castle", "elephant", "orange", "hammer", "mirror", "pillow", "rocket"),
    ("seven", "morning", "garden", "window", "paper", "river", "bread", "candle"),
)
CHANCE = {"phrases": 1 / 64, "passages": 0.0}  # the first word comes from the exact reading
"""Of being right by guessing, in the kinds that have answers."""

Cut = Callable[[str], list[int]]


@dataclass(frozen=True)
class Prompt:
    """`answers`: texts of which one must be in what is said; none where nothing is asked."""

    name: str
    kind: str
    tokens: tuple[int, ...]
    answers: tuple[str, ...] = ()


def prompts(cut: Cut, count: int, say: Callable[[str], None] = print) -> list[Prompt]:
    """`count` of each kind, kinds in turns."""
    kinds = {
        "phrases": ("minilongbench/samples.jsonl.gz", _phrases),
        "passages": ("lost_in_the_middle/nq_oracle.jsonl.gz", _passages),
        "long texts": ("minilongbench/samples.jsonl.gz", _long),
    }
    turns = []
    for kind, (file, make) in kinds.items():
        if not (DATA / file).exists():
            say(f"{kind}: no {file} in shared/data, left out")
            continue
        turns.append(list(islice(make(cut, _rows(DATA / file)), count)))
    return [each for turn in zip(*turns, strict=False) for each in turn]


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _phrases(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    drawn = random.Random("phrases")
    texts = [row["prompt"] for row in rows if row["task"] in ("gov_report", "multi_news", "qmsum")]
    number = 0
    while True:
        length, text = drawn.randrange(LEAST, MOST), drawn.choice(texts)
        pieces = [piece for piece in text.split("\n") if piece.strip()]
        begin = drawn.randrange(max(1, len(pieces) // 3))
        filler, size = [], 0
        for piece in pieces[begin:]:
            filler.append(piece)
            size += len(cut(piece))
            if size >= length:
                break
        if size < LEAST or len(filler) < 10:
            continue
        phrase = " ".join(drawn.choice(words) for words in WORDS)
        line = f'The secret phrase of Anna is "{phrase}".'
        filler.insert(drawn.randrange(1, len(filler)), line)
        text = (
            "<|im_start|>user\n" + "\n".join(filler) + "<|im_end|>\n"
            "<|im_start|>user\nWhat is the secret phrase of Anna?<|im_end|>\n"
            '<|im_start|>assistant\nThe secret phrase of Anna is "'
        )
        tokens = tuple(cut(text))
        if len(tokens) <= MOST + 500:
            number += 1
            yield Prompt(f"phrases {number}", "phrases", tokens, (phrase,))


def _passages(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    drawn = random.Random("sentence passages")
    for number in drawn.sample(range(len(rows)), len(rows)):
        length = drawn.randrange(LEAST, MOST)
        others = iter(drawn.sample([other for other in range(len(rows)) if other != number], 40))
        chosen, size = [number], 0
        while size < length:
            chosen.append(next(others))
            size = sum(len(cut(rows[each]["ctxs"][0]["text"])) for each in chosen)
        drawn.shuffle(chosen)
        passages = [rows[each]["ctxs"][0] for each in chosen]
        texts = "".join(
            f"Document (Title: {each['title']}) {each['text']}\n\n" for each in passages
        )
        text = (
            "<|im_start|>system\nAnswer the question in a few words, with what the documents say."
            f"<|im_end|>\n<|im_start|>user\n{texts}Question: {rows[number]['question']}?"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        answers = rows[number]["answers"]
        known = literal_eval(answers) if isinstance(answers, str) else answers
        yield Prompt(f"passages {number}", "passages", tuple(cut(text)), tuple(known))


def _long(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    drawn = random.Random("sentence long")
    for number in drawn.sample(range(len(rows)), len(rows)):
        tokens = cut(rows[number]["prompt"][:60_000])
        length = drawn.randrange(LEAST, MOST)
        if len(tokens) >= length:
            yield Prompt(f"long {number}", "long texts", tuple(tokens[:length]))
