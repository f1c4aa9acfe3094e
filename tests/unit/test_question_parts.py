"""Which part of a call or a request may be said in other words, and what must be equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.cache import Cache
from thinkonce.calls.keys import CallKeys
from thinkonce.calls.questions import askable, guessed, named, part
from thinkonce.errors import ConfigError
from thinkonce.functions import describe
from thinkonce.protocols.question import BLANK

TURN = {"role": "user", "content": "What is the capital of France?"}
BEFORE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


def ask(prompt: str, *, model: str = "m", temperature: float = 0) -> str:
    return prompt


class Bot:
    def ask(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (("model", "prompt"), "prompt"),
        (("prompt", "messages"), "messages"),
        (("anything",), "anything"),
        (("model", "temperature"), ""),
        ((), ""),
    ],
)
def test_the_question_is_guessed_by_its_name(parameters, name):
    assert guessed(parameters) == name


def test_a_methods_object_and_what_is_ignored_are_no_question():
    assert askable(describe(Bot.ask)) == ("text",)
    assert askable(describe(ask), {"model"}) == ("prompt", "temperature")


def test_a_question_that_is_no_parameter_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="prompt, model, temperature"):
        named("promt", askable(describe(ask)), "ask")
    with pytest.raises(ConfigError, match="model, temperature"):
        named(None, ("model", "temperature"), "f")


def test_a_text_is_the_question_itself():
    assert part("Why?") == ("Why?", BLANK, False)


def test_of_messages_the_last_turn_is_the_question():
    text, rest, tools = part([*BEFORE, TURN])
    assert (text, tools) == (TURN["content"], False)
    assert rest == [*BEFORE, {**TURN, "content": BLANK}]


@pytest.mark.parametrize(
    "value", [None, 7, [], [{"role": "assistant", "content": "Hi"}], ["Hello"], {"prompt": ["a"]}]
)
def test_what_ends_in_no_users_text_is_compared_with_nothing(value):
    assert part(value) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_value_is_too_odd_to_be_looked_at(value):
    assert part(value) is None or isinstance(part(value)[0], str)


@pytest.fixture
def wording():
    """The wording of a call of `ask`."""
    with Cache(secret="s" * 32) as cache:
        function = describe(ask, "1")
        keys = CallKeys(cache, function, "", frozenset(), None, lambda why, error: None)
        yield lambda *values, name="prompt": keys.wording(values, name)


def test_calls_that_differ_in_the_question_alone_are_in_one_partition(wording):
    first, second = wording("How?", "m", 0), wording("How come?", "m", 0)
    assert first.partition == second.partition
    assert (first.text, second.text) == ("How?", "How come?")


def test_whatever_else_differs_parts_them(wording):
    found = [
        wording("How?", "m", 0),
        wording("How?", "n", 0),
        wording("How?", "m", 1),
        wording([TURN], "m", 0),
        wording([*BEFORE, TURN], "m", 0),
    ]
    assert len({one.partition for one in found}) == len(found)


def test_a_partition_is_no_key(wording):
    with Cache(secret="s" * 32) as cache:
        keys = CallKeys(cache, describe(ask, "1"), "", frozenset(), None, lambda w, e: None)
        assert wording("How?", "m", 0).partition != keys.key((BLANK, "m", 0)).digest


def test_another_installation_has_other_partitions(wording):
    with Cache(secret="t" * 32) as cache:
        keys = CallKeys(cache, describe(ask, "1"), "", frozenset(), None, lambda w, e: None)
        other = keys.wording(("How?", "m", 0), "prompt")
    assert other.partition != wording("How?", "m", 0).partition
