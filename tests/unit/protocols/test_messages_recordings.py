"""Real answers of Anthropic's: recorded, replayed, reshaped, judged."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from anthropic.lib.streaming._messages import accumulate_event
from recordings import needs_recordings, recordings

from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Asked, Stamp
from thinkonce.protocols.messages.dialect import AnthropicMessages
from thinkonce.protocols.reply import Gist, Reply
from thinkonce.protocols.sse import EventParser
from thinkonce.request.canonical import parse_body
from thinkonce.request.key import request_parts
from thinkonce.request.storable import StoreRules, refusal

pytestmark = needs_recordings

MESSAGES = AnthropicMessages()
MARKS = b'"cache_hit":true,"kv_cache":{}'

ALL = recordings("messages")
STREAMS = [row for row in ALL if row["stream"] and row["status"] == 200]
OBJECTS = [row for row in ALL if not row["stream"] and row["status"] == 200]


def record(row: dict[str, Any]) -> tuple[Asked, Reply | None, Gist]:
    asked = MESSAGES.asks(row["request_body"])
    raw = body_of(row)
    if not row["stream"]:
        received = MESSAGES.receive(asked, row["status"], "application/json", raw)
        return asked, received.reply, received.gist
    recorder = MESSAGES.recorder(asked, usage_asked=True, max_bytes=1 << 24)
    for start in range(0, len(raw), 97):
        recorder.feed(raw[start : start + 97])
    reply = recorder.end()
    return asked, reply, recorder.gist()


def body_of(row: dict[str, Any]) -> bytes:
    return str(row["response_body"]).lstrip().encode()


def replied(row: dict[str, Any]) -> Reply:
    reply = record(row)[1]
    assert reply is not None
    return reply


def in_shape(asked: Asked, *, stream: bool) -> Asked:
    return msgspec.structs.replace(asked, stream=stream)


def unpinged(stream: bytes) -> list[bytes]:
    return [event.raw for event in EventParser().feed(stream) if b'"ping"' not in event.raw]


def test_there_are_streams_and_objects_to_learn_from() -> None:
    assert (len(STREAMS), len(OBJECTS)) == (12, 14)


def test_a_recorded_stream_is_replayed_byte_for_byte_but_for_pings() -> None:
    for row in STREAMS:
        asked = MESSAGES.asks(row["request_body"])
        prepared = MESSAGES.prepare(replied(row))
        assert unpinged(prepared.render(asked, None)) == unpinged(body_of(row))
        fresh = prepared.render(asked, Stamp("msg_new", 5), MARKS)
        assert fresh.count(MARKS) == 1
        assert json.loads(unpinged(fresh)[0].split(b"data: ")[1])["message"]["id"] == "msg_new"
        assert unpinged(fresh)[1:-1] == unpinged(body_of(row))[1:-1]


def test_a_recorded_stream_amounts_to_what_anthropics_client_makes_of_it() -> None:
    for row in STREAMS:
        asked = in_shape(MESSAGES.asks(row["request_body"]), stream=False)
        body = json.loads(MESSAGES.prepare(replied(row)).render(asked, None))
        snapshot, buffers = None, {}
        for raw in unpinged(body_of(row)):
            snapshot = accumulate_event(
                event=json.loads(raw.split(b"data: ")[1]),
                current_snapshot=snapshot,
                json_bufs=buffers,
            )
        assert snapshot is not None
        assert known(body) == known(snapshot.model_dump(exclude_unset=True, warnings=False))


def known(body: dict[str, Any]) -> dict[str, Any]:
    """`body` less nulls: whether one was sent or not, the client reads the same."""
    return {name: value for name, value in body.items() if value is not None}


def test_a_recorded_object_keeps_its_bytes_and_its_meaning_through_both_shapes() -> None:
    for row in OBJECTS:
        asked = MESSAGES.asks(row["request_body"])
        prepared = MESSAGES.prepare(replied(row))
        assert prepared.render(in_shape(asked, stream=False), None) == body_of(row)
        stream = prepared.render(in_shape(asked, stream=True), None)
        recorder = MESSAGES.recorder(asked, usage_asked=True, max_bytes=1 << 24)
        recorder.feed(stream)
        again = recorder.end()
        assert again is not None
        back = MESSAGES.prepare(again).render(in_shape(asked, stream=False), None)
        assert json.loads(back) == json.loads(body_of(row))


def test_exactly_the_answers_that_ended_well_are_kept() -> None:
    for row in ALL:
        asked, reply, gist = record(row)
        reason = refusal(asked, gist, MESSAGES.finish_reasons, StoreRules())
        if row["status"] != 200:
            assert reason is Reason.ERROR
        elif "truncated_by_length" in row["tags"]:
            assert reason is Reason.LENGTH
        else:
            assert reason is None
            assert reply is not None
            assert reply.prompt_tokens > 0 < reply.completion_tokens


def test_what_ran_at_the_provider_is_seen_in_the_request() -> None:
    for row in ALL:
        ran = any(name in row["response_body"] for name in ("code_execution", "web_search_tool"))
        assert bool(MESSAGES.asks(row["request_body"]).stateful) == ran


def test_a_live_client_gets_every_event_and_the_marks_once() -> None:
    for row in STREAMS:
        asked = MESSAGES.asks(row["request_body"])
        recorder = MESSAGES.recorder(asked, usage_asked=True, max_bytes=1 << 24)
        relay = MESSAGES.relay(asked, lambda: MARKS)
        raw = body_of(row)
        pieces = [raw[start : start + 61] for start in range(0, len(raw), 61)]
        ours = EventParser().feed(b"".join(relay.pass_on(recorder.feed(each)) for each in pieces))
        theirs = EventParser().feed(raw)
        changed = [
            each.data for each, other in zip(ours, theirs, strict=True) if each.raw != other.raw
        ]
        assert len(changed) == 1
        assert MARKS in (changed[0] or b"")


def test_every_recorded_request_has_a_key_and_different_requests_different_ones() -> None:
    seen: dict[bytes, Any] = {}
    for row in ALL:
        parsed = parse_body(json.dumps(row["request_body"]).encode())
        assert parsed.unkeyable == ""
        identity = MESSAGES.identity(parsed.body)
        key = request_parts(("messages", "p", "t", ""), ("", "", False), identity)
        assert seen.setdefault(key, identity) == identity
    assert len(seen) > 20
