"""Hits of the Responses API: either shape from either record, the upstream's id kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from responses_samples import (
    REQUEST,
    answer,
    call,
    delta,
    encoded,
    event,
    framed,
    item,
    message,
    reasoning,
    stream,
)

from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Asked, Prepared, Stamp
from thinkonce.protocols.responses.dialect import OpenAIResponses
from thinkonce.protocols.responses.shapes import split, whole_of
from thinkonce.protocols.sse import EventParser
from thinkonce.request.storable import StoreRules, refusal

RESPONSES = OpenAIResponses()
STAMP = Stamp("resp_new", 99)
MARKS = b'"cache_hit":true,"kv_cache":{"status":"hit"}'
MARKED = {"cache_hit": True, "kv_cache": {"status": "hit"}}
PLAIN = RESPONSES.asks(REQUEST)
STREAM = RESPONSES.asks({**REQUEST, "stream": True})


def from_json(body: bytes) -> Prepared:
    return RESPONSES.prepare(RESPONSES.receive(PLAIN, 200, "application/json", body).reply)


def from_stream(events: list[bytes]) -> Prepared:
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    recorder.feed(framed(events))
    reply = recorder.end()
    assert reply is not None
    return RESPONSES.prepare(reply)


def events_of(raw: bytes) -> list[dict[str, Any]]:
    told = EventParser().feed(raw)
    events = [json.loads(each.data or b"") for each in told]
    assert [each.name for each in told] == [each["type"] for each in events]
    return events


def types(raw: bytes) -> list[str]:
    """Of the events, with each run of one type told once."""
    names = [each["type"].removeprefix("response.") for each in events_of(raw)]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


# -- the same shape ------------------------------------------------------------------------------


def test_a_hit_keeps_the_upstreams_id_and_time() -> None:
    body = json.dumps(answer(), indent=2).encode() + b"\n"
    prepared = from_json(body)
    assert prepared.render(PLAIN, None) == prepared.render(PLAIN, STAMP) == body
    assert json.loads(prepared.render(PLAIN, STAMP, MARKS)) == answer() | MARKED
    assert list(json.loads(prepared.render(PLAIN, STAMP, MARKS)))[-2:] == list(MARKED)
    assert from_stream(stream()).render(STREAM, STAMP) == framed(stream())


def test_a_replay_has_the_marks_on_its_last_event_and_the_answer_in_it() -> None:
    prepared = from_stream(stream())
    events = events_of(prepared.render(STREAM, STAMP, MARKS))
    assert events[:-1] == [json.loads(each) for each in stream()[:-1]]
    last = json.loads(stream()[-1])
    assert events[-1] == last | {"response": answer() | MARKED} | MARKED
    one_by_one = prepared.render_events(STREAM, STAMP, MARKS)
    assert len(one_by_one) == len(events)
    assert b"".join(one_by_one) == prepared.render(STREAM, STAMP, MARKS)


def test_marks_of_a_cache_upstream_are_replaced() -> None:
    theirs = {"cache_hit": False, "kv_cache": {"status": "miss"}}
    body = encoded(answer() | theirs)
    assert json.loads(from_json(body).render(PLAIN, STAMP, MARKS)) == answer() | MARKED
    assert json.loads(RESPONSES.annotate(body, MARKS)) == answer() | MARKED
    last = events_of(from_json(body).render(STREAM, STAMP, MARKS))[-1]
    assert last["response"] == answer() | MARKED


def test_what_is_held_ready_is_counted() -> None:
    replay = from_stream(stream())
    assert replay.size == 0
    text = replay.render(STREAM, STAMP)
    once = replay.size
    assert len(text) * 0.9 < once < len(text) * 1.5
    replay.render(STREAM, STAMP)
    assert replay.size == once


# -- a stream answers for the object -------------------------------------------------------------


def test_a_recorded_stream_answers_a_request_for_json_with_the_very_bytes() -> None:
    prepared = from_stream(stream())
    assert prepared.render(PLAIN, None) == encoded(answer())
    assert json.loads(prepared.render(PLAIN, STAMP, MARKS)) == answer() | MARKED


def said(kind: str, text: str, **place: Any) -> bytes:
    return event(f"response.{kind}.delta", 2, delta=text, output_index=0, **place)


def item_done(done: dict[str, Any]) -> bytes:
    return done_at(0, done)


def done_at(index: int, done: dict[str, Any]) -> bytes:
    return event("response.output_item.done", 3, output_index=index, item=done)


def with_refusal(words: dict[str, Any]) -> dict[str, Any]:
    return words | {"content": [*words["content"], {"type": "refusal", "refusal": "no"}]}


@pytest.mark.parametrize(
    ("before", "output"),
    [
        ([delta("hel"), delta("p")], [message("hello")]),
        ([delta("hello")], []),
        ([delta("hello")], [call()]),
        ([said("output_text", "x")], [message("x")]),
        ([said("function_call_arguments", '{"a":1}')], [call('{"a":2}')]),
        ([said("custom_tool_call_input", "a")], [item("custom_tool_call", "c", input="b")]),
        ([said("reasoning_summary_text", "a", summary_index=0)], [reasoning("b"), message()]),
        ([said("refusal", "a", content_index=0)], [message()]),
        ([item_done(call())], [message()]),
        ([item_done(item("message", "msg_2"))], [message()]),
        ([delta("hello"), item_done(message("hello"))], [message("hello"), call()]),
        ([delta("hello")], [message("hello"), call()]),
        ([delta("hello")], [message("hello"), reasoning("hm")]),
        ([item_done(message("hello"))], [message("bye")]),
        ([item_done(message("hello"))], [message("hello", annotations=[{"type": "url"}])]),
        ([delta("hello")], [message("hello", annotations=[{"type": "url"}])]),
        ([delta("hello")], [with_refusal(message("hello"))]),
        ([delta("hello"), item_done(message("hello"))], [with_refusal(message("hello"))]),
        ([], [message("hello")]),
        ([], [item("message", "msg_1", role="assistant", content=[])]),
        ([item_done(call())], [call('{"city":"Rome"}')]),
        ([item_done(call())], [call() | {"name": "other"}]),
        ([delta("hello"), item_done(message("hello")), done_at(1, call())], [message("hello")]),
    ],
)
def test_an_object_that_contradicts_its_events_is_not_handed_out(
    before: list[bytes], output: list[dict[str, Any]]
) -> None:
    last = event("response.completed", 4, response={**answer(), "output": output})
    prepared = from_stream([*stream()[:2], *before, last])
    assert prepared.serves(STREAM)
    assert not prepared.serves(PLAIN)
    with pytest.raises(ValueError, match="serves"):
        prepared.render(PLAIN, STAMP)


def test_an_item_may_differ_in_what_providers_make_anew_each_time() -> None:
    done = reasoning("hm") | {"encrypted_content": "gBBB", "status": "in_progress"}
    last = event("response.completed", 4, response=answer(reasoning("hm")))
    prepared = from_stream([*stream()[:2], item_done(done), last])
    assert json.loads(prepared.render(PLAIN, None)) == answer(reasoning("hm"))


def test_an_answer_left_out_of_the_last_event_was_said_all_the_same() -> None:
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    last = event("response.completed", 4, response={**answer(), "output": []})
    recorder.feed(framed([*stream()[:-1], last]))
    assert refusal(STREAM, recorder.gist(), RESPONSES.finish_reasons, StoreRules()) is None


# -- an object makes a stream --------------------------------------------------------------------


def test_words_come_as_the_events_clients_know() -> None:
    body = encoded(answer(message("hello " * 50)))
    made = from_json(body).render(STREAM, STAMP, MARKS)
    assert types(made) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    events = events_of(made)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    begun = answer(status="in_progress", usage=None, completed_at=None) | {"output": []}
    assert events[0]["response"] == events[1]["response"] == begun
    assert events[2]["item"] == item(
        "message", "msg_1", status="in_progress", role="assistant", content=[]
    )
    deltas = [each for each in events if each["type"].endswith("text.delta")]
    assert "".join(each["delta"] for each in deltas) == "hello " * 50
    assert 1 < len(deltas) <= 10
    assert {(each["item_id"], each["content_index"]) for each in deltas} == {("msg_1", 0)}
    assert events[-2]["item"] == message("hello " * 50)
    assert events[-1]["response"] == json.loads(body) | MARKED


def test_calls_come_with_their_arguments_piece_by_piece() -> None:
    custom = item("custom_tool_call", "ctc_1", call_id="c", name="sql", input="select 1")
    made = from_json(encoded(answer(call(), custom))).render(STREAM, STAMP)
    assert types(made)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    events = events_of(made)
    assert events[2]["item"] == call("") | {"status": "in_progress"}
    assert (events[4]["arguments"], events[4]["output_index"]) == (call()["arguments"], 0)
    assert (events[7]["delta"], events[8]["input"], events[8]["output_index"]) == (
        "select 1",
        "select 1",
        1,
    )


def test_reasoning_refusals_and_citations_come_too() -> None:
    note = {"type": "url_citation", "start_index": 0, "end_index": 2, "url": "https://a"}
    refused = {"type": "refusal", "refusal": "I will not"}
    cited = message("as said", annotations=[note])
    cited["content"].append(refused)
    thought = {"id": "rs_2", "type": "reasoning", "summary": []}
    thought["content"] = [{"type": "reasoning_text", "text": "hm"}]
    made = from_json(encoded(answer(reasoning("first", "then"), thought, cited)))
    assert types(made.render(STREAM, STAMP))[2:-1] == [
        "output_item.added",
        *["reasoning_summary_part.added", "reasoning_summary_text.delta"],
        *["reasoning_summary_text.done", "reasoning_summary_part.done"],
        *["reasoning_summary_part.added", "reasoning_summary_text.delta"],
        *["reasoning_summary_text.done", "reasoning_summary_part.done"],
        "output_item.done",
        "output_item.added",
        *["content_part.added", "reasoning_text.delta", "reasoning_text.done"],
        "content_part.done",
        "output_item.done",
        "output_item.added",
        *["content_part.added", "output_text.delta", "output_text.annotation.added"],
        *["output_text.done", "content_part.done"],
        *["content_part.added", "refusal.delta", "refusal.done", "content_part.done"],
        "output_item.done",
    ]


def test_a_body_over_several_lines_becomes_one_and_a_byte_order_mark_none() -> None:
    pretty = json.dumps(answer(), indent=2).replace("\n", "\r\n").encode()
    made = events_of(from_json(pretty).render(STREAM, STAMP, MARKS))
    assert made[-1]["response"] == answer() | MARKED
    assert not from_json(b"\xef\xbb\xbf" + pretty).serves(STREAM)


@pytest.mark.parametrize("number", ["1E400", "-Infinity", "1" * 40])
def test_a_number_that_could_not_be_written_again_makes_no_stream(number: str) -> None:
    body = encoded(answer()).replace(b'"status"', b'"x":' + number.encode() + b',"status"', 1)
    assert not from_json(body).serves(STREAM)
    assert from_json(body).render(PLAIN, None) == body


def test_logprobs_stay_with_the_text_they_belong_to() -> None:
    logs = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}] * 3
    made = events_of(
        from_json(encoded(answer(message("a" * 99, logprobs=logs)))).render(STREAM, None)
    )
    deltas = [each for each in made if each["type"] == "response.output_text.delta"]
    assert [(each["delta"], each["logprobs"]) for each in deltas] == [("a" * 99, logs)]


@pytest.mark.parametrize(
    "whole",
    [
        answer(item("web_search_call", "ws_1", action={"query": "x"}), message()),
        answer(item("of_tomorrow", "x")),
        answer(item("message", "m", content=[{"type": "of_tomorrow", "text": "x"}])),
        answer(item("message", "m", content="x")),
        answer(item("function_call", "f", arguments=None)),
        answer({"id": "no type"}),
        answer(item("reasoning", "r", summary=[{"type": "of_tomorrow", "text": "x"}])),
        answer(message("half \ud83d")),
        answer(status="cancelled"),
    ],
)
def test_what_has_no_known_events_is_a_miss_for_a_stream(whole: dict[str, Any]) -> None:
    prepared = from_json(encoded(whole))
    assert prepared.serves(PLAIN)
    assert not prepared.serves(STREAM)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=120)
parts = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("output_text"), "text": texts},
        optional={
            "annotations": st.lists(st.dictionaries(texts, texts, max_size=2), max_size=2),
            "logprobs": st.lists(st.fixed_dictionaries({"token": texts}), max_size=2),
            "new": texts,
        },
    ),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": texts}),
)
items = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("message"), "id": texts, "content": st.lists(parts, max_size=3)},
        optional={"status": st.just("completed"), "phase": texts, "role": texts},
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "arguments": texts}, optional={"id": texts}
    ),
    st.fixed_dictionaries({"type": st.just("custom_tool_call"), "input": texts, "id": texts}),
    st.fixed_dictionaries(
        {
            "type": st.just("reasoning"),
            "id": texts,
            "summary": st.lists(
                st.fixed_dictionaries({"type": st.just("summary_text"), "text": texts}), max_size=3
            ),
        },
        optional={
            "encrypted_content": texts,
            "content": st.lists(
                st.fixed_dictionaries({"type": st.just("reasoning_text"), "text": texts}),
                max_size=2,
            ),
        },
    ),
)


@given(st.lists(items, max_size=4), st.dictionaries(texts, texts, max_size=2))
def test_a_made_stream_says_exactly_what_its_object_holds(
    output: list[dict[str, Any]], extra: dict[str, str]
) -> None:
    body = json.dumps({**extra, **answer(), "output": output}, indent=1).encode()
    events = split(body)
    assert events is not None
    whole = whole_of(events)
    assert whole is not None, "the events agree with the object"
    assert json.loads(whole) == json.loads(body)
    built = [
        json.loads(each)["item"]
        for each in events
        if json.loads(each)["type"] == "response.output_item.done"
    ]
    assert built == output


# -- whole answers -------------------------------------------------------------------------------


def why(body: Any, request: Asked = PLAIN, status: int = 200) -> Reason | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    gist = RESPONSES.receive(request, status, "application/json", raw).gist
    return refusal(request, gist, RESPONSES.finish_reasons, StoreRules())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answer(), None),
        (answer(call()), None),
        (answer(reasoning("hm")), Reason.EMPTY),
        ({**answer(), "output": []}, Reason.EMPTY),
        (
            answer(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Reason.LENGTH,
        ),
        (answer(status="queued"), Reason.INCOMPLETE),
        (answer(status="cancelled"), Reason.ABORTED),
        (answer(status="failed"), Reason.ERROR),
        (answer(error={"message": "no"}), Reason.ERROR),
        ({"error": {"message": "no"}}, Reason.ERROR),
        (answer(created_at=10**400), Reason.ERROR),
        ({"id": "r", "status": "completed"}, Reason.ERROR),
        ({"choices": [{"message": {"content": "a chat answer"}}]}, Reason.ERROR),
        ([], Reason.ERROR),
        (b"", Reason.ERROR),
        (b"<html>busy</html>", Reason.ERROR),
        (b'{"output":' + b"[" * 5000, Reason.ERROR),
    ],
)
def test_a_whole_answer_is_kept_only_if_it_is_complete(body: Any, reason: Reason | None) -> None:
    assert why(body) is reason


def test_an_error_is_passed_on_and_not_kept() -> None:
    received = RESPONSES.receive(PLAIN, 429, "application/json", b'{"error":{}}')
    assert (received.reply.status, received.reply.body) == (429, b'{"error":{}}')
    assert why(answer(), status=500) is Reason.ERROR


def test_json_mode_on_a_whole_answer() -> None:
    request = RESPONSES.asks({**REQUEST, "text": {"format": {"type": "json_schema"}}})
    assert why(answer(message('{"a":1}')), request) is None
    assert why(answer(message("thinking aloud"), message('{"a":1}')), request) is None
    assert why(answer(message("sorry")), request) is Reason.INVALID_JSON
    assert why(answer(message("sorry"), call()), request) is None


def test_tokens_are_counted_or_estimated() -> None:
    counted = RESPONSES.receive(PLAIN, 200, "application/json", encoded(answer())).reply
    assert (counted.prompt_tokens, counted.completion_tokens, counted.source_id) == (7, 2, "resp_1")
    guessed = RESPONSES.receive(PLAIN, 200, "", encoded(answer(usage=None))).reply
    assert guessed.usage_estimated
    assert guessed.tokens > 6
