"""What the guards know of a text, read once: a value small enough to lie beside a vector.

    analyse("Convert 5 kg to lb, not on Monday")
        amounts {("5", "kg")}  dates {"w1"}  negations 1  moves (("to", (...), (...)),)

Frozen, hence thread-safe; plain strings and numbers, so msgspec can store it.
"""

from __future__ import annotations

import msgspec

from thinkonce.meaning.text.headings import headings_of
from thinkonce.meaning.text.language import Language, language_of
from thinkonce.meaning.text.mentions import mentions_of
from thinkonce.meaning.text.names import codes_of, letters_of, names_of, quoted_of, unlisted_of
from thinkonce.meaning.text.normal import expanded, joined, normal_words
from thinkonce.meaning.text.parties import parties_in
from thinkonce.meaning.text.readings import Readings, read
from thinkonce.meaning.text.signs import signs_of
from thinkonce.meaning.text.tokens import fold, tokenise
from thinkonce.meaning.text.turns import Move, moves_of

__all__ = ("Analysed", "analyse")

# What follows is not read: texts that are compared are ten times shorter (`eligible`).
LONGEST = 4096


class Analysed(msgspec.Struct, frozen=True, array_like=True):
    """The facts of one text. Sets hold canonical marks, told where they are made."""

    normal: str
    language: Language
    words: frozenset[str]
    amounts: frozenset[tuple[str, str]]  # (value, unit or "")
    lone_units: frozenset[str]
    dates: frozenset[str]
    negations: int
    poles: frozenset[str]  # "antonym/3+": the text has this side and not the other
    opposed: frozenset[str]  # the other sides of `poles`
    names: frozenset[str]  # "towns/paris"
    codes: frozenset[str]  # identifiers, addresses, file names
    quoted: frozenset[str]  # what stands in quotation or book marks
    unlisted: frozenset[str]  # capitals inside an English sentence, Latin words inside Chinese
    questions: frozenset[str]  # kinds: why, when ...
    moves: tuple[Move, ...]  # around each directed word, what stands before and after
    asks: int
    characters: int
    signs: tuple[str, ...] = ()  # between the words, see `signs`
    letters: frozenset[str] = frozenset()  # that stand alone: of vitamins, plans, variables
    about: frozenset[str] = frozenset()  # what is asked of a word itself: its meaning, a rhyme
    mentioned: tuple[str, ...] = ()  # the words of such a question, sorted
    parties: tuple[str, ...] = ()  # who or what it tells of, in order
    goes_to: frozenset[str] = frozenset()  # "to Canada"; not what it comes from as well
    comes_from: frozenset[str] = frozenset()


def analyse(text: str) -> Analysed:
    """Of any string, surrogates and controls included."""
    length, text = len(text), text[:LONGEST]
    folded = expanded(fold(text))
    tokens = tokenise(folded)
    words = normal_words(tokens)
    normal = joined(words)
    found = read(tokens)
    about, mentioned = mentions_of(tokens)
    goes_to, comes_from = headings_of(words)
    return Analysed(
        normal=normal,
        language=language_of(text),
        words=frozenset(words),
        amounts=frozenset(found.amounts),
        lone_units=frozenset(found.lone_units),
        dates=frozenset(found.dates),
        negations=found.negations,
        poles=(poles := _poles(found)),
        opposed=frozenset(_other_side(pole) for pole in poles),
        names=names_of(found),
        codes=codes_of(folded),
        quoted=quoted_of(folded),
        unlisted=unlisted_of(folded, found),
        questions=frozenset(found.questions),
        moves=moves_of(tokens),
        asks=found.asks,
        characters=length,
        signs=signs_of(text, folded),
        letters=letters_of(folded),
        about=about,
        mentioned=mentioned,
        parties=parties_in(words),
        goes_to=goes_to,
        comes_from=comes_from,
    )


def _poles(found: Readings) -> frozenset[str]:
    both = found.poles & {_other_side(pole) for pole in found.poles}
    return frozenset(found.poles - both)


def _other_side(pole: str) -> str:
    return pole[:-1] + ("-" if pole[-1] == "+" else "+")
