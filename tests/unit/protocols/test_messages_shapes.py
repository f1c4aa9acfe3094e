"""A message as events and as an object, without loss or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.protocols.messages.shapes import assemble, split

HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
ENDS = {"stop_reason": "end_turn", "stop_sequence": None}
USAGE = {"input_tokens": 5, "output_tokens": 3, "service_tier": "standard"}


def start(**more: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {**HEAD, "usage": {"input_tokens": 5}, **more}}


def opened(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def grown(index: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


def closed(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


END: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": ENDS, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


def merged(*events: dict[str, Any]) -> Any:
    body = assemble([json.dumps(each).encode() for each in events])
    return None if body is None else json.loads(body)


def content(*events: dict[str, Any]) -> Any:
    whole = merged(start(), *events, *END)
    return None if whole is None else whole["content"]


def as_the_sdk_reads(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What Anthropic's own client makes of the events."""
    snapshot, buffers = None, {}
    for event in events:
        snapshot = accumulate_event(
            event=event,  # type: ignore[arg-type]
            current_snapshot=snapshot,
            json_bufs=buffers,
        )
    assert snapshot is not None
    return snapshot.model_dump(exclude_unset=True, warnings=False)


# -- events to object ------------------------------------------------------------------------


def test_texts_thoughts_and_signatures_are_joined_by_index() -> None:
    assert content(
        opened(1, type="text", text="a"),
        opened(0, type="thinking", thinking="", signature=""),
        grown(0, "thinking_delta", thinking="hm"),
        grown(1, "text_delta", text="b"),
        grown(0, "thinking_delta", thinking="m\n"),
        grown(0, "signature_delta", signature="sig+/=="),
        grown(1, "text_delta", text="c"),
        closed(0),
        closed(1),
    ) == [
        {"type": "thinking", "thinking": "hmm\n", "signature": "sig+/=="},
        {"type": "text", "text": "abc"},
    ]


def test_the_input_of_a_tool_is_the_json_its_pieces_amount_to() -> None:
    events = [
        opened(0, type="tool_use", id="t", name="f", input={}),
        *(
            grown(0, "input_json_delta", partial_json=each)
            for each in ("", '{"a": 1', ".50,", '"b')
        ),
        grown(0, "input_json_delta", partial_json='":12345678901234567890123}'),
    ]
    body = assemble([json.dumps(each).encode() for each in [start(), *events, *END]])
    assert body is not None
    assert b'"input":{"a": 1.50,"b":12345678901234567890123}' in body, "as the model wrote it"


@pytest.mark.parametrize("pieces", [[], [""], ["", " "]])
def test_a_call_without_arguments_has_an_empty_object(pieces: list[str]) -> None:
    deltas = [grown(0, "input_json_delta", partial_json=each) for each in pieces]
    made = content(opened(0, type="server_tool_use", id="t", name="f", input={}), *deltas)
    assert made == [{"type": "server_tool_use", "id": "t", "name": "f", "input": {}}]
    assert content(opened(0, type="tool_use", id="t", name="f"), *deltas)[0].get("input", {}) == {}


def test_an_input_that_came_whole_stays() -> None:
    assert content(opened(0, type="tool_use", input={"a": 1}))[0]["input"] == {"a": 1}


def test_citations_follow_one_another() -> None:
    first, second = {"cited_text": "x", "start": 1}, {"cited_text": "y", "start": 2}
    block = content(
        opened(0, type="text", text="", citations=[]),
        grown(0, "text_delta", text="as x says"),
        grown(0, "citations_delta", citation=first),
        grown(0, "citations_delta", citation=second),
    )
    assert block == [{"type": "text", "text": "as x says", "citations": [first, second]}]
    bare = content(opened(0, type="text", text=""), grown(0, "citations_delta", citation=first))
    assert bare == [{"type": "text", "text": "", "citations": [first]}]


def test_blocks_nobody_knows_are_kept() -> None:
    block = {"type": "brand_new", "deep": [{"a": 1.5}], "none": None}
    redacted = {"type": "redacted_thinking", "data": "Emw+/=="}
    assert content(opened(0, **block), closed(0), opened(1, **redacted)) == [block, redacted]


def test_usage_is_that_of_the_start_with_the_totals_of_the_end() -> None:
    usage = {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 9, "tier": "s"}
    later = {"output_tokens": 44, "input_tokens": 6, "cache_read_input_tokens": None}
    delta = {"type": "message_delta", "delta": ENDS, "usage": later}
    whole = merged(start(usage=usage), delta, END[1])
    assert whole["usage"] == {**usage, "input_tokens": 6, "output_tokens": 44}


def test_what_is_known_at_the_end_stands_in_the_object() -> None:
    delta = {**ENDS, "stop_reason": "refusal", "stop_details": {"category": "x"}}
    end = {"type": "message_delta", "delta": delta, "usage": {}, "context_management": {"a": 1}}
    silent = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {}}
    stop = {"type": "message_stop", "metrics": {"b": 2}}
    whole = merged(start(stop_reason=None), end, silent, stop)
    assert whole["stop_reason"] == "refusal"
    assert whole["stop_details"] == {"category": "x"}
    assert (whole["context_management"], whole["metrics"]) == ({"a": 1}, {"b": 2})


@pytest.mark.parametrize(
    "events",
    [
        [],
        END,
        [opened(0, type="text", text=""), *END],
        [start(), start(), *END],
        [start(content=[{"type": "text", "text": "x"}]), *END],
        [start(), {"type": "brand_new_event"}, *END],
        [start(), opened(0, type="text", text=""), opened(0, type="text", text=""), *END],
        [start(), grown(0, "text_delta", text="x"), *END],
        [start(), opened(0, type="x"), grown(0, "new_delta", x=1), *END],
        [start(), opened(0, type="text", text=""), grown(0, "text_delta", text="a", more=1), *END],
        [start(), {**opened(0, type="text", text=""), "more": 1}, *END],
        [start(), {**closed(0), "more": 1}, *END],
        [
            start(),
            opened(0, type="thinking", thinking=""),
            grown(0, "signature_delta", signature="a"),
            grown(0, "signature_delta", signature="b"),
            *END,
        ],
        [
            start(),
            opened(0, type="tool_use", input={"a": 1}),
            grown(0, "input_json_delta", partial_json='{"b":2}'),
            *END,
        ],
        [
            start(),
            opened(0, type="tool_use", input={}),
            grown(0, "input_json_delta", partial_json='{"b":'),
            *END,
        ],
        [start(), opened(0, type="text", text=""), grown(0, "text_delta", text="\ud83d"), *END],
        [start(), opened(0, type="text", text=""), grown(0, "text_delta", text=5), *END],
        [start(), {"type": "content_block_stop", "index": "x"}, *END],
        [{"no": "type"}],
    ],
)
def test_what_cannot_be_merged_is_never_dropped(events: list[Any]) -> None:
    assert merged(*events) is None


def test_null_members_of_a_delta_say_nothing() -> None:
    delta = grown(0, "thinking_delta", thinking="hm", estimated_tokens=None)
    assert content(opened(0, type="thinking", thinking=""), delta)[0]["thinking"] == "hm"


# -- object to events ------------------------------------------------------------------------

FOUND = {
    "type": "web_search_result",
    "title": "x",
    "url": "u",
    "encrypted_content": "e",
    "page_age": None,
}
BLOCKS: list[Any] = [
    {"type": "thinking", "thinking": "long " * 60, "signature": "EqQB+/=="},
    {"type": "thinking", "thinking": "", "signature": "only"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "text", "text": "你好，" * 50, "citations": None},
    {"type": "text", "text": "cited", "citations": [{"cited_text": "a"}, {"cited_text": "b"}]},
    {"type": "text", "text": ""},
    {"type": "tool_use", "id": "t", "name": "f", "input": {"city": "Zürich " * 30, "n": [1, 2]}},
    {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": [FOUND]},
    {"type": "brand_new", "x": {"y": 1}},
]


def events_of(body: dict[str, Any], **dumping: Any) -> list[dict[str, Any]]:
    events = split(json.dumps(body, **dumping).encode())
    assert events is not None
    assert not any(b"\n" in each or b"\r" in each for each in events)
    return [json.loads(each) for each in events]


def whole(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {**HEAD, "content": list(blocks), **ENDS, "usage": USAGE, **more}


def test_an_object_becomes_the_events_clients_know() -> None:
    events = events_of(whole({"type": "text", "text": "hi"}, BLOCKS[7]))
    assert events == [
        {
            "type": "message_start",
            "message": {
                **HEAD,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {**USAGE, "output_tokens": 0},
            },
        },
        opened(0, type="text", text=""),
        grown(0, "text_delta", text="hi"),
        closed(0),
        opened(1, **BLOCKS[7]),
        grown(1, "input_json_delta", partial_json=""),
        closed(1),
        {
            "type": "message_delta",
            "delta": ENDS,
            "usage": {"input_tokens": 5, "output_tokens": 3},
        },
        {"type": "message_stop"},
    ]


def test_long_texts_come_in_pieces_and_signatures_whole() -> None:
    kinds = [event["delta"].get("type") for event in events_of(whole(*BLOCKS)) if "delta" in event]
    assert kinds.count("thinking_delta") > 3
    assert kinds.count("input_json_delta") > 3
    assert kinds.count("signature_delta") == 2
    assert kinds.count("citations_delta") == 2


@pytest.mark.parametrize("indent", [None, 1])
def test_both_ways_lead_back_and_the_sdk_reads_the_same(indent: int | None) -> None:
    body = whole(*BLOCKS, stop_details=None, container={"id": "c"}, extra=[1])
    events = events_of(body, indent=indent)
    assert merged(*events) == body
    read = as_the_sdk_reads(events)
    assert (read["content"], read["usage"]) == (body["content"], USAGE)
    assert (read["stop_reason"], read["container"]["id"]) == ("end_turn", "c")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"",
        b'{"content":"x"}',
        b'{"content":[1]}',
        b'{"content":[{"text":"x"}]}',
        b'{"content":[{"type":"text","text":"\\ud83d"}]}',
    ],
)
def test_what_is_no_message_has_no_events(body: bytes) -> None:
    assert split(body) is None


texts = st.text(max_size=80)
inputs = st.dictionaries(texts, st.none() | st.integers() | texts | st.lists(st.booleans()))
blocks = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda a, b: {"type": "thinking", "thinking": a, "signature": b}, texts, texts),
    st.builds(lambda value: {"type": "tool_use", "id": "t", "name": "n", "input": value}, inputs),
    st.builds(lambda value: {"type": "other_thing", "text": value}, inputs),
)


@given(st.lists(blocks, max_size=4), st.sampled_from([None, 1]))
def test_any_message_survives_the_way_there_and_back(
    content: list[Any], indent: int | None
) -> None:
    body = whole(*content)
    assert merged(*events_of(body, indent=indent)) == body
