"""Tool calls that a model writes, told as calls where its template says how it writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from openai import OpenAI
from small_model import CONTEXT, make_tokenizer

from thinkonce.kv.serving.answers.answer import Begun, Ended, Event, Said
from thinkonce.kv.serving.answers.reply import ChatDialect
from thinkonce.kv.serving.answers.transcript import Piece
from thinkonce.kv.serving.requests.prompt import callable_names
from thinkonce.kv.weights.model import Model

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }} Call as <tool_call>{...}</tool_call>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
TOKENIZER = make_tokenizer()
NOW = '<tool_call>\n{"name": "now", "arguments": {"zone": "utc"}}\n</tool_call>'
ADD = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}}</tool_call>'


def told(text: str, reason: Any = "stop", step: int = 3) -> list[Event]:
    """One choice that says `text`, a few characters at a time."""
    pieces = [Said(0, Piece(text[at : at + step], ())) for at in range(0, len(text), step)]
    return [Begun(0), *pieces, Ended(0, reason)]


def dialect(**fields: Any) -> ChatDialect:
    return ChatDialect("m", TOKENIZER, tools={"now", "add"}, **fields)


def whole(text: str, reason: Any = "stop") -> Any:
    events = told(text, reason)
    said = "".join(event.piece.text for event in events if isinstance(event, Said))
    return dialect().whole_choice(Ended(0, reason), Piece(said, ()))


def streamed(text: str, reason: Any = "stop", step: int = 3) -> tuple[str, list[Any], str]:
    talking = dialect()
    chunks = [json.loads(c) for event in told(text, reason, step) for c in talking.chunks(event)]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    content = "".join(delta.get("content") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    return content, calls, chunks[-1]["choices"][0]["finish_reason"]


def named(calls: list[Any]) -> Iterator[tuple[str, Any]]:
    for call in calls:
        assert call["type"] == "function"
        assert call["id"].startswith("call_")
        yield call["function"]["name"], json.loads(call["function"]["arguments"])


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
@pytest.mark.parametrize("before", ["", "Let me see.\n"])
def test_calls_are_told_as_calls(before: str, step: int) -> None:
    content, calls, reason = streamed(f"{before}{NOW}\n{ADD}\n", step=step)
    assert (content, reason) == (before, "tool_calls")
    assert list(named(calls)) == [("now", {"zone": "utc"}), ("add", {"a": 1, "b": [2]})]
    assert [call["index"] for call in calls] == [0, 1]
    choice = whole(f"{before}{NOW}\n{ADD}\n")
    assert choice["message"]["content"] == (before.strip() or None)
    assert list(named(choice["message"]["tool_calls"])) == list(named(calls))
    assert choice["finish_reason"] == "tool_calls"


def test_a_list_of_calls_in_one_block_is_several() -> None:
    block = '<tool_call>[{"name": "now"}, {"name": "add", "arguments": {}}]</tool_call>'
    assert list(named(streamed(block)[1])) == [("now", {}), ("add", {})]


@pytest.mark.parametrize(
    "text",
    [
        "no call at all, 3 < 4",
        "<tool_calling>",
        "it ends with <tool_c",
        NOW.replace("now", "rm"),
        NOW + " and more text",
        '<tool_call>{"name": "now", "arguments": {"zone": </tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "now", "arguments": "x"}</tool_call>',
        '<tool_call>{"name": "now"}',
    ],
)
@pytest.mark.parametrize("step", [1, 5])
def test_what_is_no_call_of_a_known_tool_is_text_whole_and_in_order(text: str, step: int) -> None:
    assert streamed(text, step=step) == (text, [], "stop")
    assert whole(text)["message"] == {"role": "assistant", "content": text, "refusal": None}


def test_an_answer_cut_off_in_a_call_says_length() -> None:
    assert streamed(NOW[:-5], "length") == (NOW[:-5], [], "length")
    assert streamed(NOW, "length")[2] == "length"


def test_text_before_a_call_is_not_held_back() -> None:
    talking = dialect()
    said = [list(talking.chunks(event)) for event in told("Let me see. <tool_call>{", step=4)[1:-1]]
    assert [len(chunks) for chunks in said] == [1, 1, 1, 0, 0, 0]


def test_calls_are_read_only_where_the_template_says_how_they_are_written() -> None:
    tools = [{"type": "function", "function": {"name": "now"}}, {"type": "function"}]
    assert callable_names(TEMPLATE, tools) == {"now"}
    assert callable_names("{{ tools }} [TOOL_CALLS]", tools) == frozenset()


def test_a_served_model_with_such_a_template_answers_as_ever_where_it_calls_nothing(
    serve: Any, model: Model
) -> None:
    tools: Any = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    asked: Any = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 24}
    served = serve(replace(model, tokenizer=make_tokenizer(TEMPLATE), context_tokens=CONTEXT))
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model="tiny", tools=tools, temperature=0, **asked)
        chunks = list(
            client.chat.completions.create(
                model="tiny", tools=tools, temperature=0, stream=True, **asked
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
