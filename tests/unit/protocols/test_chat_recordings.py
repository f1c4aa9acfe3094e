"""Real answers of real providers: recorded, replayed, reshaped, judged."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from recordings import chat_recordings, needs_recordings

from thinkonce.outcome import Reason
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.chunks.chat_shapes import assemble, split
from thinkonce.protocols.dialect import Asked, Stamp
from thinkonce.protocols.reply import Gist, Reply
from thinkonce.protocols.sse import DONE, EventParser
from thinkonce.request.canonical import parse_body
from thinkonce.request.key import request_parts
from thinkonce.request.storable import StoreRules, refusal

pytestmark = needs_recordings

CHAT = OpenAIChat()
GOOD_ENDS = {"stop", "tool_calls", "function_call"}
MARKS = b'"cache_hit":true,"kv_cache":{}'

ALL = chat_recordings()
STREAMS = [row for row in ALL if row["stream"] and row["status"] == 200]
OBJECTS = [row for row in ALL if not row["stream"] and row["status"] == 200]


def record(row: dict[str, Any], cut: int = 97) -> tuple[Asked, Reply | None, Gist]:
    asked = CHAT.asks(row["request_body"])
    raw = row["response_body"].encode()
    if not row["stream"]:
        received = CHAT.receive(asked, row["status"], "application/json", raw)
        return asked, received.reply, received.gist
    recorder = CHAT.recorder(asked, usage_asked=asked.include_usage, max_bytes=1 << 24)
    for start in range(0, len(raw), cut):
        recorder.feed(raw[start : start + cut])
    reply = recorder.end()
    return asked, reply, recorder.gist()


def data_of(stream: bytes) -> list[bytes]:
    parser = EventParser()
    events = parser.feed(stream) + parser.finish()
    return [event.data for event in events if event.data is not None]


def without_call_index(body: Any) -> Any:
    """Some providers number tool calls outside streams too; there their place says it."""
    for choice in body["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)
    return body


def test_a_recorded_stream_is_replayed_event_by_event() -> None:
    for row in STREAMS:
        asked, reply, _ = record(row)
        assert reply is not None
        prepared = CHAT.prepare(reply)
        assert data_of(prepared.render(asked, None)) == data_of(row["response_body"].encode())
        fresh = data_of(prepared.render(asked, Stamp("chatcmpl-new", 5), MARKS))
        assert len(fresh) == len(reply.events) + 1
        assert {json.loads(each)["id"] for each in fresh if each != DONE} == {"chatcmpl-new"}
        assert sum(MARKS in each for each in fresh) == 1


def test_a_recorded_stream_keeps_its_meaning_through_both_shapes() -> None:
    for row in STREAMS:
        _, reply, _ = record(row)
        assert reply is not None
        whole = assemble(reply.events)
        assert whole is not None
        again = assemble(split(whole) or ())
        whole.pop("usage", None)
        assert again == whole


def test_a_recorded_object_keeps_its_meaning_through_both_shapes() -> None:
    for row in OBJECTS:
        asked, reply, _ = record(row)
        assert reply is not None
        whole = json.loads(row["response_body"])
        usage = whole.pop("usage")
        assert assemble(split(whole) or ()) == without_call_index(whole)
        prepared = CHAT.prepare(reply)
        assert prepared.render(asked, None) == row["response_body"].encode()
        stream = msgspec.structs.replace(asked, stream=True, include_usage=True)
        chunks = [json.loads(each) for each in data_of(prepared.render(stream, None))[:-1]]
        assert chunks[-1]["usage"] == usage


def test_usage_is_there_exactly_for_who_asks() -> None:
    for row in STREAMS:
        asked, reply, _ = record(row)
        assert reply is not None
        prepared = CHAT.prepare(reply)
        stream = msgspec.structs.replace(asked, stream=True)
        for wanted in (True, False):
            request = msgspec.structs.replace(stream, include_usage=wanted)
            chunks = [json.loads(each) for each in data_of(prepared.render(request, None))[:-1]]
            told = [each["usage"] for each in chunks if each.get("usage")]
            natural = bool(reply.usage) and not reply.usage_estimated and not asked.include_usage
            assert bool(told) == (wanted or natural)
        body = json.loads(prepared.render(msgspec.structs.replace(asked, stream=False), None))
        assert body["usage"]["completion_tokens"] == reply.completion_tokens > 0


def test_exactly_the_answers_that_ended_well_are_kept() -> None:
    for row in ALL:
        asked, _, gist = record(row)
        reason = refusal(asked, gist, CHAT.finish_reasons, StoreRules())
        if row["status"] != 200:
            assert reason is Reason.ERROR
        elif "truncated_by_length" in row["tags"]:
            assert reason is Reason.LENGTH
        else:
            assert reason is None
            assert set(gist.finishes) <= GOOD_ENDS


def test_a_stream_cut_off_anywhere_is_never_kept() -> None:
    for row in STREAMS[::4]:
        asked = CHAT.asks(row["request_body"])
        raw = row["response_body"].encode().rstrip()
        for length in {*range(0, len(raw), 211), *range(len(raw) - 12, len(raw))}:
            recorder = CHAT.recorder(asked, usage_asked=False, max_bytes=1 << 24)
            recorder.feed(raw[:length])
            assert recorder.end() is None
            assert refusal(asked, recorder.gist(), CHAT.finish_reasons, StoreRules()) is not None


def test_a_live_client_gets_every_event_and_the_marks_once() -> None:
    for row in STREAMS:
        asked = CHAT.asks(row["request_body"])
        recorder = CHAT.recorder(asked, usage_asked=asked.include_usage, max_bytes=1 << 24)
        relay = CHAT.relay(asked, lambda: MARKS)
        raw = row["response_body"].encode()
        passed = b"".join(
            relay.pass_on(recorder.feed(raw[start : start + 61]))
            for start in range(0, len(raw), 61)
        )
        ours, theirs = data_of(passed), data_of(raw)
        assert len(ours) == len(theirs)
        changed = [each for each, other in zip(ours, theirs, strict=True) if each != other]
        assert len(changed) == 1
        assert MARKS in changed[0]


def test_every_recorded_request_has_a_key_and_different_requests_different_ones() -> None:
    seen: dict[bytes, Any] = {}
    for row in ALL:
        parsed = parse_body(json.dumps(row["request_body"]).encode())
        assert parsed.unkeyable == ""
        identity = CHAT.identity(parsed.body)
        key = request_parts(("chat/completions", "p", "t", ""), ("", "", False), identity)
        assert seen.setdefault(key, identity) == identity
    assert len(seen) > 30
