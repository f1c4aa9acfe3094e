"""Real answers of text completions and the Responses API: recorded, replayed, reshaped, judged."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import msgspec
from recordings import needs_recordings, recordings

from thinkonce.outcome import Reason
from thinkonce.protocols.chunks.completions import OpenAICompletions
from thinkonce.protocols.dialect import Asked, Stamp
from thinkonce.protocols.reply import Gist, Reply
from thinkonce.protocols.responses.dialect import OpenAIResponses
from thinkonce.protocols.responses.shapes import split, whole_of
from thinkonce.protocols.sse import DONE, EventParser
from thinkonce.request.storable import StoreRules, refusal

pytestmark = needs_recordings

TEXT, RESPONSES = OpenAICompletions(), OpenAIResponses()
MARKS = b'"cache_hit":true,"kv_cache":{}'
STAMP = Stamp("fresh", 5)

COMPLETIONS = recordings("completions")
ALL = recordings("responses")
STREAMS = [row for row in ALL if row["stream"] and row["status"] == 200]
OBJECTS = [row for row in ALL if not row["stream"] and row["status"] == 200]


def record(row: dict[str, Any], cut: int = 97) -> tuple[Asked, Reply | None, Gist]:
    asked = RESPONSES.asks(row["request_body"])
    raw = row["response_body"].encode()
    if not row["stream"]:
        received = RESPONSES.receive(asked, row["status"], "application/json", raw)
        return asked, received.reply, received.gist
    recorder = RESPONSES.recorder(asked, usage_asked=True, max_bytes=1 << 24)
    for start in range(0, len(raw), cut):
        recorder.feed(raw[start : start + cut])
    return asked, recorder.end(), recorder.gist()


def events_of(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(each.data or b"") for each in EventParser().feed(raw)]


def runs(events: list[dict[str, Any]]) -> list[str]:
    return [kind for kind, _ in groupby(each["type"] for each in events)]


def test_there_are_recordings_of_each_kind() -> None:
    assert (len(COMPLETIONS), len(STREAMS), len(OBJECTS)) == (3, 13, 10)


def test_a_recorded_stream_is_replayed_byte_by_byte_and_keeps_its_id() -> None:
    for row in STREAMS:
        asked, reply, _ = record(row)
        assert reply is not None
        raw = row["response_body"].encode()
        prepared = RESPONSES.prepare(reply)
        assert prepared.render(asked, None) == prepared.render(asked, STAMP) == raw
        marked = prepared.render(asked, STAMP, MARKS)
        assert marked.count(MARKS) == 2
        assert marked.replace(b"," + MARKS, b"") == raw


def test_a_recorded_stream_holds_its_object() -> None:
    for row in STREAMS:
        asked, reply, _ = record(row)
        assert reply is not None
        plain = msgspec.structs.replace(asked, stream=False)
        body = json.loads(RESPONSES.prepare(reply).render(plain, None))
        assert body == events_of(row["response_body"].encode())[-1]["response"]


def test_a_stream_made_of_an_object_is_the_one_its_provider_made() -> None:
    compared = 0
    for row in STREAMS:
        asked, reply, _ = record(row)
        assert reply is not None
        if asked.stateful:
            continue
        whole = whole_of(reply.events)
        assert whole is not None
        made = [json.loads(each) for each in split(whole) or ()]
        real = events_of(row["response_body"].encode())
        assert runs(made) == runs(real)
        for event in real:
            if not event["type"].endswith(".delta"):
                assert same(like(event, made)) == same(event)
                compared += 1
    assert compared > 60


def like(event: dict[str, Any], made: list[dict[str, Any]]) -> dict[str, Any]:
    """The made event in the place of a real one."""
    place = ("type", "output_index", "content_index")
    (found,) = [e for e in made if all(e.get(name) == event.get(name) for name in place)]
    return found


def same(event: dict[str, Any]) -> dict[str, Any]:
    """Less its number, which depends on the pieces before it, and the tier, settled at the end."""
    event = {name: value for name, value in event.items() if name != "sequence_number"}
    if "response" in event:
        response = event["response"].items()
        event["response"] = {name: value for name, value in response if name != "service_tier"}
    return event


def test_a_recorded_object_keeps_its_meaning_through_both_shapes() -> None:
    for row in OBJECTS:
        asked, reply, _ = record(row)
        assert reply is not None
        raw = row["response_body"].encode()
        prepared = RESPONSES.prepare(reply)
        assert prepared.render(asked, None) == raw
        stream = msgspec.structs.replace(asked, stream=True)
        if asked.stateful:
            assert not prepared.serves(stream), "a search has events that nobody can make up"
            continue
        events = events_of(prepared.render(stream, STAMP))
        assert events[-1]["response"] == json.loads(raw)
        done = [each["item"] for each in events if each["type"] == "response.output_item.done"]
        assert done == json.loads(raw)["output"]


def test_exactly_the_answers_that_ended_well_are_kept() -> None:
    for row in ALL:
        asked, _, gist = record(row)
        reason = refusal(asked, gist, RESPONSES.finish_reasons, StoreRules())
        assert reason is (None if row["status"] == 200 else Reason.ERROR)


def test_a_stream_cut_off_anywhere_is_never_kept() -> None:
    for row in STREAMS[::4]:
        asked = RESPONSES.asks(row["request_body"])
        raw = row["response_body"].encode()
        whole = len(raw.rstrip())  # only the line ends may be missing
        for length in {*range(0, whole, 211), *range(whole - 12, whole)}:
            recorder = RESPONSES.recorder(asked, usage_asked=True, max_bytes=1 << 24)
            recorder.feed(raw[:length])
            assert recorder.end() is None
            assert refusal(asked, recorder.gist(), RESPONSES.finish_reasons, StoreRules())


def test_a_live_client_gets_every_event_and_the_marks_on_the_last() -> None:
    for row in STREAMS:
        asked = RESPONSES.asks(row["request_body"])
        recorder = RESPONSES.recorder(asked, usage_asked=True, max_bytes=1 << 24)
        relay = RESPONSES.relay(asked, lambda: MARKS)
        raw = row["response_body"].encode()
        passed = b"".join(
            relay.pass_on(recorder.feed(raw[start : start + 61]))
            for start in range(0, len(raw), 61)
        )
        assert passed.replace(b"," + MARKS, b"") == raw
        last = events_of(passed)[-1]
        assert last["cache_hit"] is last["response"]["cache_hit"] is True


def test_completions_keep_their_bytes_and_make_streams() -> None:
    reasons = []
    for row in COMPLETIONS:
        asked = TEXT.asks(row["request_body"])
        raw = row["response_body"].encode()
        received = TEXT.receive(asked, 200, "application/json", raw)
        reasons.append(refusal(asked, received.gist, TEXT.finish_reasons, StoreRules()))
        prepared = TEXT.prepare(received.reply)
        assert prepared.render(asked, None) == raw
        streamed = prepared.render(msgspec.structs.replace(asked, stream=True), None)
        data = [each.data or b"" for each in EventParser().feed(streamed)]
        assert data.pop() == DONE
        said = "".join(json.loads(each)["choices"][0]["text"] for each in data)
        assert said == json.loads(raw)["choices"][0]["text"]
    assert reasons == [None, None, Reason.LENGTH]
