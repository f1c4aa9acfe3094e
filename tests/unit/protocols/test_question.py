"""What of a request may be asked in other words, and what must be equal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.protocols.question import BLANK, question_in
from thinkonce.request.key import request_parts

WHERE = ("chat/completions", "pool", "tenant", "")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def partition(identity: dict[str, Any]) -> bytes:
    found = question_in(identity)
    assert found is not None
    return request_parts(WHERE, ("", "", False), found.rest)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TEXT = {"type": "text", "text": "what is this?"}
OLD = {"type": "text", "text": "the first photo is old."}
BOTH = {"type": "text", "text": "the first photo is old. what is this?"}
EMPTY = {"type": "text", "text": " "}


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({"messages": [user("hi")]}, "hi"),
        ({"messages": [{"role": "system", "content": "be brief"}, user("hi")]}, "hi"),
        ({"messages": [user([TEXT, IMAGE])]}, "what is this?"),
        ({"messages": [user([{"type": "text", "text": "a"}, TEXT])]}, "what is this?"),
        ({"messages": [user([TEXT, IMAGE, OLD, IMAGE])]}, "the first photo is old."),
        ({"input": "hi"}, "hi"),
        ({"input": [user([{"type": "input_text", "text": "hi"}])]}, "hi"),
        ({"prompt": "once upon"}, "once upon"),
        ({"messages": [user("")]}, ""),
    ],
)
def test_the_question_is_the_text_of_the_last_user_turn(
    identity: dict[str, Any], text: str
) -> None:
    found = question_in(identity)
    assert found is not None
    assert found.text == text
    assert text == "" or text not in str(found.rest).replace(str(BLANK), "")


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"messages": []},
        {"messages": "hi"[:0] or None},
        {"messages": [user("hi"), {"role": "assistant", "content": "yes"}]},
        {"messages": [{"role": "tool", "content": "42", "tool_call_id": "c"}]},
        {"messages": [user([IMAGE])]},
        {"messages": [user([{"type": "tool_result", "content": "42"}, TEXT])]},
        {"messages": [user(None)]},
        {"messages": ["hi"]},
        {"prompt": ["a", "b"]},
        {"prompt": [1, 2, 3]},
        {"input": [{"type": "function_call_output", "output": "42"}]},
    ],
)
def test_where_the_last_turn_is_no_user_s_text_nothing_is_compared(
    identity: dict[str, Any],
) -> None:
    assert question_in(identity) is None


HISTORY = [user("weather in Rome?"), {"role": "assistant", "content": "sunny"}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [*HISTORY, user("and Berlin?")]}, {"messages": [user("and Berlin?")]}),
        ({"messages": [user("hi")], "temperature": 0}, {"messages": [user("hi")]}),
        ({"messages": [user([TEXT, IMAGE])]}, {"messages": [user([TEXT])]}),
        ({"messages": [user([TEXT, IMAGE])]}, {"messages": [user([IMAGE, TEXT])]}),
        ({"messages": [user([OLD, IMAGE, TEXT])]}, {"messages": [user([IMAGE, OLD, TEXT])]}),
        ({"messages": [user([OLD, IMAGE, TEXT])]}, {"messages": [user([OLD, TEXT, IMAGE])]}),
        ({"messages": [user([OLD, IMAGE, TEXT])]}, {"messages": [user([BOTH, IMAGE, EMPTY])]}),
        ({"messages": [user([OLD, IMAGE, TEXT])]}, {"messages": [user([IMAGE, BOTH])]}),
        ({"messages": [user("hi")]}, {"messages": [user([TEXT])]}),
        ({"messages": [user("hi") | {"name": "bob"}]}, {"messages": [user("hi")]}),
        ({"messages": [user("hi")], "tools": [{"type": "function"}]}, {"messages": [user("hi")]}),
        ({"prompt": "hi"}, {"input": "hi"}),
    ],
)
def test_all_else_divides(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert partition(one) != partition(other)


def test_another_question_is_of_the_same_partition() -> None:
    one = {"model": "m", "messages": [*HISTORY, user("and in Berlin?")]}
    other = {"model": "m", "messages": [*HISTORY, user("what about Berlin?")]}
    assert partition(one) == partition(other)


def test_a_text_that_looks_like_the_blank_is_a_text() -> None:
    sly = {"messages": [*HISTORY, user("x")]} | {"seed": BLANK}
    assert partition({"messages": [user(str(BLANK)), user("x")]}) != partition(
        {"messages": [user("y"), user("x")]}
    )
    assert partition(sly) != partition({"messages": [*HISTORY, user("x")]})


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function"}]},
        {"functions": [{"name": "f"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}, user("go on")]},
        {"messages": [{"role": "tool", "content": "42"}, user("go on")]},
        {"messages": [user([{"type": "tool_result"}]), user("go on")]},
        {"input": [{"type": "function_call"}, user("go on")]},
    ],
)
def test_tools_in_play_are_noticed(more: dict[str, Any]) -> None:
    found = question_in(({} if "input" in more else {"messages": [user("hi")]}) | more)
    assert found is not None
    assert found.tools


def test_earlier_turns_are_counted() -> None:
    found = question_in({"messages": [*HISTORY, user("and Berlin?")]})
    assert found is not None
    assert found.turns == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "messages"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "input", "prompt", "tools"]), JSON))
def test_nothing_a_client_sends_breaks_it_and_the_request_is_not_changed(
    identity: dict[str, Any],
) -> None:
    before = str(identity)
    question_in(identity)
    assert str(identity) == before
