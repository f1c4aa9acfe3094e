"""The verdict on single questions, outside of any cache; and what single pairs are compared by.

A pair is ruled as if the one question were alone in a cache and the other came in. REFUSED
is below every cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelled import LANGUAGE, Pair
from vectors import vectors

from thinkonce.meaning.text.gist import Gist, gist
from thinkonce.meaning.verdict.calibration import logit
from thinkonce.meaning.verdict.grounds import Grounds, grounds_of
from thinkonce.meaning.verdict.learning import SHIPPED, chance
from thinkonce.meaning.verdict.ruling import Candidate, Question, Ruling, read_question, rule
from thinkonce.meaning.verdict.score import arounds, overlap
from thinkonce.meaning.verdict.verifier import Verifier

__all__ = ("REFUSED", "Alone", "cosines", "cosines_of", "ngrams")

REFUSED = -1e9  # finite: what is refused is all alike
EVERY_BAND = 1000


class Alone:
    """The verdict on single pairs. `verify` is asked once a pair, however often it is ruled."""

    def __init__(self, verifier: Verifier | None, budget: float) -> None:
        self._verifier, self._budget = verifier, budget
        self._grounds: dict[str, Grounds] = {}
        self._known: dict[tuple[str, str], float | None] = {}
        self._read: dict[str, Question] = {}

    def grounds(self, language: str) -> Grounds:
        found = self._grounds.get(language)
        if found is None:
            found = grounds_of(language, "use", self._verifier, self._budget, family="use")
            self._grounds[language] = found
        return found

    def ruling(
        self, asked: str, near: Sequence[tuple[str, float]], language: str, step: int | None = None
    ) -> Ruling:
        """On `near`, stored questions and their cosines, nearest first.

        `step` is the loosest band that is served, None: the one that calibration promises.
        """
        grounds = self.grounds(language)
        places = arounds([cosine for _, cosine in near])
        candidates = [
            Candidate(b"%d" % at, self.question(text), place)
            for at, ((text, _), place) in enumerate(zip(near, places, strict=True))
        ]
        return rule(
            self.question(asked), candidates, grounds,
            step=grounds.first if step is None else step, sure=_without_history,
            verify=self.verify if self._verifier else None,
        )  # fmt: skip

    def scores(self, asked: Sequence[Pair], near: Sequence[float]) -> Iterator[float]:
        for pair, cosine in zip(asked, near, strict=True):
            ruling = self.ruling(pair.b, [(pair.a, cosine)], language_of(pair), EVERY_BAND)
            score = ruling.judged[0].score
            yield REFUSED if score is None else score

    def verify(self, asked: str, stored: str) -> float | None:
        assert self._verifier is not None
        if (asked, stored) not in self._known:
            self._known[asked, stored] = self._verifier.logit(asked, stored)
        return self._known[asked, stored]

    def question(self, text: str) -> Question:
        if text not in self._read:
            self._read[text] = read_question(text)
        return self._read[text]


def _without_history(_: bytes, score: float) -> float:
    return logit(chance(SHIPPED, score))


def language_of(pair: Pair) -> str:
    return LANGUAGE.get(pair.source, "zh")


def cosines(asked: Sequence[Pair]) -> list[float]:
    return cosines_of([(pair.a, pair.b) for pair in asked])


def cosines_of(asked: Sequence[tuple[str, str]]) -> list[float]:
    """By the default embedder."""
    texts = list(dict.fromkeys(text for pair in asked for text in pair))
    rows, place = vectors(texts), {text: at for at, text in enumerate(texts)}
    return [float(rows[place[a]] @ rows[place[b]]) for a, b in asked]


def ngrams(asked: Sequence[Pair]) -> list[float]:
    """Jaccard of character triples, of pairs in Chinese."""
    return [
        overlap(*(_grams(gist(text), language_of(pair)) for text in (pair.a, pair.b)))
        for pair in asked
    ]


def _grams(read: Gist, language: str) -> frozenset[str]:
    return read.pairs if language == "zh" else read.triples
