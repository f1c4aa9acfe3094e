"""A live Messages stream: recorded, judged, passed on, handed out again."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Asked, Prepared, Recorder, Stamp
from thinkonce.protocols.messages.dialect import AnthropicMessages
from thinkonce.protocols.reply import Reply, Shape, decode_reply, encode_reply
from thinkonce.protocols.sse import frame
from thinkonce.request.storable import StoreRules, refusal

MESSAGES = AnthropicMessages()
MARKS = b'"cache_hit":false,"kv_cache":{"status":"miss"}'
STAMP = Stamp("msg_new", 99)
REQUEST = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello you"}]}
PLAIN = MESSAGES.asks(REQUEST)
STREAM = MESSAGES.asks({**REQUEST, "stream": True})


def event(kind: str, **members: Any) -> bytes:
    # The provider pads some of its events with spaces, and the text tries to look like structure.
    text = json.dumps({"type": kind, **members}, separators=(",", ":"), ensure_ascii=False)
    return text.encode()[:-1] + b"   }"


def delta(index: int, kind: str, **members: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **members})


USAGE = {"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300}
START = event(
    "message_start",
    message={
        "model": "m-1",
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "usage": {**USAGE, "output_tokens": 1},
    },
)
PING = b'{"type": "ping"}'
SAID = [
    START,
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    PING,
    delta(0, "text_delta", text='my "id":"msg_1" 你'),
    delta(0, "text_delta", text="好"),
    event("content_block_stop", index=0),
]
STOP = event("message_stop")
MARKED = b'{"type":"message_stop",' + MARKS + b"}"
FULL_USAGE = {**USAGE, "output_tokens": 7}


def ended(reason: str | None = "end_turn") -> bytes:
    ends = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=ends, usage={"output_tokens": 7})


WHOLE = [*SAID, ended(), STOP]


def framed(data: list[bytes]) -> bytes:
    return b"".join(frame(each, json.loads(each)["type"]) for each in data)


def without_pings(data: list[bytes]) -> list[bytes]:
    return [each for each in data if each != PING]


def recorded(stream: bytes, asked: Asked = STREAM, limit: int = 1 << 20, cut: int = 37) -> Recorder:
    recorder = MESSAGES.recorder(asked, usage_asked=True, max_bytes=limit)
    for at in range(0, len(stream), cut):
        recorder.feed(stream[at : at + cut])
    return recorder


def replied(stream: bytes) -> Reply:
    reply = recorded(stream).end()
    assert reply is not None
    return reply


def prepared(*data: bytes) -> Prepared:
    return MESSAGES.prepare(replied(framed(list(data))))


def why(recorder: Recorder, asked: Asked = STREAM) -> Reason | None:
    return refusal(asked, recorder.gist(), MESSAGES.finish_reasons, StoreRules())


# -- recording -----------------------------------------------------------------------------------


def test_a_complete_stream_is_a_reply_with_its_events_but_for_pings() -> None:
    recorder = recorded(b": hello\n\n" + framed(WHOLE))
    reply = recorder.end()
    assert why(recorder) is None
    assert reply is not None
    assert reply.shape is Shape.STREAM
    assert list(reply.events) == without_pings(WHOLE)
    assert (reply.model, reply.source_id, reply.finishes) == ("m-1", "msg_1", ("end_turn",))
    assert json.loads(reply.usage) == FULL_USAGE
    assert not reply.usage_estimated
    assert decode_reply(encode_reply(reply)) == reply


def test_tokens_of_a_reply_count_all_input() -> None:
    reply = replied(framed(WHOLE))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.tokens) == (325, 7, 332)


def test_usage_nobody_reported_is_estimated_and_says_so() -> None:
    bare = json.loads(START)
    del bare["message"]["usage"]
    end = event("message_delta", delta={"stop_reason": "end_turn"})
    stream = framed([json.dumps(bare).encode(), *SAID[1:], end, STOP])
    reply = replied(stream)
    assert reply.usage_estimated
    body = json.loads(MESSAGES.prepare(reply).render(PLAIN, None))
    assert body["usage"]["estimated"] is True
    assert body["usage"]["input_tokens"] == reply.prompt_tokens > 0
    assert body["usage"]["output_tokens"] == reply.completion_tokens > 0


@given(st.lists(st.integers(1, 1400), max_size=12), st.booleans())
def test_borders_between_pieces_may_fall_anywhere(cuts: list[int], crlf: bool) -> None:
    stream = framed(WHOLE)
    if crlf:
        stream = stream.replace(b"\n", b"\r\n")
    places = [0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]
    recorder = MESSAGES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    relay = MESSAGES.relay(STREAM, None)
    pieces = [stream[a:b] for a, b in pairwise(places)]
    passed = b"".join(relay.pass_on(recorder.feed(piece)) for piece in pieces)
    assert passed == framed(WHOLE)
    reply = recorder.end()
    assert reply is not None
    assert list(reply.events) == without_pings(WHOLE)


def test_a_stream_cut_off_anywhere_is_never_kept() -> None:
    stream = framed(WHOLE).rstrip()
    for length in range(0, len(stream), 7):
        recorder = recorded(stream[:length])
        assert recorder.end() is None
        assert why(recorder) is not None


def test_what_follows_the_end_mark_is_passed_on_and_not_kept() -> None:
    more = framed([delta(0, "text_delta", text="more"), ERROR])
    recorder = recorded(framed(WHOLE) + more)
    reply = recorder.end()
    assert reply is not None
    assert list(reply.events) == without_pings(WHOLE)
    assert why(recorder) is None
    assert relayed(framed(WHOLE) + more).endswith(more)


def test_an_event_before_the_first_one_is_replayed_there() -> None:
    early = event("brand_new", before=True)
    assert prepared(early, *WHOLE).render(STREAM, None) == framed([early, *without_pings(WHOLE)])


def test_an_end_mark_without_a_blank_line_counts() -> None:
    recorder = recorded(framed(WHOLE).rstrip(b"\n"))
    reply = recorder.end()
    assert reply is not None
    assert list(reply.events) == without_pings(WHOLE)
    assert why(recorder) is None


ERROR = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (framed(WHOLE[:-1]), Reason.ABORTED),
        (b"", Reason.ABORTED),
        (framed([*SAID, ERROR]), Reason.ERROR),
        (framed([*SAID, ERROR, ended(), STOP]), Reason.ERROR),
        (framed(SAID) + frame(b'{"type":"x"}', "error") + framed([STOP]), Reason.ERROR),
        (framed(SAID) + frame(b"<html>") + framed([STOP]), Reason.ERROR),
        (framed(SAID) + frame(b"[" * 5000) + framed([STOP]), Reason.ERROR),
        (framed(SAID) + frame(b'{"no":"type"}') + framed([STOP]), Reason.ERROR),
        (framed(SAID) + frame(b'{"type":"two words"}') + framed([STOP]), Reason.ERROR),
        (framed(SAID) + frame(b'{"type":"message_delta","delta":5}'), Reason.ERROR),
    ],
)
def test_what_is_not_complete_is_no_reply(stream: bytes, reason: Reason) -> None:
    recorder = recorded(stream)
    assert recorder.end() is None
    assert why(recorder) is reason


def block(**members: Any) -> bytes:
    return event("content_block_start", index=0, content_block=members)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([*SAID, ended("stop_sequence"), STOP], None),
        ([START, block(type="tool_use", input={}), ended("tool_use"), STOP], None),
        ([START, block(type="brand_new"), ended(), STOP], None),
        ([START, block(type="text", text="whole"), ended(), STOP], None),
        ([*SAID, ended("max_tokens"), STOP], Reason.LENGTH),
        ([*SAID, ended("model_context_window_exceeded"), STOP], Reason.LENGTH),
        ([*SAID, ended("refusal"), STOP], Reason.CONTENT_FILTER),
        ([*SAID, ended("pause_turn"), STOP], Reason.INCOMPLETE),
        ([*SAID, ended("brand_new"), STOP], Reason.INCOMPLETE),
        ([*SAID, ended(None), STOP], Reason.INCOMPLETE),
        ([*SAID, STOP], Reason.INCOMPLETE),
        ([START, ended(), STOP], Reason.EMPTY),
        ([*SAID[:2], ended(), STOP], Reason.EMPTY),
        ([START, block(type="redacted_thinking", data="x"), ended(), STOP], Reason.EMPTY),
        (
            [
                START,
                block(type="thinking", thinking=""),
                delta(0, "thinking_delta", thinking="hm"),
                ended(),
                STOP,
            ],
            Reason.EMPTY,
        ),
    ],
)
def test_an_answer_is_kept_only_if_it_ended_well(data: list[bytes], reason: Reason | None) -> None:
    recorder = recorded(framed(data))
    assert recorder.end() is not None, "it serves who waited, kept or not"
    assert why(recorder) is reason


def test_json_that_was_asked_for_must_be_json() -> None:
    form = {"format": {"type": "json_schema", "schema": {}}}
    asked = MESSAGES.asks({**REQUEST, "stream": True, "output_config": form})
    good = [delta(0, "text_delta", text=each) for each in ('{"a":', "1}")]
    assert why(recorded(framed([*SAID[:2], *good, ended(), STOP]), asked), asked) is None
    assert why(recorded(framed(WHOLE), asked), asked) is Reason.INVALID_JSON
    call = event("content_block_start", index=1, content_block={"type": "tool_use"})
    called = [*SAID, call, ended("tool_use"), STOP]
    assert why(recorded(framed(called), asked), asked) is None
    afterthought = event("content_block_start", index=2, content_block={"type": "server_result"})
    assert why(recorded(framed([*called[:-2], afterthought, *called[-2:]]), asked), asked) is None


def test_beyond_the_limit_nothing_is_kept_but_all_is_passed_on_with_marks() -> None:
    stream = framed([*SAID, delta(0, "text_delta", text="x" * 3000), ended(), STOP])
    for limit in (0, 2000):
        recorder = MESSAGES.recorder(STREAM, usage_asked=True, max_bytes=limit)
        relay = MESSAGES.relay(STREAM, lambda: MARKS)
        pieces = [stream[at : at + 100] for at in range(0, len(stream), 100)]
        passed = b"".join(relay.pass_on(recorder.feed(piece)) for piece in pieces)
        assert passed == stream.removesuffix(framed([STOP])) + framed([MARKED])
        assert (recorder.oversized, recorder.events, recorder.end()) == (True, [], None)
        assert why(recorder) is Reason.TOO_LARGE


# -- passing on ----------------------------------------------------------------------------------


def relayed(stream: bytes, cut: int = 61) -> bytes:
    recorder = MESSAGES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    relay = MESSAGES.relay(STREAM, lambda: MARKS)
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    return b"".join(relay.pass_on(recorder.feed(piece)) for piece in pieces)


def test_the_marks_ride_on_the_end_mark_and_pings_pass_live() -> None:
    assert relayed(framed(WHOLE)) == framed([*SAID, ended(), MARKED])


def test_marks_are_asked_for_when_all_is_known() -> None:
    recorder = MESSAGES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    seen: list[Any] = []

    def note() -> bytes:
        seen.append(
            refusal(STREAM, recorder.gist(), MESSAGES.finish_reasons, StoreRules(), so_far=True)
        )
        return MARKS

    relay = MESSAGES.relay(STREAM, note)
    for each in [*SAID, ended("max_tokens"), STOP]:
        assert not seen
        relay.pass_on(recorder.feed(framed([each])))
    assert seen == [Reason.LENGTH]


def test_marks_of_a_cache_upstream_are_replaced() -> None:
    theirs = event("message_stop", cache_hit=True, kv_cache={"status": "hit"})
    assert relayed(framed([*WHOLE[:-1], theirs])).count(b"cache_hit") == 1
    assert prepared(*WHOLE[:-1], theirs).render(STREAM, None).count(b"cache_hit") == 0


def test_an_end_mark_on_several_lines_is_marked_too() -> None:
    odd = b'event: message_stop\ndata: {"type":\ndata: "message_stop"}\n\n'
    last = relayed(framed(WHOLE[:-1]) + odd).split(b"\n\n")[-2]
    name, data = last.split(b"\n")
    assert name == b"event: message_stop"
    assert json.loads(data.removeprefix(b"data: "))["cache_hit"] is False


def test_a_late_joiner_gets_all_from_the_start_with_marks_of_its_own() -> None:
    recorder = MESSAGES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    recorder.feed(framed(WHOLE[:4]))
    late = MESSAGES.relay(STREAM, lambda: MARKS)
    passed = late.pass_on(recorder.events) + late.pass_on(recorder.feed(framed(WHOLE[4:])))
    assert passed == relayed(framed(WHOLE))


# -- hits ----------------------------------------------------------------------------------------


def test_a_replay_is_what_was_recorded_but_for_the_id_and_the_marks() -> None:
    replay = prepared(*WHOLE)
    assert replay.render(STREAM, None) == framed(without_pings(WHOLE))
    fresh = replay.render(STREAM, STAMP, MARKS)
    start = START.replace(b'"id":"msg_1"', b'"id":"msg_new"')
    stop = STOP.replace(b"   }", b"," + MARKS + b"   }")
    assert fresh == framed([start, *without_pings(SAID)[1:], ended(), stop])
    assert b"".join(replay.render_events(STREAM, STAMP, MARKS)) == fresh


def test_a_recorded_stream_answers_a_request_for_json() -> None:
    body = prepared(*WHOLE).render(PLAIN, STAMP, MARKS)
    assert json.loads(body) == {
        "model": "m-1",
        "id": "msg_new",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": 'my "id":"msg_1" 你好'}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": FULL_USAGE,
        "cache_hit": False,
        "kv_cache": {"status": "miss"},
    }


def test_what_cannot_change_its_shape_is_a_miss_for_the_other_one() -> None:
    odd = delta(0, "brand_new_delta", x=1)
    replay = prepared(*SAID, odd, ended(), STOP)
    assert (replay.serves(STREAM), replay.serves(PLAIN)) == (True, False)
    assert odd in replay.render(STREAM, STAMP)
    with pytest.raises(ValueError, match="serves"):
        replay.render(PLAIN, STAMP)


def test_half_a_character_in_a_delta_is_kept_as_it_came() -> None:
    halves = [
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\u%s"}}' % h
        for h in (b"d83d", b"de00")
    ]
    replay = prepared(*SAID[:2], *halves, ended(), STOP)
    assert replay.render(STREAM, None) == framed([*SAID[:2], *halves, ended(), STOP])
    assert not replay.serves(PLAIN)


def test_what_is_held_ready_is_counted() -> None:
    replay = prepared(*WHOLE)
    assert replay.size == 0
    text = replay.render(STREAM, STAMP)
    assert len(text) * 0.5 < replay.size < len(text) * 1.5


def test_a_stream_is_joined_of_few_pieces_however_many_events_it_has() -> None:
    many = [delta(0, "text_delta", text=f"word {number}") for number in range(2000)]
    replay = prepared(*SAID[:2], *many, ended(), STOP)
    text = replay.render(STREAM, STAMP, MARKS)
    assert replay.size < len(text) * 1.1, "a piece for each event would weigh more"
    assert text.count(b"event: content_block_delta\n") == 2000


# -- whole answers -------------------------------------------------------------------------------

BODY = (
    b'{\n "id": "msg_1", "type":"message","role":"assistant","model":"m-1","content":[{"type":'
    b'"text","text":"say \\"id\\":\\"msg_1\\""}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":5,"cache_read_input_tokens":300,"output_tokens":7}}\n'
)


def received(body: bytes | dict[str, Any], asked: Asked = PLAIN, status: int = 200) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return MESSAGES.receive(asked, status, "application/json", raw)


def test_a_whole_answer_is_handed_out_as_it_is_but_for_id_and_marks() -> None:
    reply = received(BODY).reply
    assert (reply.prompt_tokens, reply.completion_tokens) == (305, 7)
    replay = MESSAGES.prepare(reply)
    assert replay.render(PLAIN, None) == BODY
    fresh = replay.render(PLAIN, STAMP, MARKS)
    assert fresh == BODY.replace(b'"id": "msg_1"', b'"id": "msg_new"').replace(
        b"7}}\n", b"7}," + MARKS + b"}\n"
    )
    assert json.loads(MESSAGES.annotate(BODY, MARKS)) == json.loads(
        replay.render(PLAIN, None, MARKS)
    )


def test_a_whole_answer_becomes_a_stream_that_is_recorded_as_the_same() -> None:
    stream = MESSAGES.prepare(received(BODY).reply).render(STREAM, STAMP, MARKS)
    assert stream.count(MARKS) == 1
    again = replied(stream)
    assert (again.source_id, again.tokens) == ("msg_new", 312)
    body = json.loads(MESSAGES.prepare(again).render(PLAIN, Stamp("msg_1", 0)))
    assert body == json.loads(BODY)


def test_a_whole_answer_without_usage_gets_an_estimate_in_its_stream() -> None:
    bare = json.loads(BODY)
    del bare["usage"]
    reply = received(bare).reply
    assert reply.usage_estimated
    assert "usage" not in json.loads(MESSAGES.prepare(reply).render(PLAIN, None))
    usage = json.loads(replied(MESSAGES.prepare(reply).render(STREAM, None)).usage)
    assert usage["estimated"] is True
    assert usage["output_tokens"] == reply.completion_tokens > 0


TEXT = {"type": "text", "text": "x"}


def message(*content: Any, stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    return {"type": "message", "content": list(content), "stop_reason": stop, **more}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (message(TEXT), None),
        (message(TEXT, stop="stop_sequence"), None),
        (message({"type": "tool_use", "input": {}}, stop="tool_use"), None),
        (message({"type": "text", "text": "half \ud83d"}), None),
        (message({"type": "brand_new"}), None),
        (message(TEXT, stop="max_tokens"), Reason.LENGTH),
        (message(TEXT, stop="refusal"), Reason.CONTENT_FILTER),
        (message(TEXT, stop="pause_turn"), Reason.INCOMPLETE),
        (message(TEXT, stop=None), Reason.INCOMPLETE),
        (message(), Reason.EMPTY),
        (message({"type": "thinking", "thinking": "hm"}), Reason.EMPTY),
        (message({"type": "text", "text": ""}), Reason.EMPTY),
        ({"type": "error", "error": {"type": "api_error", "message": "x"}}, Reason.ERROR),
        ({**message(TEXT), "error": {"message": "no"}}, Reason.ERROR),
        ({**message(TEXT), "type": "error"}, Reason.ERROR),
        (message(TEXT, usage={"input_tokens": 10**30}), Reason.ERROR),
        (message(5), Reason.ERROR),
        ({}, Reason.ERROR),
        ([], Reason.ERROR),
        (b"", Reason.ERROR),
        (b"<html>busy</html>", Reason.ERROR),
        (b'{"content":' + b"[" * 5000, Reason.ERROR),
    ],
)
def test_a_whole_answer_is_kept_only_if_it_ended_well(body: Any, reason: Reason | None) -> None:
    gist = received(body).gist
    assert refusal(PLAIN, gist, MESSAGES.finish_reasons, StoreRules()) is reason


def test_json_mode_on_a_whole_answer() -> None:
    asked = msgspec.structs.replace(PLAIN, wants_json=True)
    for text, reason in (('{"a":1}', None), ("sorry", Reason.INVALID_JSON)):
        gist = received(message({"type": "text", "text": text}), asked).gist
        assert refusal(asked, gist, MESSAGES.finish_reasons, StoreRules()) is reason


def test_an_error_is_passed_on_and_not_kept() -> None:
    got = received(b'{"type":"error"}', status=529)
    assert (got.reply.status, got.reply.body) == (529, b'{"type":"error"}')
    assert refusal(PLAIN, got.gist, MESSAGES.finish_reasons, StoreRules()) is Reason.ERROR
