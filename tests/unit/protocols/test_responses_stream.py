"""A live stream of the Responses API: recorded, judged, passed on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from responses_samples import (
    REQUEST,
    USAGE,
    answer,
    call,
    delta,
    encoded,
    event,
    framed,
    item,
    message,
    named,
    reasoning,
    stream,
)

from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Asked, Recorder
from thinkonce.protocols.reply import Shape, decode_reply, encode_reply
from thinkonce.protocols.responses.dialect import OpenAIResponses
from thinkonce.protocols.sse import DONE, frame
from thinkonce.request.storable import StoreRules, refusal

RESPONSES = OpenAIResponses()
MARKS = b'"cache_hit":false,"kv_cache":{"status":"miss"}'
STREAM = RESPONSES.asks({**REQUEST, "stream": True})
PLAIN = RESPONSES.asks(REQUEST)
JSON_MODE = RESPONSES.asks({**REQUEST, "stream": True, "text": {"format": {"type": "json_object"}}})


def recorded(raw: bytes, request: Asked = STREAM, limit: int = 1 << 20) -> Recorder:
    recorder = RESPONSES.recorder(request, usage_asked=True, max_bytes=limit)
    for start in range(0, len(raw), 97):
        recorder.feed(raw[start : start + 97])
    return recorder


def why(recorder: Recorder, request: Asked = STREAM) -> Reason | None:
    return refusal(request, recorder.gist(), RESPONSES.finish_reasons, StoreRules())


# -- recording -----------------------------------------------------------------------------------


def test_a_complete_stream_is_a_reply_with_its_events_as_they_came() -> None:
    recorder = recorded(b": ping\n\n" + framed(stream()))
    reply = recorder.end()
    assert why(recorder) is None
    assert reply is not None
    assert reply.shape is Shape.STREAM
    assert list(reply.events) == stream()
    assert (reply.model, reply.source_id, reply.created) == ("m-1", "resp_1", 17)
    assert (reply.finishes, reply.prompt_tokens, reply.completion_tokens) == (("completed",), 7, 2)
    assert json.loads(reply.usage) == USAGE
    assert not reply.usage_estimated
    assert decode_reply(encode_reply(reply)) == reply


@given(st.lists(st.text(max_size=20), max_size=5), st.data())
def test_the_borders_of_chunks_may_fall_anywhere(texts: list[str], data: st.DataObject) -> None:
    events = stream(answer(message("".join(texts) or "x")), *texts)
    raw = b"".join(
        named(each).replace(b"\n", data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
        for each in events
    )
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    place = 0
    while place < len(raw):
        size = data.draw(st.integers(1, 300))
        recorder.feed(raw[place : place + size])
        place += size
    recorder.feed(b"\n")  # a last CR alone may be the half of a line end
    reply = recorder.end()
    assert reply is not None
    assert RESPONSES.prepare(reply).render(STREAM, None) == framed(events)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.ABORTED),
        (framed(stream()[:-1]), Reason.ABORTED),
        (framed(stream())[:-3], Reason.ABORTED),
        (framed(stream()[:-1]) + frame(DONE), Reason.ABORTED),
        (framed([*stream()[:3], event("error", 3, code="x", message="y")]), Reason.ERROR),
        (framed(stream()[:3]) + frame(b'{"error":{"message":"busy"}}'), Reason.ERROR),
        (framed(stream()[:3]) + frame(b'{"message":"x"}', "error"), Reason.ERROR),
        (framed(stream()[:3]) + frame(event("error", 3, message="y")), Reason.ERROR),
        (framed(stream(answer(status="failed", error={"code": "server_error"}))), Reason.ERROR),
        (framed(stream(answer(status="failed"))), Reason.ERROR),
        (framed(stream()[:2]) + frame(b"<html>"), Reason.ERROR),
        (framed(stream()[:2]) + frame(b"[" * 5000), Reason.ERROR),
        (framed(stream()[:2]) + frame(b'{"type":7}'), Reason.ERROR),
        (framed([*stream()[:-1], event("response.completed", 4)]), Reason.ERROR),
        (framed([*stream()[:-1], event("response.completed", 4, response=[1])]), Reason.ERROR),
        (framed([*stream()[:-1], event("response.completed", 4, response={})]), Reason.ERROR),
    ],
)
def test_what_is_not_complete_is_no_reply(raw: bytes, reason: Reason) -> None:
    recorder = recorded(raw)
    assert recorder.end() is None
    assert why(recorder) is reason


def test_a_stream_cut_off_anywhere_is_never_kept() -> None:
    raw = framed(stream())
    for length in range(len(raw) - 2):
        recorder = recorded(raw[:length])
        assert recorder.end() is None
        assert why(recorder) is Reason.ABORTED


@pytest.mark.parametrize("missing", [b"\n", b"\n\n"])
def test_a_last_event_without_its_blank_line_is_recorded_and_passed_on(missing: bytes) -> None:
    raw = framed(stream())
    recorder = recorded(raw.removesuffix(missing))
    (last,) = recorder.rest()
    assert recorder.rest() == []
    assert last.raw == named(stream()[-1])
    assert RESPONSES.relay(STREAM, None).pass_on(recorder.events) == raw
    reply = recorder.end()
    assert reply is not None
    assert list(reply.events) == stream()
    assert why(recorder) is None


def cut_short(reason: Any) -> dict[str, Any]:
    return answer(status="incomplete", incomplete_details=reason)


@pytest.mark.parametrize(
    ("whole", "reason"),
    [
        (cut_short({"reason": "max_output_tokens"}), Reason.LENGTH),
        (cut_short({"reason": "content_filter"}), Reason.CONTENT_FILTER),
        (cut_short({"reason": "completed"}), Reason.INCOMPLETE),
        (cut_short({"reason": ["x"]}), Reason.INCOMPLETE),
        (cut_short(None), Reason.INCOMPLETE),
    ],
)
def test_an_incomplete_answer_is_not_kept_but_still_serves_followers(
    whole: dict[str, Any], reason: Reason
) -> None:
    recorder = recorded(framed(stream(whole)))
    assert recorder.end() is not None
    assert why(recorder) is reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("cancelled", Reason.ABORTED),
        ("queued", Reason.INCOMPLETE),
        ("in_progress", Reason.INCOMPLETE),
        (None, Reason.INCOMPLETE),
        ("half \ud83d", Reason.UNENCODABLE),
    ],
)
def test_an_odd_status_inside_decides_where_the_event_says_completed(
    status: str | None, reason: Reason
) -> None:
    last = event("response.completed", 4, response=answer(status=status))
    assert why(recorded(framed([*stream()[:-1], last]))) is reason


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("failed", "completed", Reason.ERROR),
        ("failed", "incomplete", Reason.ERROR),
        ("incomplete", "completed", Reason.INCOMPLETE),
        ("incomplete", "failed", Reason.ERROR),
        ("completed", "failed", Reason.ERROR),
        ("completed", "incomplete", Reason.INCOMPLETE),
    ],
)
def test_of_an_event_and_a_status_that_disagree_the_worse_counts(
    kind: str, status: str, reason: Reason
) -> None:
    last = event(f"response.{kind}", 4, response=answer(status=status))
    recorder = recorded(framed([*stream()[:-1], last]))
    assert why(recorder) is reason
    assert (recorder.end() is None) is (reason is Reason.ERROR)


def test_what_says_nothing_is_not_kept() -> None:
    for output in ([message("")], [reasoning("hm")], [reasoning(), message("")]):
        events = [stream()[0], event("response.completed", 1, response=answer(*output))]
        assert why(recorded(framed(events))) is Reason.EMPTY
    thought = event("response.reasoning_text.delta", 1, delta="hm")
    last = event("response.completed", 2, response=answer() | {"output": []})
    assert why(recorded(framed([stream()[0], thought, last]))) is Reason.EMPTY
    for output in ([call()], [reasoning("hm"), message()], [item("of_tomorrow", "x")]):
        events = [stream()[0], event("response.completed", 1, response=answer(*output))]
        assert why(recorded(framed(events))) is None


def test_json_mode_is_checked_on_the_last_message() -> None:
    good = recorded(framed(stream(answer(message('{"a":1}')), '{"a"', ":1}")), JSON_MODE)
    assert why(good, JSON_MODE) is None
    assert why(recorded(framed(stream()), JSON_MODE), JSON_MODE) is Reason.INVALID_JSON
    refused = item("message", "m", content=[{"type": "refusal", "refusal": "no"}])
    for output in ([call()], [message("let me see"), call()], [refused]):
        events = [stream()[0], event("response.completed", 1, response=answer(*output))]
        assert why(recorded(framed(events), JSON_MODE), JSON_MODE) is None


def test_usage_nobody_reported_is_estimated() -> None:
    reply = recorded(framed(stream(answer(usage=None)))).end()
    assert reply is not None
    assert reply.usage_estimated
    assert reply.prompt_tokens == 6
    assert reply.completion_tokens > 1


def test_an_end_mark_after_the_end_is_replayed() -> None:
    raw = framed(stream()) + frame(DONE)
    reply = recorded(raw).end()
    assert reply is not None
    assert RESPONSES.prepare(reply).render(STREAM, None) == raw


def test_what_comes_after_the_end_is_not_part_of_the_answer() -> None:
    reply = recorded(framed([*stream(), delta("more")]) + frame(b"garbage")).end()
    assert reply is not None
    assert list(reply.events) == stream()


def test_events_without_a_name_stay_without_one() -> None:
    raw = b"".join(map(frame, stream()))
    reply = recorded(raw).end()
    assert reply is not None
    assert RESPONSES.prepare(reply).render(STREAM, None) == raw


def test_events_nobody_knows_are_kept() -> None:
    odd = event("response.of_tomorrow.happened", 2, news={"a": [1]})
    events = [*stream()[:2], odd, *stream()[2:]]
    reply = recorded(framed(events)).end()
    assert reply is not None
    prepared = RESPONSES.prepare(reply)
    assert prepared.render(STREAM, None) == framed(events)
    assert prepared.render(PLAIN, None) == encoded(answer()), "the last event has it all"


def test_beyond_the_limit_nothing_is_kept_but_all_is_passed_on() -> None:
    raw = framed(stream(answer(message("x" * 3000)), "x" * 3000))
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=2000)
    relay = RESPONSES.relay(STREAM, None)
    parts = [raw[start : start + 100] for start in range(0, len(raw), 100)]
    assert b"".join(relay.pass_on(recorder.feed(part)) for part in parts) == raw
    assert recorder.oversized
    assert (recorder.events, recorder.end(), why(recorder)) == ([], None, Reason.TOO_LARGE)


def test_half_a_character_in_an_event_is_kept_as_it_came() -> None:
    events = stream(answer(message("\ud83d\ude00")), "\ud83d", "\ude00")
    reply = recorded(framed(events)).end()
    assert reply is not None
    assert RESPONSES.prepare(reply).render(STREAM, None) == framed(events)


# -- passing on ----------------------------------------------------------------------------------


def relayed(events: list[bytes], marks: bytes | None = MARKS) -> list[bytes]:
    """What the client gets for each event, fed one by one."""
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    relay = RESPONSES.relay(STREAM, None if marks is None else lambda: marks)
    return [relay.pass_on(recorder.feed(named(each))) for each in events]


def test_without_marks_the_bytes_pass_untouched() -> None:
    assert relayed(stream(), None) == list(map(named, stream()))


@pytest.mark.parametrize("whole", [answer(), cut_short({"reason": "max_output_tokens"})])
def test_the_marks_ride_on_the_last_event_and_on_the_answer_in_it(whole: dict[str, Any]) -> None:
    passed = relayed(stream(whole))
    assert passed[:-1] == list(map(named, stream(whole)[:-1]))
    last = json.loads(passed[-1].split(b"data: ")[1])
    marks = {"cache_hit": False, "kv_cache": {"status": "miss"}}
    assert last["response"] == whole | marks
    assert last == json.loads(stream(whole)[-1]) | {"response": whole | marks} | marks


def test_the_marks_are_made_when_the_last_event_is_there() -> None:
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    seen: list[Reason | None] = []

    def annotate() -> bytes:
        found = recorder.gist()
        seen.append(refusal(STREAM, found, RESPONSES.finish_reasons, StoreRules(), so_far=True))
        return MARKS

    relay = RESPONSES.relay(STREAM, annotate)
    for each in stream(cut_short({"reason": "max_output_tokens"})):
        relay.pass_on(recorder.feed(named(each)))
    assert seen == [Reason.LENGTH]


def test_marks_of_a_cache_upstream_are_replaced() -> None:
    theirs = {"cache_hit": True, "kv_cache": {"status": "hit"}}
    last = event("response.completed", 4, response=answer() | theirs, **theirs)
    assert relayed([*stream()[:-1], last]) == relayed(stream())


def test_members_in_another_order_are_met_too() -> None:
    turned = encoded({"response": answer(), "x": {"response": 1}, "type": "response.completed"})
    last = json.loads(relayed([*stream()[:-1], turned])[-1].split(b"data: ")[1])
    assert last["response"]["cache_hit"] is last["cache_hit"] is False
    assert last["x"] == {"response": 1}


def test_of_two_members_of_one_name_the_last_counts() -> None:
    twice = b'{"response":{"output":[]},' + stream()[-1][1:]
    last = relayed([*stream()[:-1], twice])[-1].split(b"data: ")[1]
    assert json.loads(last)["response"]["cache_hit"] is False


def test_data_over_several_lines_is_marked_and_replayed_as_one() -> None:
    pretty = json.dumps(json.loads(stream()[-1]), indent=1).encode()
    raw = framed(stream()[:-1]) + (
        b"event: response.completed\ndata: " + pretty.replace(b"\n", b"\ndata: ") + b"\n\n"
    )
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    relay = RESPONSES.relay(STREAM, lambda: MARKS)
    passed = relay.pass_on(recorder.feed(raw))
    assert json.loads(passed.rsplit(b"data: ", 1)[1])["response"]["cache_hit"] is False
    reply = recorder.end()
    assert reply is not None
    assert json.loads(RESPONSES.prepare(reply).render(PLAIN, None)) == answer()


def test_a_late_joiner_gets_all_from_the_start_with_marks_of_its_own() -> None:
    recorder = RESPONSES.recorder(STREAM, usage_asked=True, max_bytes=1 << 20)
    for each in stream()[:3]:
        recorder.feed(named(each))
    late = RESPONSES.relay(STREAM, lambda: MARKS)
    passed = late.pass_on(recorder.events)
    for each in stream()[3:]:
        passed += late.pass_on(recorder.feed(named(each)))
    assert passed == b"".join(relayed(stream()))
