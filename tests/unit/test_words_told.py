"""Every word for why there was no hit in other words is explained, and `explain` reads as text."""

from __future__ import annotations

import pytest

from thinkonce.cli.other_words import print_other_words, taken_apart
from thinkonce.insight.other_words import (
    NOT_COMPARED,
    NOTHING_FOUND,
    REFUSED,
    VETOES,
    sentences,
)
from thinkonce.meaning.counts import CROWDED
from thinkonce.meaning.finding import Unfound
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.eligible import Ineligible
from thinkonce.meaning.verdict.ruling import Refusal

BUDGET = {
    "standing": "serving",
    "mode": "calibrated",
    "max_error": 0.03,
    "serves_band": 2,
    "bands": 8,
    "certified": False,
    "error_bound": 0.974,
    "audits": 1,
    "wrong": 0,
}


def test_every_word_has_its_sentence() -> None:
    unfound = {each for each in Unfound if each is not Unfound.NOT_COMPARED}
    assert NOT_COMPARED.keys() == {*Ineligible, Unfound.NOT_COMPARED, CROWDED}
    assert NOTHING_FOUND.keys() == unfound
    assert REFUSED.keys() == set(Refusal)
    assert VETOES.keys() == set(Veto)


def test_no_word_stands_for_two_things() -> None:
    words = [*NOT_COMPARED, *NOTHING_FOUND, *REFUSED]
    assert len(words) == len(set(words))


def test_what_was_refused_is_told_in_words() -> None:
    candidate = {"question": "stored?", "similarity": 0.8, "refused": "guard", "vetoes": ["number"]}
    found = {"why": "guard", "candidates": [candidate], "budget": BUDGET}
    assert [text for _, text in sentences(found)] == [
        "no: the words differ in what decides the answer (guard)",
        "stored?",
        "similarity 0.8",
        "refused (guard: number)",
        "serving (calibrated), 3 of 8 bands served at max_error 0.03",
        "1 audit, 0 wrong: an error above 97.40% is excluded, not certified yet",
    ]


def test_a_hit_is_told_as_one() -> None:
    assert list(sentences({"why": "found", "match": "lexical"})) == [
        ("in other words", "hit (lexical)")
    ]


def test_statistics_are_tables(capsys: pytest.CaptureFixture[str]) -> None:
    whose = {"tenant": "6e0a88c7bdda2b89", "namespace": "", "language": "zh"}
    account = BUDGET | whose | {"alarms": 0}
    group = {"example": "退货\x1b?", "count": 4, "error": 0, "why": {"band": 3, "guard": 1}}
    semantic = {"embedder": "use", "namespaces": [account], "unanswered": {"faq": [group]}}
    print_other_words(taken_apart(semantic))
    assert semantic == {"embedder": "use"}
    told = capsys.readouterr().out
    for shown in ("3 of 8", "97.40% so far", "band 3, guard 1"):
        assert shown in told
    assert "\x1b" not in told


def test_nothing_is_printed_of_what_there_is_none_of(capsys: pytest.CaptureFixture[str]) -> None:
    print_other_words(taken_apart({"namespaces": [], "crowded": [], "unanswered": {}}))
    assert not capsys.readouterr().out
