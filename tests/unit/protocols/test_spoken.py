"""What of an answer is words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.protocols.spoken import spoken

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(**message):
    return {"choices": [{"index": 0, "message": {"role": "assistant", **message}}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (chat(content="Paris."), "Paris."),
        (chat(content="巴黎。", reasoning_content="想一想"), "巴黎。"),
        ({"choices": [{"index": 0, "text": "Paris."}]}, "Paris."),
        (
            {"content": [{"type": "thinking", "thinking": "..."}, {"type": "text", "text": "a"}]},
            "a",
        ),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        (
            {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
                ]
            },
            "a",
        ),
    ],
    ids=["chat", "reasoning", "completion", "thinking", "two parts", "responses"],
)
def test_the_words_are_read(body, text):
    assert spoken(body) == text


@pytest.mark.parametrize(
    "body",
    [
        chat(content=None, tool_calls=[CALL]),
        chat(content="I will look.", tool_calls=[CALL]),
        chat(content=None, refusal="no"),
        {"choices": [chat(content="a")["choices"][0], chat(content="b")["choices"][0]]},
        {"choices": []},
        {"content": [{"type": "text", "text": "a"}, {"type": "tool_use", "name": "f"}]},
        {"content": [{"type": "thinking", "thinking": "..."}]},
        {"output": [{"type": "function_call", "name": "f"}]},
        {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]},
        {"data": [{"embedding": [1.0]}]},
    ],
)
def test_what_is_more_than_one_text_has_no_words(body):
    assert spoken(body) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "output", "type", "text", "x"]), inner
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["choices", "content", "output"]), anything))
def test_no_answer_is_too_odd_to_be_read(body):
    assert spoken(body) is None or isinstance(spoken(body), str)
