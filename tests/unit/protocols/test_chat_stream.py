"""A live stream: recorded, judged, passed on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from thinkonce.errors import CorruptEntry
from thinkonce.outcome import Reason
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.dialect import Asked, Recorder
from thinkonce.protocols.reply import Shape, decode_reply, encode_reply
from thinkonce.protocols.sse import DONE, frame
from thinkonce.request.storable import StoreRules, refusal

CHAT = OpenAIChat()
MARKS = b'"cache_hit":false,"kv_cache":{"status":"miss"}'
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m-1"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "say hello to me please"}]}


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return json.dumps({**HEAD, "choices": [choice], **more}, separators=(",", ":")).encode()


def usage_chunk(usage: Any = USAGE) -> bytes:
    return json.dumps({**HEAD, "choices": [], "usage": usage}, separators=(",", ":")).encode()


SAID = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "hel"}),
    chunk({"content": "lo"}),
]
STREAM = [*SAID, chunk(finish="stop"), DONE]


def framed(data: list[bytes]) -> bytes:
    return b"".join(map(frame, data))


def asked(**fields: Any) -> Asked:
    return CHAT.asks({**REQUEST, "stream": True, **fields})


def recorded(stream: bytes, request: Asked | None = None, limit: int = 1 << 20) -> Recorder:
    recorder = CHAT.recorder(request or asked(), usage_asked=False, max_bytes=limit)
    for start in range(0, len(stream), 100):
        recorder.feed(stream[start : start + 100])
    return recorder


def why(recorder: Recorder, request: Asked | None = None) -> Reason | None:
    return refusal(request or asked(), recorder.gist(), CHAT.finish_reasons, StoreRules())


def test_a_complete_stream_is_a_reply_with_its_chunks_as_they_came() -> None:
    recorder = recorded(b": ping\n\n" + framed([*STREAM[:-1], usage_chunk(), DONE]))
    reply = recorder.end()
    assert why(recorder) is None
    assert reply is not None
    assert reply.shape is Shape.STREAM
    assert list(reply.events) == [*STREAM[:-1], usage_chunk()]
    assert (reply.model, reply.source_id, reply.created) == ("m-1", "chatcmpl-1", 17)
    assert (reply.finishes, reply.prompt_tokens, reply.completion_tokens) == (("stop",), 7, 2)
    assert json.loads(reply.usage) == USAGE
    assert reply.tokens == 9
    assert not reply.usage_estimated


def test_a_reply_survives_its_encoding() -> None:
    reply = recorded(framed(STREAM)).end()
    assert reply is not None
    assert decode_reply(encode_reply(reply)) == reply
    with pytest.raises(CorruptEntry, match="reply"):
        decode_reply(encode_reply(reply)[:-1])


def test_usage_nobody_reported_is_estimated_and_says_so() -> None:
    reply = recorded(framed(STREAM)).end()
    assert reply is not None
    assert reply.usage_estimated
    usage = json.loads(reply.usage)
    assert usage["estimated"] is True
    assert usage["prompt_tokens"] == reply.prompt_tokens > 3
    assert usage["completion_tokens"] == reply.completion_tokens > 1
    assert usage["total_tokens"] == reply.tokens


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (framed(STREAM[:-1]), Reason.ABORTED),
        (framed(STREAM)[:-20], Reason.ABORTED),
        (framed(STREAM[:2]), Reason.ABORTED),
        (b"", Reason.ABORTED),
        (framed([*SAID, b'{"error":{"message":"overloaded"}}', DONE]), Reason.ERROR),
        (framed(SAID) + frame(b'{"message":"x"}', "error") + frame(DONE), Reason.ERROR),
        (framed([*SAID, b"<html>", DONE]), Reason.ERROR),
        (framed([*SAID, b"[" * 5000, DONE]), Reason.ERROR),
        (framed([*SAID, b'{"choices":[{"index":"x"}]}', DONE]), Reason.ERROR),
    ],
)
def test_what_is_not_complete_is_no_reply(stream: bytes, reason: Reason) -> None:
    recorder = recorded(stream)
    assert recorder.end() is None
    assert why(recorder) is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([*SAID, chunk(finish="length"), DONE], Reason.LENGTH),
        ([*SAID, chunk(finish="content_filter"), DONE], Reason.CONTENT_FILTER),
        ([*SAID, chunk(finish="insufficient_system_resource"), DONE], Reason.INCOMPLETE),
        ([*SAID, DONE], Reason.INCOMPLETE),
        ([chunk({"role": "assistant", "content": ""}), chunk(finish="stop"), DONE], Reason.EMPTY),
        ([chunk({"reasoning_content": "hm"}), chunk(finish="stop"), DONE], Reason.EMPTY),
        ([DONE], Reason.INCOMPLETE),
    ],
)
def test_a_complete_answer_that_must_not_be_kept_still_serves_followers(
    data: list[bytes], reason: Reason
) -> None:
    recorder = recorded(framed(data))
    assert recorder.end() is not None
    assert why(recorder) is reason


def test_every_choice_must_end_well() -> None:
    two = asked(n=2)
    both = [chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish="stop")]
    assert why(recorded(framed([*both, chunk(finish="stop", index=1), DONE]), two), two) is None
    cut = recorded(framed([*both, chunk(finish="length", index=1), DONE]), two)
    assert why(cut, two) is Reason.LENGTH
    assert why(recorded(framed([*both, DONE]), two), two) is Reason.INCOMPLETE


def test_json_mode_is_checked_on_the_whole_text() -> None:
    request = asked(response_format={"type": "json_object"})
    good = [chunk({"content": '{"a":'}), chunk({"content": "1}"}), chunk(finish="stop"), DONE]
    assert why(recorded(framed(good), request), request) is None
    assert why(recorded(framed(STREAM), request), request) is Reason.INVALID_JSON
    call = chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]})
    with_call = [chunk({"content": "let me see"}), call, chunk(finish="tool_calls"), DONE]
    assert why(recorded(framed(with_call), request), request) is None


def test_an_end_mark_without_a_blank_line_counts() -> None:
    recorder = recorded(framed(STREAM).rstrip(b"\n"))
    assert recorder.end() is not None
    assert why(recorder) is None


def test_beyond_the_limit_nothing_is_kept_but_all_is_passed_on() -> None:
    stream = framed([*SAID, chunk({"content": "x" * 3000}), *STREAM[3:]])
    request = asked()
    recorder = CHAT.recorder(request, usage_asked=False, max_bytes=2000)
    relay = CHAT.relay(request, None)
    parts = [stream[start : start + 100] for start in range(0, len(stream), 100)]
    passed = b"".join(relay.pass_on(recorder.feed(part)) for part in parts)
    assert passed == stream
    assert recorder.oversized
    assert recorder.events == []
    assert recorder.end() is None
    assert why(recorder) is Reason.TOO_LARGE


def test_half_a_character_in_a_chunk_is_kept_as_it_came() -> None:
    halves = [chunk({"content": "\ud83d"}), chunk({"content": "\ude00"})]
    reply = recorded(framed([*SAID, *halves, *STREAM[3:]])).end()
    assert reply is not None
    prepared = CHAT.prepare(reply)
    assert prepared.render(asked(), None) == framed([*SAID, *halves, *STREAM[3:]])
    assert not prepared.serves(CHAT.asks(REQUEST)), "the two halves were never one text"


# -- passing on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [b"\n", b"\n\n"])
def test_a_last_event_without_its_blank_line_is_told_to_all_or_to_nobody(missing: bytes) -> None:
    stream = b"".join(map(frame, STREAM))
    recorder = CHAT.recorder(asked(), usage_asked=False, max_bytes=1 << 20)
    events = recorder.feed(stream.removesuffix(missing))
    events += recorder.rest()
    assert CHAT.relay(asked(), None).pass_on(events) == stream
    assert recorder.end() is not None
    for cut in (b"data: [DON", b'data: {"choices":[', b": note", b"event: x\n"):
        recorder = CHAT.recorder(asked(), usage_asked=False, max_bytes=1 << 20)
        recorder.feed(stream.removesuffix(frame(DONE)) + cut)
        assert recorder.rest() == []
        assert recorder.end() is None


def relayed(
    data: list[bytes], request: Asked, *, strip: bool = False, marks: bytes | None = MARKS
) -> list[bytes]:
    """What the client gets for each event, fed one by one."""
    recorder = CHAT.recorder(request, usage_asked=True, max_bytes=1 << 20)
    annotate = None if marks is None else lambda: marks
    relay = CHAT.relay(request, annotate, strip_usage=strip)
    return [relay.pass_on(recorder.feed(frame(each))) for each in data]


def marked(data: bytes) -> bytes:
    return frame(data[:-1] + b"," + MARKS + b"}")


def test_without_marks_the_bytes_pass_untouched() -> None:
    data = [*STREAM[:-1], usage_chunk(), DONE]
    assert relayed(data, asked(), marks=None) == list(map(frame, data))


def test_the_marks_ride_on_the_chunk_that_ends_the_last_choice() -> None:
    assert relayed(STREAM, asked()) == [*map(frame, SAID), marked(STREAM[3]), frame(DONE)]
    two = [chunk({"content": "a"}), chunk(finish="stop"), chunk({"content": "b"}, index=1)]
    two += [chunk(finish="stop", index=1), DONE]
    assert relayed(two, asked(n=2)) == [*map(frame, two[:3]), marked(two[3]), frame(DONE)]


def test_or_on_the_usage_chunk_if_the_client_asked_for_one() -> None:
    request = asked(stream_options={"include_usage": True})
    data = [*STREAM[:-1], usage_chunk(), DONE]
    assert relayed(data, request)[3:] == [frame(STREAM[3]), marked(usage_chunk()), frame(DONE)]


def test_usage_on_the_last_chunk_itself_will_do() -> None:
    request = asked(stream_options={"include_usage": True})
    data = [*SAID, chunk(finish="stop", usage=USAGE), DONE]
    assert relayed(data, request)[3:] == [marked(data[3]), frame(DONE)]


def test_no_chunk_is_held_back_for_another() -> None:
    request = asked(stream_options={"include_usage": True})
    for each, passed in zip(STREAM, relayed(STREAM, request), strict=True):
        assert frame(each) in passed


def test_an_upstream_that_ignores_include_usage_is_helped_out() -> None:
    request = asked(stream_options={"include_usage": True})
    last = relayed(STREAM, request)[-1]
    assert last.endswith(frame(DONE))
    extra = json.loads(last.removesuffix(frame(DONE)).removeprefix(b"data: "))
    assert (extra["choices"], extra["usage"], extra["cache_hit"]) == ([], None, False)
    assert (extra["id"], extra["model"]) == ("chatcmpl-1", "m-1")


def test_usage_asked_on_behalf_of_the_client_is_taken_out_again() -> None:
    data = [each[:-1] + b',"usage":null}' for each in STREAM[:-1]] + [usage_chunk(), DONE]
    passed = relayed(data, asked(), strip=True, marks=None)
    assert passed == [*map(frame, STREAM[:-1]), b"", frame(DONE)]
    with_choice = [*SAID, chunk(finish="stop", usage=USAGE), DONE]
    assert relayed(with_choice, asked(), strip=True, marks=None) == list(map(frame, STREAM))
    wanted = asked(stream_options={"include_usage": True})
    assert relayed(data, wanted, strip=True, marks=None) == list(map(frame, data))


def test_the_marks_are_made_when_the_last_chunk_is_there() -> None:
    request = asked()
    recorder = CHAT.recorder(request, usage_asked=False, max_bytes=1 << 20)
    seen: list[Reason | None] = []

    def annotate() -> bytes:
        rules = StoreRules()
        seen.append(refusal(request, recorder.gist(), CHAT.finish_reasons, rules, so_far=True))
        return MARKS

    relay = CHAT.relay(request, annotate)
    for each in [*SAID, chunk(finish="length"), DONE]:
        relay.pass_on(recorder.feed(frame(each)))
    assert seen == [Reason.LENGTH]


def test_marks_of_a_cache_upstream_are_replaced() -> None:
    theirs = chunk(finish="stop", cache_hit=True, kv_cache={"status": "hit"})
    assert relayed([*SAID, theirs, DONE], asked())[3] == marked(chunk(finish="stop"))


def test_comments_and_named_events_pass_with_all_their_lines() -> None:
    request = asked()
    recorder = CHAT.recorder(request, usage_asked=False, max_bytes=1 << 20)
    relay = CHAT.relay(request, lambda: MARKS)
    odd = b": keep-alive\n\nid: 5\ndata: " + chunk(finish="stop") + b"\n\n"
    passed = relay.pass_on(recorder.feed(odd))
    assert passed.startswith(b": keep-alive\n\nid: 5\ndata: {")
    assert passed.count(b"cache_hit") == 1


def test_a_late_joiner_gets_all_from_the_start_with_marks_of_its_own() -> None:
    request = asked()
    recorder = CHAT.recorder(request, usage_asked=False, max_bytes=1 << 20)
    for each in STREAM[:3]:
        recorder.feed(frame(each))
    late = CHAT.relay(request, lambda: MARKS)
    passed = late.pass_on(recorder.events)
    for each in STREAM[3:]:
        passed += late.pass_on(recorder.feed(frame(each)))
    assert passed == framed(SAID) + marked(STREAM[3]) + frame(DONE)
