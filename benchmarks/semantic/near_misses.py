"""The near-miss suite: real questions turned into other questions in nearly the same words.

The templates and words are in `near_misses.toml`; the questions are read at run time from the
shared data sets (those that are there) and never copied. Everything follows from one seed, so two
runs over the same data give the same pairs.

    python benchmarks/semantic/near_misses.py            # how many of each kind
    python benchmarks/semantic/near_misses.py number en  # these, to read
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ("DATA", "SAME", "SEED", "NearMiss", "near_misses", "questions")

SEED = 20_261_122
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TABLES = Path(__file__).parent / "near_misses.toml"

PER_KIND = 400  # pairs of one kind in one language, half of them edited in place where possible
SETS = {
    "en": ("banking77/queries", "clinc150/queries", "qqp/pairs", "msmarco_dev_queries/queries"),
    "zh": ("lcqmc/pairs", "bq_corpus/pairs", "oppo_xiaobu/pairs", "covid_pairs_zh/pairs"),
}
# Kinds that dress a question without changing it.
SAME = frozenset(
    ("politeness", "punctuation", "spacing", "case", "width", "contraction", "numeral", "script")
)

_SLOT = re.compile(r"\{(\w+?)([12])\}")
_NUMBER = re.compile(r"(?<![\w.,:/-])\d{1,5}(?![\w.,:/-]*\d)")
_COUNT = (
    r"(?P<n>\d|[一二三四五六七八九十两百千万]|\b(?:two|three|four|five|six|ten|twenty)\s?|\d\s)"
)


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Two questions; `same` says whether one answer answers both. `real` is the one edited."""

    kind: str
    language: str
    a: str
    b: str
    same: bool
    real: str


def near_misses(data: Path = DATA) -> Iterator[NearMiss]:
    """Every pair, kind by kind."""
    for kind, languages in _tables().items():
        if kind in ("lists", "seeds"):
            continue
        for language, table in languages.items():
            yield from _of_kind(kind, language, table, questions(language, data))


def _of_kind(
    kind: str, language: str, table: dict[str, Any], asked: list[str]
) -> Iterator[NearMiss]:
    chance = random.Random(f"{SEED} {kind} {language}")
    order = chance.sample(asked, len(asked))
    found = list(_take(_edited(table, order, chance), PER_KIND // (2 if "frames" in table else 1)))
    if "frames" in table:
        found += _take(_framed(table["frames"], order[::-1], chance), PER_KIND - len(found))
    for real, a, b in found:
        if a != b:
            yield NearMiss(kind, language, a, b, kind in SAME, real)


def _take(pairs: Iterator[tuple[str, str, str]], count: int) -> Iterator[tuple[str, str, str]]:
    for pair, _ in zip(pairs, range(count), strict=False):
        yield pair


# -- questions ------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def questions(language: str, data: Path = DATA) -> list[str]:
    """Short questions of every set that is there, each once; our own where there is none."""
    found: dict[str, None] = {}
    for name in SETS[language]:
        file = data / f"{name}.jsonl.gz"
        if file.exists():
            found.update(dict.fromkeys(_read(file)))
    if not found:
        found.update(dict.fromkeys(_tables()["seeds"].get(language, ())))
    longest = 120 if language == "en" else 40
    return [question for question in found if 6 <= len(question) <= longest]


def _read(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield (row.get("q") or row["a"]).strip()


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads(TABLES.read_text(encoding="utf-8"))


# -- pairs around a question ----------------------------------------------------------------------


def _framed(
    frames: list[list[str]], asked: list[str], chance: random.Random
) -> Iterator[tuple[str, str, str]]:
    for number, question in enumerate(asked):
        slots: dict[str, str] = {}
        a, b = frames[number % len(frames)]
        yield question, _filled(a, question, slots, chance), _filled(b, question, slots, chance)


def _filled(frame: str, question: str, slots: dict[str, str], chance: random.Random) -> str:
    for name, _ in _SLOT.findall(frame):
        if f"{name}1" not in slots:
            one, two = _two_of(name, chance)
            slots |= {f"{name}1": one, f"{name}2": two}
    text = _SLOT.sub(lambda slot: slots[slot[1] + slot[2]], frame)
    ended = question if not text.startswith("{q}") or text == "{q}" else _ended(question)
    return text.replace("{q}", ended)


def _two_of(name: str, chance: random.Random) -> tuple[str, str]:
    if name != "number":
        one, two = chance.sample(_tables()["lists"][name], 2)
        return one, two
    first = chance.choice((chance.randint(2, 30), chance.randint(31, 9000)))
    second = chance.choice((first + 1, first * 10, first + chance.randint(2, 90)))
    return str(first), str(second)


def _ended(question: str) -> str:
    if re.search(r"[?？!！.。~～]$", question):
        return question
    return question + ("，" if re.search("[一-龥]", question) else "?")


# -- pairs made inside a question -----------------------------------------------------------------


def _edited(
    table: dict[str, Any], asked: list[str], chance: random.Random
) -> Iterator[tuple[str, str, str]]:
    edits = [edit for name, edit in _EDITS.items() if name in table]
    for question in asked:
        for edit in chance.sample(edits, len(edits)):
            changed = edit(table, question, chance)
            if changed is not None and changed != question:
                yield question, question, changed
                break


def _other_number(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    one = chance.choice(found)
    value = int(one[0])
    other = chance.choice((value + 1, value * 10 + 5, value + 7, max(value - 1, 0), value * 2 + 3))
    return text[: one.start()] + str(other) + text[one.end() :] if other != value else None


def _exchanged(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    for entry in chance.sample(table["exchange"], len(table["exchange"])):
        for word in chance.sample(entry["from"], len(entry["from"])):
            counted = "after" in entry
            found = re.search((_COUNT if counted else "()") + f"(?P<word>{_whole(word)})", text)
            if found:
                new = chance.choice(entry["to"])
                if new not in text:
                    return text[: found.start("word")] + new + text[found.end("word") :]
    return None


def _whole(word: str) -> str:
    """A pattern of `word`, as a word of its own where words have ends."""
    if not word[0].isascii() or not word[0].isalnum():
        return re.escape(word)
    return rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])"


def _paired(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    lowered = text.lower()
    for pair in chance.sample(table["pairs"], len(table["pairs"])):
        old, new = pair if chance.random() < 0.5 else pair[::-1]
        found = re.search(_whole(old), lowered)
        denied = re.search(r"不|没|未|别|无|\bnot?\b|n't|never", lowered)
        if found is None or (found.start() == 0 and "inside" in table):
            continue
        if new not in lowered and not (denied and re.search("不|没|未|别|no|n't", new)):
            return text[: found.start()] + new + text[found.end() :]
    return None


def _swapped(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    """As `_paired`, every place at once, whatever else the text says."""
    for one, other in chance.sample(table["swaps"], len(table["swaps"])):
        if re.search(_whole(one), text, re.IGNORECASE):
            return re.sub(_whole(one), other, text, flags=re.IGNORECASE)
    return None


def _turned(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    for pattern in table["turns"]:
        found = re.search(pattern, text, re.IGNORECASE)
        if found and found["a"].lower() != found["b"].lower():
            (start, end), (after, last) = found.span("a"), found.span("b")
            return text[:start] + found["b"] + text[end:after] + found["a"] + text[last:]
    return None


def _marked(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    return text.rstrip("?？!！.。 ") + chance.choice(["", *table["marks"]])


def _spaced(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    if re.search("[一-龥]", text):
        return re.sub(r"(?<=[一-龥])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[一-龥])", " ", text) + " "
    return " " + text.replace(" ", chance.choice(("  ", "\t", "\n", "\u00a0")))


def _cased(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    return chance.choice((text.lower(), text.upper(), text.title(), text.swapcase()))


def _widened(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


def _spelled(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    """One small whole number as a word; neither part of a date, a code nor a name."""
    words: list[str] = table["numerals"]
    for found in re.finditer(r"(?<![\w.:/-])\d{1,2}(?=[个天次条件岁人位]| [a-z]+s\b)", text):
        value = int(found[0])
        if 2 < value < len(words):
            return text[: found.start()] + words[value] + text[found.end() :]
    return None


def _scripted(table: dict[str, Any], text: str, chance: random.Random) -> str | None:
    return text.translate({ord(simple): full for simple, full in table["characters"]})


Edit = Callable[[dict[str, Any], str, random.Random], str | None]
_EDITS: dict[str, Edit] = {
    "digits": _other_number,
    "exchange": _exchanged,
    "pairs": _paired,
    "swaps": _swapped,
    "turns": _turned,
    "marks": _marked,
    "spaces": _spaced,
    "cases": _cased,
    "widths": _widened,
    "numerals": _spelled,
    "characters": _scripted,
}


def main(arguments: list[str]) -> None:
    pairs = list(near_misses())
    if len(arguments) == 2:
        for pair in pairs:
            if [pair.kind, pair.language] == arguments:
                print(f"{pair.a}\n{pair.b}\n")
        return
    for (kind, language), count in Counter((pair.kind, pair.language) for pair in pairs).items():
        print(f"{kind:12} {language}  {count:5}  {'same' if kind in SAME else 'another'} question")


if __name__ == "__main__":
    main(sys.argv[1:])
