"""Text completions: what is asked, what counts of it, both shapes, live and from the record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.outcome import Reason
from thinkonce.protocols.chunks.completions import OpenAICompletions
from thinkonce.protocols.chunks.completions_shapes import assemble, split
from thinkonce.protocols.dialect import Asked, Recorder, Stamp
from thinkonce.protocols.sse import DONE, EventParser, frame
from thinkonce.request.storable import StoreRules, refusal

TEXT = OpenAICompletions()
HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 17, "model": "m-1"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
MARKS = b'"cache_hit":true,"kv_cache":{"status":"hit"}'
STAMP = Stamp("cmpl-new", 99)
REQUEST = {"model": "m", "prompt": "Say hello, please"}
PLAIN = TEXT.asks(REQUEST)
STREAM = TEXT.asks({**REQUEST, "stream": True})
WITH_USAGE = TEXT.asks({**REQUEST, "stream": True, "stream_options": {"include_usage": True}})


def asked(**fields: Any) -> Asked:
    return TEXT.asks({**REQUEST, **fields})


def chunk(text: str | None = "", finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish, **more}
    return json.dumps({**HEAD, "choices": [choice]}, separators=(",", ":")).encode()


SAID = [chunk("hel"), chunk("lo"), chunk("", "stop")]
USAGE_CHUNK = json.dumps({**HEAD, "choices": [], "usage": USAGE}).encode()


def framed(*data: bytes) -> bytes:
    return b"".join(map(frame, data))


def recorded(stream: bytes, request: Asked = STREAM, limit: int = 1 << 20) -> Recorder:
    recorder = TEXT.recorder(request, usage_asked=request.include_usage, max_bytes=limit)
    for start in range(0, len(stream), 53):
        recorder.feed(stream[start : start + 53])
    return recorder


def why(recorder: Recorder, request: Asked = STREAM) -> Reason | None:
    return refusal(request, recorder.gist(), TEXT.finish_reasons, StoreRules())


def whole(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": list(choices), "usage": USAGE, **more}


def choice(text: Any = "hello", finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish, **more}


def of_body(body: dict[str, Any], request: Asked = PLAIN) -> Reason | None:
    raw = json.dumps(body).encode()
    gist = TEXT.receive(request, 200, "application/json", raw).gist
    return refusal(request, gist, TEXT.finish_reasons, StoreRules())


def data_of(stream: bytes) -> list[Any]:
    data = [event.data for event in EventParser().feed(stream)]
    assert data.pop() == DONE
    return [json.loads(each or b"") for each in data]


# -- what is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ("one", 1),
        (["one"], 1),
        (["one", "two", "three"], 3),
        ([15496, 11, 995], 1),
        ([[15496, 11], [995]], 2),
        (["mixed", [995]], 2),
        ([], 1),
        (None, 1),
        ({"no": "prompt"}, 1),
    ],
)
def test_every_prompt_gets_n_choices(prompt: Any, answers: int) -> None:
    assert asked(prompt=prompt).answers == answers
    assert asked(prompt=prompt, n=3, best_of=7).answers == 3 * answers
    assert asked(prompt=prompt, n="x", best_of=7).answers == answers


def test_what_else_is_asked_is_read_and_never_fails() -> None:
    request = asked(
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        response_format={"type": "json_object"},
    )
    assert (request.stream, request.include_usage) == (True, True)
    assert (request.wants_json, request.temperature, request.stateful) == (True, 0, "")
    odd = TEXT.asks({"model": 3, "stream": "yes", "stream_options": [], "response_format": "json"})
    assert (odd.model, odd.stream, odd.include_usage, odd.wants_json) == ("", False, False, False)
    assert asked(plugins=[{"id": "web"}]).stateful == "plugins"


def test_everything_counts_but_the_shape_and_our_controls() -> None:
    body = {"model": "m", "prompt": ["a"], "echo": True, "logprobs": 2, "best_of": 4, "x": {"y": 1}}
    extra = {"stream": True, "kv_cache": {"ttl": 5}, "cache": {}, "user": "u"}
    options = {"stream_options": {"include_usage": True}}
    assert TEXT.identity({**body, **extra, **options}, ignore=frozenset({"user"})) == body
    assert TEXT.identity({**body, "stream_options": {"z": 1, "include_usage": False}}) == {
        **body,
        "stream_options": {"z": 1},
    }
    assert TEXT.identity(body, context_aware=False) == body, "a prompt has no earlier turns"
    assert TEXT.identity({"prompt": "a"}) != TEXT.identity({"prompt": ["a"]})


def test_usage_is_asked_for_without_touching_the_rest() -> None:
    raw = b'{"prompt": "a",  "stream":true}'
    assert TEXT.ask_usage(raw, json.loads(raw)) == (
        b'{"prompt": "a",  "stream":true,"stream_options":{"include_usage":true}}'
    )


# -- one shape from the other --------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=0, max_size=300)
logprobs = st.none() | st.fixed_dictionaries(
    {
        "tokens": st.lists(texts, max_size=3),
        "token_logprobs": st.lists(st.none() | st.floats(-30, 0), max_size=3),
        "top_logprobs": st.lists(st.dictionaries(texts, st.floats(-30, 0), max_size=2), max_size=2),
        "text_offset": st.lists(st.integers(0, 99), max_size=3),
    }
)
choices = st.fixed_dictionaries(
    {"text": texts, "finish_reason": st.sampled_from(["stop", "length", None])},
    optional={
        "logprobs": logprobs,
        "stop_reason": texts | st.integers(-(2**63), 2**63),
        "content_filter": texts,
    },
)


@given(st.lists(choices, min_size=1, max_size=4), st.dictionaries(texts, texts, max_size=2))
def test_an_object_keeps_its_meaning_through_chunks(
    made: list[dict[str, Any]], extra: dict[str, str]
) -> None:
    numbered = [{"index": number, **each} for number, each in enumerate(made)]
    body = {**extra, **HEAD, "choices": numbered}
    body.pop("p", None)
    body.pop("obfuscation", None)
    body.pop("usage", None)
    assert assemble(split(body) or ()) == body


@given(st.lists(texts, min_size=1, max_size=6), st.data())
def test_the_borders_of_chunks_may_fall_anywhere(pieces: list[str], data: st.DataObject) -> None:
    stream = framed(*map(chunk, pieces), chunk("", "stop"), DONE)
    recorder = TEXT.recorder(STREAM, usage_asked=False, max_bytes=1 << 20)
    place = 0
    while place < len(stream):
        size = data.draw(st.integers(1, 200))
        recorder.feed(stream[place : place + size])
        place += size
    reply = recorder.end()
    assert reply is not None
    body = json.loads(TEXT.prepare(reply).render(PLAIN, STAMP))
    assert body["choices"][0]["text"] == "".join(pieces)
    assert TEXT.prepare(reply).render(STREAM, None) == stream


def test_a_recorded_stream_answers_a_request_for_json() -> None:
    two = [
        chunk("b", index=1),
        chunk("a", new={"x": 1}),
        chunk(None, "stop"),
        chunk("c", "stop", 1),
    ]
    recorder = recorded(framed(*two, USAGE_CHUNK, DONE), asked(stream=True, n=2))
    reply = recorder.end()
    assert reply is not None
    body = json.loads(TEXT.prepare(reply).render(PLAIN, STAMP, MARKS))
    assert (body["id"], body["created"], body["usage"]) == ("cmpl-new", 99, USAGE)
    assert [each["text"] for each in body["choices"]] == ["a", "bc"]
    assert body["choices"][0]["new"] == {"x": 1}
    assert body["cache_hit"] is True


def test_logprobs_are_joined_list_by_list() -> None:
    def logs(token: str, offset: int) -> dict[str, Any]:
        return {"tokens": [token], "token_logprobs": [-0.5], "text_offset": [offset]}

    said = [chunk("a", logprobs=logs("a", 0)), chunk("b", logprobs=logs("b", 1)), SAID[-1]]
    made = assemble(said)
    assert made is not None
    assert made["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -0.5],
        "text_offset": [0, 1],
    }


def test_a_recorded_object_answers_a_request_for_a_stream() -> None:
    body = whole(choice("x" * 100), choice("b", index=1))
    reply = TEXT.receive(PLAIN, 200, "application/json", json.dumps(body).encode()).reply
    prepared = TEXT.prepare(reply)
    chunks = data_of(prepared.render(WITH_USAGE, STAMP, MARKS))
    assert {(each["id"], each["created"]) for each in chunks} == {("cmpl-new", 99)}
    assert (chunks[-1]["usage"], chunks[-1]["cache_hit"]) == (USAGE, True)
    parts = [each for one in chunks for each in one["choices"]]
    said = ["".join(p["text"] for p in parts if p["index"] == index) for index in (0, 1)]
    assert said == ["x" * 100, "b"]
    assert [p["finish_reason"] for p in parts if p["finish_reason"]] == ["stop", "stop"]
    silent = data_of(prepared.render(STREAM, STAMP, MARKS))
    assert not any("usage" in each for each in silent)
    assert "cache_hit" in silent[-1]
    assert b"".join(prepared.render_events(STREAM, STAMP, MARKS)) == prepared.render(
        STREAM, STAMP, MARKS
    )


def test_without_stamp_and_marks_the_bytes_are_the_upstreams() -> None:
    body = json.dumps(whole(choice()), indent=2).encode()
    reply = TEXT.receive(PLAIN, 200, "application/json", body).reply
    assert TEXT.prepare(reply).render(PLAIN, None) == body


@pytest.mark.parametrize(
    "contradiction",
    [
        [chunk("a", stop_reason=1), chunk("b", stop_reason=2)],
        [chunk("a", "length"), chunk("b", "stop")],
        [chunk("a", parts=[1]), chunk("b", parts=[2])],
    ],
)
def test_chunks_that_contradict_each_other_make_no_object(contradiction: list[bytes]) -> None:
    reply = recorded(framed(*contradiction, SAID[-1], DONE)).end()
    assert reply is not None
    prepared = TEXT.prepare(reply)
    assert prepared.serves(STREAM)
    assert not prepared.serves(PLAIN)


# -- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (framed(*SAID), Reason.ABORTED),
        (framed(*SAID, DONE)[:-20], Reason.ABORTED),
        (framed(*SAID[:2]), Reason.ABORTED),
        (b"", Reason.ABORTED),
        (framed(*SAID[:2], b'{"error":{"message":"busy"}}', DONE), Reason.ERROR),
        (framed(*SAID[:2], b"<html>", DONE), Reason.ERROR),
        (framed(*SAID[:2], b'{"choices":"x"}', DONE), Reason.ERROR),
    ],
)
def test_what_is_not_complete_is_no_reply(stream: bytes, reason: Reason) -> None:
    recorder = recorded(stream)
    assert recorder.end() is None
    assert why(recorder) is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SAID, None),
        ([*SAID[:2], chunk("", "length")], Reason.LENGTH),
        ([*SAID[:2], chunk("", "content_filter")], Reason.CONTENT_FILTER),
        ([*SAID[:2], chunk("", "abort")], Reason.INCOMPLETE),
        (SAID[:2], Reason.INCOMPLETE),
        ([chunk(""), chunk("", "stop")], Reason.EMPTY),
    ],
)
def test_a_complete_stream_is_kept_only_if_it_ended_well(
    data: list[bytes], reason: Reason | None
) -> None:
    recorder = recorded(framed(*data, DONE))
    assert recorder.end() is not None
    assert why(recorder) is reason


def test_every_choice_of_every_prompt_must_be_there() -> None:
    four = asked(prompt=["a", "b"], n=2)
    body = whole(*(choice(index=number) for number in range(4)))
    assert of_body(body, four) is None
    body["choices"].pop()
    assert of_body(body, four) is Reason.INCOMPLETE
    assert of_body(whole(choice(), choice(finish="length")), asked(n=2)) is Reason.LENGTH


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (whole(choice()), None),
        (whole(choice("")), Reason.EMPTY),
        (whole(choice(finish=None)), Reason.INCOMPLETE),
        (whole(choice(None)), Reason.ERROR),
        (whole(), Reason.INCOMPLETE),
        ({**whole(choice()), "error": {"message": "no"}}, Reason.ERROR),
        ({"error": {"message": "no"}}, Reason.ERROR),
        ({"choices": [{"message": {"content": "a chat answer"}}]}, Reason.ERROR),
    ],
)
def test_a_whole_answer_is_kept_only_if_it_is_complete(body: Any, reason: Reason | None) -> None:
    assert of_body(body) is reason


def test_json_mode_is_checked_on_the_whole_text() -> None:
    request = asked(stream=True, response_format={"type": "json_schema"})
    good = recorded(framed(chunk('{"a":'), chunk("1}"), SAID[-1], DONE), request)
    assert why(good, request) is None
    assert why(recorded(framed(*SAID, DONE), request), request) is Reason.INVALID_JSON
    assert of_body(whole(choice("sorry")), request) is Reason.INVALID_JSON


def test_usage_nobody_reported_is_estimated_from_prompt_and_text() -> None:
    reply = recorded(framed(*SAID, DONE)).end()
    assert reply is not None
    assert reply.usage_estimated
    assert (reply.prompt_tokens, reply.completion_tokens) == (5, 2)
    ids = recorded(framed(*SAID, DONE), asked(stream=True, prompt=[[1, 2, 3], [4], "four"])).end()
    assert ids is not None
    assert ids.prompt_tokens == 5, "four token ids and a word"
    body = {name: value for name, value in whole(choice()).items() if name != "usage"}
    guessed = TEXT.receive(PLAIN, 200, "application/json", json.dumps(body).encode()).reply
    assert (guessed.prompt_tokens, guessed.completion_tokens) == (5, 2)


def test_beyond_the_limit_nothing_is_kept_but_all_is_passed_on() -> None:
    stream = framed(*SAID[:2], chunk("x" * 3000), SAID[-1], DONE)
    recorder = TEXT.recorder(STREAM, usage_asked=False, max_bytes=2000)
    relay = TEXT.relay(STREAM, None)
    parts = [stream[start : start + 100] for start in range(0, len(stream), 100)]
    assert b"".join(relay.pass_on(recorder.feed(part)) for part in parts) == stream
    assert (recorder.events, recorder.end(), why(recorder)) == ([], None, Reason.TOO_LARGE)


# -- passing on ----------------------------------------------------------------------------------


def relayed(data: list[bytes], request: Asked) -> list[bytes]:
    recorder = TEXT.recorder(request, usage_asked=True, max_bytes=1 << 20)
    relay = TEXT.relay(request, lambda: MARKS)
    return [relay.pass_on(recorder.feed(frame(each))) for each in data]


def marked(data: bytes) -> bytes:
    return frame(data[:-1] + b"," + MARKS + b"}")


def test_the_marks_ride_on_the_last_choices_end_or_on_the_usage() -> None:
    two = [chunk("a"), chunk("", "stop"), chunk("b", index=1), chunk("", "stop", 1), DONE]
    assert relayed(two, asked(stream=True, n=2)) == [
        *map(frame, two[:3]),
        marked(two[3]),
        frame(DONE),
    ]
    data = [*SAID, USAGE_CHUNK, DONE]
    assert relayed(data, WITH_USAGE)[2:] == [frame(SAID[2]), marked(USAGE_CHUNK), frame(DONE)]


def test_errors_have_openais_shape_whole_and_in_a_stream() -> None:
    error = TEXT.error(404, "no such model", code="model_not_found", param="model")
    assert json.loads(error)["error"] == {
        "message": "no such model",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert TEXT.relay(STREAM, None).fail(error) == frame(error)
