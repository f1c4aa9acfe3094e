"""Hits: the stored answer in the shape the current request asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from thinkonce.outcome import Reason
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.dialect import Asked, Prepared, Stamp
from thinkonce.protocols.reply import Reply, Shape
from thinkonce.protocols.sse import DONE, EventParser, frame
from thinkonce.request.storable import StoreRules, refusal

CHAT = OpenAIChat()
STAMP = Stamp("chatcmpl-new", 99)
MARKS = b'"cache_hit":true,"kv_cache":{"status":"hit"}'
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "chatcmpl-1"}]}
# The id and the time occur in the text too: only the members may change.
TEXT = 'my id is \\"id\\":\\"chatcmpl-1\\", \\"created\\":17'
BODY = (
    b'{\n "id": "chatcmpl-1", "object":"chat.completion", "created": 17,"model":"m-1",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    + TEXT.encode()
    + b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2,'
    b'"total_tokens":9}}\n'
)

PLAIN = CHAT.asks(REQUEST)
STREAM = CHAT.asks({**REQUEST, "stream": True})
WITH_USAGE = CHAT.asks({**REQUEST, "stream": True, "stream_options": {"include_usage": True}})


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m-1"}
    return json.dumps({**whole, "choices": [choice], **more}, separators=(",", ":")).encode()


def usage_chunk() -> bytes:
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m-1"}
    return json.dumps({**whole, "choices": [], "usage": USAGE}, separators=(",", ":")).encode()


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": 'my "id":"chatcmpl-1"'}),
    chunk({"content": ', "created":17}'}),
    chunk(finish="stop"),
]


def from_json(body: bytes = BODY) -> Prepared:
    return CHAT.prepare(CHAT.receive(PLAIN, 200, "application/json", body).reply)


def from_stream(*data: bytes, usage_asked: bool = False) -> Prepared:
    recorder = CHAT.recorder(STREAM, usage_asked=usage_asked, max_bytes=1 << 20)
    recorder.feed(b"".join(map(frame, [*data, DONE])))
    reply = recorder.end()
    assert reply is not None
    return CHAT.prepare(reply)


def chunks_of(text: bytes) -> list[dict[str, Any]]:
    data = [event.data for event in EventParser().feed(text)]
    assert data[-1] == DONE
    return [json.loads(each or b"") for each in data[:-1]]


# -- JSON in, JSON out ---------------------------------------------------------------------------


def test_without_stamp_and_marks_the_bytes_are_the_upstreams() -> None:
    assert from_json().render(PLAIN, None) == BODY


def test_a_hit_gets_a_fresh_id_and_time_and_nothing_else_changes() -> None:
    rendered = from_json().render(PLAIN, STAMP)
    expected = BODY.replace(b'"id": "chatcmpl-1"', b'"id": "chatcmpl-new"').replace(
        b'"created": 17', b'"created": 99'
    )
    assert rendered == expected


def test_the_marks_are_added_at_the_end() -> None:
    body = json.loads(from_json().render(PLAIN, STAMP, MARKS))
    assert list(body)[-2:] == ["cache_hit", "kv_cache"]
    assert body["choices"][0]["message"]["content"] == json.loads(f'"{TEXT}"')
    assert body["usage"] == USAGE


def test_a_live_answer_is_marked_the_same_way() -> None:
    assert json.loads(CHAT.annotate(BODY, MARKS)) == {
        **json.loads(BODY),
        "cache_hit": True,
        "kv_cache": {"status": "hit"},
    }
    twice = CHAT.annotate(CHAT.annotate(BODY, b'"cache_hit":false,"kv_cache":{}'), MARKS)
    assert twice.count(b"cache_hit") == 1
    assert json.loads(twice) == json.loads(CHAT.annotate(BODY, MARKS))


def test_members_in_another_order_or_absent_are_met_too() -> None:
    choices = b'"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]'
    turned = b'{"created":17,' + choices + b',"id":"a"}'
    stamped = b'{"created":99,' + choices + b',"id":"chatcmpl-new"}'
    assert from_json(turned).render(PLAIN, STAMP) == stamped
    bare = b"{" + choices + b"}"
    assert from_json(bare).render(PLAIN, STAMP) == bare
    assert from_json(bare).render(PLAIN, STAMP, MARKS) == bare[:-1] + b"," + MARKS + b"}"


# -- stream in, stream out -----------------------------------------------------------------------


def test_a_replay_has_the_recorded_chunks() -> None:
    replay = from_stream(*CHUNKS)
    assert replay.render(STREAM, None) == b"".join(map(frame, [*CHUNKS, DONE]))
    stamped = chunks_of(replay.render(STREAM, STAMP, MARKS))
    assert [each.pop("id") for each in stamped] == ["chatcmpl-new"] * 4
    assert [each.pop("created") for each in stamped] == [99] * 4
    marks = [each.pop("cache_hit", None) for each in stamped]
    assert marks == [None, None, None, True]
    stamped[-1].pop("kv_cache")
    for each, original in zip(stamped, CHUNKS, strict=True):
        assert {**each, "id": "chatcmpl-1", "created": 17} == json.loads(original)


def test_the_events_one_by_one_are_the_whole() -> None:
    replay = from_stream(*CHUNKS)
    events = replay.render_events(STREAM, STAMP, MARKS)
    assert len(events) == len(CHUNKS) + 1
    assert b"".join(events) == replay.render(STREAM, STAMP, MARKS)


def test_a_first_chunk_without_id_keeps_its_own() -> None:
    azure = json.dumps({"id": "", "created": 0, "choices": [], "prompt_filter_results": [1]})
    chunks = chunks_of(from_stream(azure.encode(), *CHUNKS).render(STREAM, STAMP, MARKS))
    assert (chunks[0]["id"], chunks[0]["created"]) == ("", 0)
    assert {each["id"] for each in chunks[1:]} == {"chatcmpl-new"}


def test_a_time_of_its_own_is_kept_even_if_it_begins_alike() -> None:
    later = CHUNKS[1].replace(b'"created":17,', b'"created":170,')
    chunks = chunks_of(from_stream(CHUNKS[0], later, *CHUNKS[2:]).render(STREAM, STAMP))
    assert [each["created"] for each in chunks] == [99, 170, 99, 99]


def test_data_over_several_lines_is_replayed_as_one() -> None:
    recorder = CHAT.recorder(STREAM, usage_asked=False, max_bytes=1 << 20)
    pretty = json.dumps(json.loads(CHUNKS[1]), indent=1).encode()
    recorder.feed(frame(CHUNKS[0]) + b"data: " + pretty.replace(b"\n", b"\ndata: ") + b"\n\n")
    recorder.feed(b"".join(map(frame, [*CHUNKS[2:], DONE])))
    reply = recorder.end()
    assert reply is not None
    replayed = chunks_of(CHAT.prepare(reply).render(STREAM, None))
    assert replayed == list(map(json.loads, CHUNKS))


# -- usage, as the current request asks ----------------------------------------------------------


def test_usage_recorded_for_another_client_is_left_out() -> None:
    asked = [each[:-1] + b',"usage":null}' for each in CHUNKS] + [usage_chunk()]
    replay = from_stream(*asked, usage_asked=True)
    assert replay.render(STREAM, None) == b"".join(map(frame, [*CHUNKS, DONE]))
    assert replay.render(WITH_USAGE, None) == b"".join(map(frame, [*asked, DONE]))


def test_usage_the_upstream_sends_by_itself_stays() -> None:
    own = [*CHUNKS[:-1], chunk(finish="stop", usage=USAGE)]
    replay = from_stream(*own, usage_asked=False)
    assert replay.render(STREAM, None) == replay.render(WITH_USAGE, None)


def test_usage_nobody_recorded_is_an_estimate_that_says_so() -> None:
    last = chunks_of(from_stream(*CHUNKS).render(WITH_USAGE, STAMP, MARKS))[-1]
    assert last["choices"] == []
    assert last["usage"]["estimated"] is True
    assert last["usage"]["total_tokens"] > 0
    assert (last["id"], last["cache_hit"]) == ("chatcmpl-new", True)


def test_the_marks_ride_where_they_rode_live() -> None:
    replay = from_stream(*CHUNKS, usage_chunk(), usage_asked=True)
    marked = [
        [number for number, each in enumerate(chunks_of(text)) if "cache_hit" in each]
        for text in (replay.render(STREAM, None, MARKS), replay.render(WITH_USAGE, None, MARKS))
    ]
    assert marked == [[3], [4]]


# -- one shape from the other --------------------------------------------------------------------


def test_a_recorded_stream_answers_a_request_for_json() -> None:
    body = json.loads(from_stream(*CHUNKS, usage_chunk()).render(PLAIN, STAMP, MARKS))
    assert body == {
        "id": "chatcmpl-new",
        "object": "chat.completion",
        "created": 99,
        "model": "m-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": 'my "id":"chatcmpl-1", "created":17}'},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "cache_hit": True,
        "kv_cache": {"status": "hit"},
    }


def test_a_recorded_object_answers_a_request_for_a_stream() -> None:
    prepared = from_json()
    chunks = chunks_of(prepared.render(STREAM, STAMP, MARKS))
    assert {(each["id"], each["created"]) for each in chunks} == {("chatcmpl-new", 99)}
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert text == json.loads(f'"{TEXT}"')
    assert "cache_hit" in chunks[-1]
    assert not any("usage" in each for each in chunks)
    with_usage = chunks_of(prepared.render(WITH_USAGE, STAMP, MARKS))
    assert (with_usage[-1]["choices"], with_usage[-1]["usage"]) == ([], USAGE)
    assert "cache_hit" in with_usage[-1]
    assert all(each["usage"] is None for each in with_usage[:-1])


def test_what_cannot_change_its_shape_is_a_miss_for_the_other_one() -> None:
    odd = [chunk({"parts": [1]}), chunk({"parts": [2], "content": "x"}), CHUNKS[-1]]
    replay = from_stream(*odd)
    assert replay.serves(STREAM)
    assert replay.serves(WITH_USAGE)
    assert not replay.serves(PLAIN)
    with pytest.raises(ValueError, match="serves"):
        replay.render(PLAIN, STAMP)


@pytest.mark.parametrize("number", ["1E400", "-1e999", "NaN", "-Infinity", "1" * 40])
@pytest.mark.parametrize("place", ['"id"', '"role"', '"finish_reason"'])
def test_a_number_that_could_not_be_written_again_stays_where_it_is(
    number: str, place: str
) -> None:
    def with_it(text: bytes) -> bytes:
        return text.replace(place.encode(), b'"x":' + number.encode() + b"," + place.encode(), 1)

    prepared = from_json(with_it(BODY))
    assert not prepared.serves(STREAM)
    assert prepared.render(PLAIN, None) == with_it(BODY)
    replayed = from_stream(*map(with_it, CHUNKS))
    assert not replayed.serves(PLAIN)
    assert replayed.render(STREAM, None).count(number.encode()) > 0


def test_what_is_held_ready_is_counted() -> None:
    replay = from_stream(*CHUNKS)
    assert replay.size == 0  # type: ignore[attr-defined]
    text = replay.render(STREAM, STAMP)
    once = replay.size  # type: ignore[attr-defined]
    assert len(text) * 0.5 < once < len(text) * 1.5, "the text, and the objects that hold it"
    replay.render(STREAM, STAMP)
    assert replay.size == once  # type: ignore[attr-defined]


# -- whole answers -------------------------------------------------------------------------------


def why(body: dict[str, Any] | bytes, asked: Asked = PLAIN, status: int = 200) -> Reason | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    gist = CHAT.receive(asked, status, "application/json", raw).gist
    return refusal(asked, gist, CHAT.finish_reasons, StoreRules())


def one(finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


JSON_MODE = CHAT.asks({**REQUEST, "response_format": {"type": "json_object"}})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (one(content="x"), None),
        (one("tool_calls", content=None, tool_calls=[{"id": "a"}]), None),
        (one("function_call", content=None, function_call={"name": "f"}), None),
        (one(content=None, refusal="no"), None),
        (one(content="half \ud83d"), None),
        (one("length", content="x"), Reason.LENGTH),
        (one("content_filter", content="x"), Reason.CONTENT_FILTER),
        (one(None, content="x"), Reason.INCOMPLETE),
        (one(content=""), Reason.EMPTY),
        (one(content=None, tool_calls=[]), Reason.EMPTY),
        (one(content="", reasoning_content="hm"), Reason.EMPTY),
        ({"choices": []}, Reason.INCOMPLETE),
        ({**one(content="x"), "error": {"message": "no"}}, Reason.ERROR),
        ({"error": {"message": "no"}}, Reason.ERROR),
        ({}, Reason.ERROR),
        ([], Reason.ERROR),
        (b"", Reason.ERROR),
        (b"<html>busy</html>", Reason.ERROR),
        (b'{"choices":[{"message":' + b"[" * 5000, Reason.ERROR),
    ],
)
def test_a_whole_answer_is_kept_only_if_it_is_complete(body: Any, reason: Reason | None) -> None:
    assert why(body) is reason


def test_an_error_is_passed_on_and_not_kept() -> None:
    received = CHAT.receive(PLAIN, 429, "application/json", b'{"error":{}}')
    assert (received.reply.status, received.reply.body) == (429, b'{"error":{}}')
    assert why(one(content="x"), status=500) is Reason.ERROR


def test_json_mode_on_a_whole_answer() -> None:
    assert why(one(content='{"a":1}'), JSON_MODE) is None
    assert why(one(content="sorry"), JSON_MODE) is Reason.INVALID_JSON
    assert why(one("tool_calls", content="sorry", tool_calls=[1]), JSON_MODE) is None
    assert why(one(content=None, refusal="no"), JSON_MODE) is None


def test_choices_in_any_order_are_told_by_their_index() -> None:
    asked = CHAT.asks({**REQUEST, "n": 2})
    body = {"choices": [*one("tool_calls", content="x")["choices"], *one(content="y")["choices"]]}
    body["choices"][0]["index"] = 1
    reply = CHAT.receive(asked, 200, "application/json", json.dumps(body).encode()).reply
    assert reply.finishes == ("stop", "tool_calls")


def test_tokens_are_counted_or_estimated() -> None:
    counted = CHAT.receive(PLAIN, 200, "application/json", BODY).reply
    assert (counted.prompt_tokens, counted.completion_tokens) == (7, 2)
    guessed = CHAT.receive(PLAIN, 200, "application/json", json.dumps(one(content="你好")).encode())
    assert guessed.reply.usage_estimated
    assert guessed.reply.completion_tokens >= 1
    assert isinstance(guessed.reply, Reply)
    assert guessed.reply.shape is Shape.JSON
