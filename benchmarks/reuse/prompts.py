"""Real prompts made of parts: what stands in front, four or five chunks, what is asked.

Every part is cut into tokens on its own, so all methods and the truth have the same ids. A kind
whose data are not there is left out, and said.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ("CHUNKS", "DATA", "Cut", "Prompt", "prompts", "rows_of")

DATA = Path(__file__).resolve().parents[3] / "shared/data"
LONG, CHUNKS = 440, 4  # tokens of text that is cut into chunks; how many chunks
ASKED = 48  # tokens at the end of a text that stand for the question
SYSTEM = "Read the documents and answer the question in a few words, with what they say."

Cut = Callable[[str], list[int]]


@dataclass(frozen=True)
class Prompt:
    """Ids of its parts; `name` is the same in every run."""

    name: str
    kind: str
    head: tuple[int, ...]
    chunks: tuple[tuple[int, ...], ...]
    asked: tuple[int, ...]

    @property
    def tokens(self) -> list[int]:
        return [*self.head, *(each for chunk in self.chunks for each in chunk), *self.asked]


def prompts(cut: Cut, count: int, say: Callable[[str], None] = print) -> list[Prompt]:
    """The same `count` prompts each time, kinds in turns: two of questions over passages, one of
    each other kind.
    """
    kinds = {
        "passages": ("lost_in_the_middle/nq_oracle.jsonl.gz", _passages),
        "key-value": ("lost_in_the_middle/kv75.jsonl.gz", _pairs),
        "agents": ("agent_text_traces/calls.jsonl.zst", _agents),
        "long texts": ("minilongbench/samples.jsonl.gz", _long),
    }
    turns: list[Iterator[Prompt]] = []
    for kind, (file, make) in kinds.items():
        if not (DATA / file).exists():
            say(f"{kind}: no {file} in shared/data, left out")
            continue
        each = iter(make(cut, rows_of(DATA / file)))
        turns += [each, each] if kind == "passages" else [each]
    found: list[Prompt] = []
    while turns and len(found) < count:
        before = len(found)
        for each in turns:
            found.extend(islice(each, 1))
        if len(found) == before:
            break
    return found[:count]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A JSON a line, packed by its suffix."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    import zstandard  # type: ignore[import-not-found,unused-ignore]

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]


def _chat(cut: Cut) -> tuple[tuple[int, ...], Callable[[str], tuple[int, ...]]]:
    """What a chat template puts in front, and what it puts around a question behind documents."""
    head = cut(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")

    def asked(text: str) -> tuple[int, ...]:
        return tuple(cut(f"{text}<|im_end|>\n<|im_start|>assistant\n"))

    return tuple(head), asked


def _passages(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    """The passage that answers, at a place drawn, between passages of other questions."""
    head, asked = _chat(cut)
    drawn = random.Random("passages")
    order = drawn.sample(range(len(rows)), len(rows))
    for number in order:
        others = drawn.sample([other for other in range(len(rows)) if other != number], CHUNKS - 1)
        chosen = [number, *others]
        drawn.shuffle(chosen)
        passages = [rows[each]["ctxs"][0] for each in chosen]
        texts = [f"Document (Title: {each['title']}) {each['text']}\n\n" for each in passages]
        question = asked(f"Question: {rows[number]['question']}?")
        chunks = tuple(tuple(cut(text)) for text in texts)
        yield Prompt(f"passages {number}", "passages", head, chunks, question)


def _pairs(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    """Six pairs of the row in three chunks, the one asked for among them."""
    head, asked = _chat(cut)
    for number, row in enumerate(rows):
        drawn = random.Random(f"pairs {number}")
        pairs = [(key, value) for key, value in row["ordered_kv_records"] if key != row["key"]]
        some = [*drawn.sample(pairs, 5), (row["key"], row["value"])]
        drawn.shuffle(some)
        texts = [
            "".join(f'"{key}": "{value}",\n' for key, value in some[start : start + 2])
            for start in range(0, 6, 2)
        ]
        question = asked(f'What is the value of the key "{row["key"]}"?')
        chunks = tuple(tuple(cut(text)) for text in texts)
        yield Prompt(f"key-value {number}", "key-value", head, chunks, question)


def _agents(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    """One call of each of many sessions, families in turns, its beginning and end kept."""
    drawn = random.Random("agents")
    seen = set()
    for number in drawn.sample(range(len(rows)), len(rows)):
        row = rows[number]
        if row["_session"] in seen or len(row["input"]) < 3000:
            continue
        seen.add(row["_session"])
        made = _text(cut, f"agents {number}", "agents", row["input"])
        if made is not None:
            yield made


def _long(cut: Cut, rows: Sequence[dict[str, Any]]) -> Iterator[Prompt]:
    drawn = random.Random("long")
    for number in drawn.sample(range(len(rows)), len(rows)):
        row = rows[number]
        if not row["task"].endswith("zh") and row["task"] not in ("lsht", "vcsum", "dureader"):
            made = _text(cut, f"long {number}", "long texts", row["prompt"])
            if made is not None:
                yield made


def _text(cut: Cut, name: str, kind: str, text: str) -> Prompt | None:
    """A text's first tokens as head, the next ones as chunks, its last ones as what is asked."""
    begin, end = cut(text[:6000]), cut(text[-1000:])[-ASKED:]
    size = LONG // CHUNKS
    if len(begin) < ASKED + LONG:
        return None
    body = begin[ASKED : ASKED + LONG]
    chunks = tuple(tuple(body[at : at + size]) for at in range(0, LONG, size))
    return Prompt(name, kind, tuple(begin[:ASKED]), chunks, tuple(end))
