"""Chunks to object and back, without loss or not at all."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.protocols.chunks.chat_shapes import assemble, split

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m"}


def chunk(delta: dict[str, Any] | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "finish_reason": None, **more}
    return {**HEAD, "choices": [choice]}


def merged(*chunks: dict[str, Any]) -> dict[str, Any] | None:
    return assemble([json.dumps(each).encode() for each in chunks])


def message(*deltas: dict[str, Any]) -> Any:
    whole = merged(*(chunk(delta) for delta in deltas))
    assert whole is not None
    return whole["choices"][0]["message"]


def call_of(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    kind = {"custom": "custom"}.get(more.get("type", ""), "function")
    text = {"function": "arguments", "custom": "input"}[kind]
    return {"index": 0, **more, kind: {"name": name, text: arguments}}


def called(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    """A chunk with a piece of a call, the only one for all its index says."""
    return chunk({"tool_calls": [call_of(name, arguments, **more)]})


def test_texts_are_joined_whatever_they_are_called() -> None:
    assert message(
        {"role": "assistant", "content": None, "reasoning_content": ""},
        {"content": None, "reasoning_content": "Hm"},
        {"reasoning_content": "m.", "content": None},
        {"content": "So"},
        {"content": ": 4", "refusal": None, "new_text": "a"},
        {"new_text": "b"},
    ) == {
        "role": "assistant",
        "content": "So: 4",
        "reasoning_content": "Hmm.",
        "refusal": None,
        "new_text": "ab",
    }


def test_tool_calls_are_joined_by_index() -> None:
    def call(index: int, **fields: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **fields}]}

    assert message(
        {"role": "assistant", "content": None},
        call(1, id="b", type="function", function={"name": "g", "arguments": ""}),
        call(0, id="a", type="function", function={"name": "f"}),
        call(0, type="function", function={"arguments": '{"x"'}),
        call(1, function={"arguments": "{}"}),
        call(0, id="a", function={"name": "f", "arguments": ":1}"}),
        call(2, id="c", type="custom", custom={"name": "h", "input": "p"}),
        call(2, custom={"input": "q"}),
    )["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"id": "c", "type": "custom", "custom": {"name": "h", "input": "pq"}},
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [call_of("f", '{"x"', id="a"), call_of("f", ":1}", id="a")],
        [call_of("f", "", id="a"), call_of("", '{"x":1}', id="")],
        [{"index": 0, "id": "a"}, call_of("f", '{"x":1}')],
        [{"index": 0, "id": ""}, call_of("f", '{"x":1}', id="a")],
    ],
)
def test_a_call_that_is_named_by_its_id_or_once_is_one_call(pieces: list[dict[str, Any]]) -> None:
    (only,) = message(*({"tool_calls": [piece]} for piece in pieces))["tool_calls"]
    assert only == {"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}


def test_calls_without_an_index_are_told_apart_by_their_place() -> None:
    both = {"tool_calls": [{"id": "a"}, {"id": "b"}]}
    assert message(both)["tool_calls"] == [{"id": "a"}, {"id": "b"}]


def test_choices_logprobs_and_ends_are_kept_apart() -> None:
    def logprobs(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -0.5}], "refusal": None}

    whole = merged(
        chunk({"role": "assistant", "content": ""}, 1, logprobs=None),
        chunk({"content": "b"}, 1, logprobs=logprobs("b")),
        chunk({"content": "a"}, 0, logprobs=logprobs("a")),
        chunk({"content": "c"}, 1, logprobs=logprobs("c")),
        chunk({}, 1, finish_reason="stop", native="END"),
        chunk({}, 0, finish_reason="length"),
    )
    assert whole is not None
    first, second = whole["choices"]
    assert (first["index"], first["finish_reason"]) == (0, "length")
    assert (second["message"]["content"], second["finish_reason"]) == ("bc", "stop")
    assert [each["token"] for each in second["logprobs"]["content"]] == ["b", "c"]
    assert second["native"] == "END"


def test_the_first_chunk_may_be_without_id() -> None:
    whole = merged({**HEAD, "id": "", "created": 0, "choices": [], "filters": [1]}, chunk())
    assert whole is not None
    assert (whole["id"], whole["created"], whole["filters"]) == ("chatcmpl-1", 17, [1])
    assert whole["object"] == "chat.completion"


def test_padding_is_dropped_and_the_last_usage_counts() -> None:
    whole = merged(
        {**chunk({"content": "a"}), "obfuscation": "xy", "usage": None},
        {**chunk({"content": "b"}), "p": "abc", "usage": {"prompt_tokens": 1}},
        {**HEAD, "choices": [], "usage": {"prompt_tokens": 2}},
    )
    assert whole is not None
    assert whole["usage"] == {"prompt_tokens": 2}
    assert not {"obfuscation", "p"} & set(whole)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk({"thing": {"a": 1}}), chunk({"thing": {"a": 2}})],
        [chunk({"parts": [1]}), chunk({"parts": [2]})],
        [chunk({"thing": 1}), chunk({"thing": 2})],
        [chunk({"thing": "a"}), chunk({"thing": 1})],
        [chunk({"role": "assistant"}), chunk({"role": "tool"})],
        [chunk(mark=1), chunk(mark=2)],
        [chunk(finish_reason="stop"), chunk(finish_reason="length")],
        [{**chunk(), "extra": 1}, {**chunk(), "extra": 2}],
        [
            chunk({"tool_calls": [{"index": 0, "id": "a"}]}),
            chunk({"tool_calls": [{"index": 0, "id": "b"}]}),
        ],
        [called("f", '{"c":"a"}', id=""), called("f", '{"c":"b"}', id="")],
        [called("f", '{"c":"a"}'), called("g", '{"c":"b"}')],
        [called("f", ""), called("f", "")],
        [called("f", ""), called("f", "", id="b")],
        [called("f", "{}", type="custom"), called("f", "")],
        [called("f", '{"a"'), called("", ":1}"), called("", '{"b":1}')],
        [called("f", '{"a":1')],
        [chunk({"function_call": {"name": "f", "arguments": "{}{}"}})],
        [chunk({"tool_calls": [call_of("f", "{}"), call_of("f", "{}")]})],
        [chunk({"custom_tool": {"x": 1}}), {**chunk(), "most": 10**40}],
        [chunk({"tool_calls": ["odd"]})],
        [["odd"]],
        [{**HEAD, "choices": "odd"}],
        [{**HEAD, "choices": [{"delta": "odd"}]}],
    ],
)
def test_what_chunks_do_not_agree_on_is_never_dropped(chunks: list[Any]) -> None:
    assert merged(*chunks) is None


def test_unknown_fields_the_chunks_agree_on_are_kept() -> None:
    whole = merged(
        {**chunk({"thing": {"a": 1}}, mark=[1]), "extra": 1},
        {**chunk({"thing": {"b": 2}}, mark=[1]), "extra": 1},
        chunk({"thing": None}, mark=None),
    )
    assert whole is not None
    assert whole["extra"] == 1
    assert whole["choices"][0]["mark"] == [1]
    assert whole["choices"][0]["message"]["thing"] == {"a": 1, "b": 2}


# -- and back ------------------------------------------------------------------------------------


def unsplit(body: dict[str, Any]) -> dict[str, Any] | None:
    chunks = split(body)
    assert chunks is not None
    return assemble(chunks)


def test_a_split_answer_reads_like_a_stream() -> None:
    body = {
        "id": "1", "object": "chat.completion", "created": 5, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello " * 50},
                     "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1}, "system_fingerprint": "fp",
    }  # fmt: skip
    chunks = [json.loads(raw) for raw in split(body) or ()]
    deltas = [each["choices"][0]["delta"] for each in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert 3 <= len(deltas) - 2 <= 8
    assert "".join(delta["content"] for delta in deltas[1:-1]) == "hello " * 50
    ends = [each["choices"][0]["finish_reason"] for each in chunks]
    assert ends == [None] * (len(chunks) - 1) + ["stop"]
    for each in chunks:
        assert each["object"] == "chat.completion.chunk"
        assert (each["id"], each["system_fingerprint"]) == ("1", "fp")
        assert "usage" not in each


def test_reasoning_is_said_before_the_content() -> None:
    text = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
    body = {**HEAD, "choices": [{"index": 0, "message": text, "finish_reason": "stop"}]}
    deltas = [json.loads(raw)["choices"][0]["delta"] for raw in split(body) or ()]
    assert deltas[1:-1] == [{"reasoning_content": "2+2"}, {"content": "4"}]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": 5},
        {"choices": [{}]},
        {"choices": [{"message": 1}]},
        {"choices": [{"index": 0, "message": {"content": text}} for text in "ab"]},
        {"choices": [{"message": {"content": "a"}}], "limit": inf},
        {"choices": [{"message": {"content": "a", "score": -inf}}]},
    ],
)
def test_what_is_no_chat_answer_is_not_split(body: dict[str, Any]) -> None:
    assert split(body) is None


words = st.text(max_size=300)
arguments = st.just("") | words.map(json.dumps)
plain = st.none() | st.booleans() | st.integers(-9, 9) | st.just([]) | st.just([{"a": 1}])
calls = st.fixed_dictionaries(
    {
        "id": st.text(max_size=5),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text(max_size=5), "arguments": arguments}),
    }
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | words},
    optional={
        "refusal": st.none() | words,
        "reasoning_content": st.none() | words,
        "annotations": plain,
        "unknown": plain | words,
        "tool_calls": st.none() | st.lists(calls, max_size=3),
        "function_call": st.fixed_dictionaries({"name": words, "arguments": arguments}),
    },
)
tokens = st.lists(st.fixed_dictionaries({"token": words, "logprob": st.just(-0.25)}), max_size=3)
choices = st.fixed_dictionaries(
    {"message": messages, "finish_reason": st.sampled_from(["stop", "length", None])},
    optional={
        "logprobs": st.none() | st.fixed_dictionaries({"content": tokens, "refusal": st.none()}),
        "content_filter_results": plain,
    },
)


@given(st.lists(choices, min_size=1, max_size=3), st.dictionaries(st.just("provider"), words))
def test_any_answer_comes_back_from_its_chunks(
    answers: list[dict[str, Any]], extras: dict[str, Any]
) -> None:
    numbered = [{"index": index, **choice} for index, choice in enumerate(answers)]
    body = {**HEAD, "object": "chat.completion", "choices": numbered, **extras}
    assert unsplit(body) == body
