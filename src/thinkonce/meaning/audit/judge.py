"""Whether two answers to one question say the same: a stored one, and a fresh one.

    the same but for dress ─────────────────────────────────► same
    guards: other numbers, a denial, a contradiction ───────► different
    a chat model, where one is configured ──────────────────► what it says, or undecided
    sentences, each with the nearest of the other answer ───► by their similarity

A fresh answer at a temperature above 0 differs from any other in words, so words decide nothing
by themselves. What is undecided counts neither way. How often similarity is mistaken is measured
by `benchmarks/semantic/judges.py`; the rates of a namespace's own judge can be given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinkonce.meaning.audit.misjudgement import Misjudgement
from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.remote.calls import CallError
from thinkonce.meaning.remote.chat import Chat
from thinkonce.meaning.text.analysis import Analysed, analyse

__all__ = ("Agreement", "How", "Judge")

LONGEST = 20_000  # characters of an answer that are compared
MOST_SENTENCES = 40
SAME = 0.75  # mean similarity of the sentences from which two answers say the same
NEAR = 0.6  # similarity from which two sentences are about the same thing
FAR = 0.3  # sentences about something else
AS_NEAR = 0.1  # similarity below that of the nearest sentence, for one that may be meant as well
SHORT = 200  # characters; the numbers of so short an answer are the answer
QUESTION = (
    "Say yes only if the answers `first` and `second` would tell a reader the same: no fact, "
    "number, name or instruction in one contradicts the other, and neither lacks the point of the "
    "other. Wording, order, length of explanation and politeness do not matter."
)
_ENDS = re.compile(r"(?<=[。！？；])|(?<=[.!?;])\s+|\n+")
# Guards that hold of statements: what is asked, and how, is a question's.
_TELLING = frozenset(
    (Veto.NUMBER, Veto.UNIT, Veto.DATE, Veto.NEGATION, Veto.ANTONYM, Veto.COMPARATIVE,
     Veto.DIRECTION, Veto.LANGUAGE)
)  # fmt: skip

# The vector of a text, of length 1; None where there is none in time.
Embed = Callable[[str], NDArray[np.float32] | None]


class How(StrEnum):
    """What decided."""

    EQUAL = "equal"
    GUARD = "guard"
    CHAT = "chat"
    SIMILARITY = "similarity"
    NOTHING = "nothing"  # no vector or no word came in time


class Agreement(NamedTuple):
    is_same: bool | None
    how: How
    similarity: float | None = None


class Judge:
    """Thread-safe as far as its parts are. `embed` gives vectors; `misjudgement` is how often it
    is known to be mistaken."""

    def __init__(
        self,
        embed: Embed | None,
        chat: Chat | None = None,
        *,
        same: float = SAME,
        misjudgement: Misjudgement | None = None,
    ) -> None:
        self._embed, self._chat, self._same = embed, chat, same
        self.misjudgement = misjudgement or Misjudgement()
        self.name = chat.name if chat else f"similarity of {same}"

    def compare(self, stored: str, fresh: str) -> Agreement:
        stored, fresh = stored[:LONGEST], fresh[:LONGEST]
        if _dressed_alike(stored, fresh):
            return Agreement(True, How.EQUAL)
        one, other = analyse(stored), analyse(fresh)
        if one.normal == other.normal and one.normal:
            return Agreement(True, How.EQUAL)
        if _contradict(stored, fresh, one, other):
            return Agreement(False, How.GUARD)
        return self._by_similarity(stored, fresh) if self._chat is None else (
            self._by_chat(self._chat, stored, fresh)
        )  # fmt: skip

    def close(self) -> None:
        if self._chat is not None:
            self._chat.close()

    def _by_chat(self, chat: Chat, stored: str, fresh: str) -> Agreement:
        try:
            said = chat.says_yes(QUESTION, {"first": stored, "second": fresh})
        except CallError:
            return Agreement(None, How.NOTHING)
        if said and self._have_nothing_in_common(stored, fresh):
            return Agreement(None, How.NOTHING)  # one of them may have talked the model into it
        return Agreement(said, How.CHAT)

    def _have_nothing_in_common(self, stored: str, fresh: str) -> bool:
        """Where vectors tell: no sentence of either is near one of the other."""
        rows, columns = self._vectors(sentences(stored)), self._vectors(sentences(fresh))
        return rows is not None and columns is not None and float((rows @ columns.T).max()) < FAR

    def _by_similarity(self, stored: str, fresh: str) -> Agreement:
        ours, theirs = sentences(stored), sentences(fresh)
        rows, columns = self._vectors(ours), self._vectors(theirs)
        if rows is None or columns is None:
            return Agreement(None, How.NOTHING)
        likeness = rows @ columns.T
        read, known = [analyse(text) for text in ours], [analyse(text) for text in theirs]
        for at, row in enumerate(likeness):
            if _stands_against(read[at], row, known):
                return Agreement(False, How.GUARD, float(row.max()))
        both = (_mean(likeness.max(axis=1), ours), _mean(likeness.max(axis=0), theirs))
        # The shorter answer is to be found in the longer one; half of the rest must be, too.
        found = 0.75 * max(both) + 0.25 * min(both)
        return Agreement(found >= self._same, How.SIMILARITY, found)

    def _vectors(self, texts: list[str]) -> NDArray[np.float32] | None:
        if self._embed is None or not texts:
            return None
        found = []
        for text in texts:
            vector = self._embed(text)
            if vector is None:
                return None
            found.append(vector)
        return np.stack(found)


def sentences(text: str) -> list[str]:
    """At most MOST_SENTENCES, evenly from the whole of a long text."""
    found = [part.strip() for part in _ENDS.split(text)]
    kept = [part for part in found if any(sign.isalnum() for sign in part)]
    if len(kept) <= MOST_SENTENCES:
        return kept
    return [kept[at * len(kept) // MOST_SENTENCES] for at in range(MOST_SENTENCES)]


def _mean(values: NDArray[np.float32], texts: list[str]) -> float:
    """Weighted by length: a heading says less than a paragraph."""
    return float(np.average(values, weights=[len(text) for text in texts]))


def _dressed_alike(one: str, other: str) -> bool:
    if one.split() == other.split():
        return True
    return _json(one) is not None and _json(one) == _json(other)


def _json(text: str) -> object:
    """What an object or array says; None for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _contradict(stored: str, fresh: str, one: Analysed, other: Analysed) -> bool:
    if Veto.LANGUAGE in examine(one, other):
        return True
    if max(len(stored), len(fresh)) > SHORT:
        return False
    numbers = ({value for value, _ in one.amounts}, {value for value, _ in other.amounts})
    if numbers[0] and numbers[1] and numbers[0].isdisjoint(numbers[1]):
        return True
    return bool(one.dates and other.dates and one.dates.isdisjoint(other.dates))


def _stands_against(one: Analysed, row: NDArray[np.float32], others: list[Analysed]) -> bool:
    """Whether every sentence of the other answer that is as near as the nearest contradicts `one`.

    `row`: similarities to `others`. Items of a list are alike and differ in numbers, so one that
    agrees is enough.
    """
    nearest = float(row.max())
    if nearest < NEAR:
        return False
    about = [others[at] for at in np.flatnonzero(row >= nearest - AS_NEAR).tolist()]
    return all(not _TELLING.isdisjoint(examine(one, other)) for other in about)
