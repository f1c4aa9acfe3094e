"""The Responses API: what is asked, what counts of it, what must not be cached."""

from __future__ import annotations

import json
from typing import Any

import pytest
from responses_samples import REQUEST

from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.responses.dialect import OpenAIResponses
from thinkonce.protocols.sse import Event, EventParser

RESPONSES = OpenAIResponses()
DATA_URL = "data:image/png;base64,iVBORw0KGgo="


def asked(**fields: Any) -> Asked:
    return RESPONSES.asks({**REQUEST, **fields})


def test_the_request_is_read_and_never_fails() -> None:
    request = asked(stream=True, temperature=0.5, text={"format": {"type": "json_schema"}})
    assert (request.model, request.stream, request.answers) == ("m", True, 1)
    assert (request.wants_json, request.temperature) == (True, 0.5)
    assert request.include_usage, "it always comes"
    odd = RESPONSES.asks({"model": 3, "stream": 1, "text": "x", "tools": {}, "input": {"a": 1}})
    assert (odd.model, odd.stream, odd.wants_json, odd.stateful) == ("", False, False, "")
    assert not asked(text={"format": {"type": "text"}}).wants_json


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"background": True}, "background"),
        ({"background": False}, ""),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"conversation": None}, ""),
        ({"previous_response_id": "resp_0"}, ""),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"prompt": {"id": "pmpt_1", "version": "2"}}, ""),
        ({"prompt": "pmpt_1"}, "prompt"),
        ({"tools": {"type": "web_search"}}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        ({"tools": [{"name": "f", "parameters": {}}]}, "tools"),
        ({"model": "some/model:online"}, "model"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "custom"}]}, ""),
        ({"tools": [{"type": "local_shell"}, {"type": "apply_patch"}]}, ""),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"store": True}, ""),
    ],
)
def test_state_elsewhere_is_named(fields: dict[str, Any], why: str) -> None:
    assert asked(**fields).stateful == why


@pytest.mark.parametrize(
    "kind",
    [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "computer",
        "mcp",
        "image_generation",
        "shell",
        "of_tomorrow",
    ],
)
def test_tools_that_the_provider_runs_are_state(kind: str) -> None:
    assert asked(tools=[{"type": "function", "name": "f"}, {"type": kind}]).stateful == "tools"


@pytest.mark.parametrize(
    ("part", "remote"),
    [
        ({"type": "input_image", "image_url": "https://example.com/a.png"}, True),
        ({"type": "input_image", "image_url": DATA_URL}, False),
        ({"type": "input_image", "file_id": "file-1"}, False),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, True),
        ({"type": "input_file", "filename": "a.pdf", "file_data": DATA_URL}, False),
        ({"type": "input_file", "file_data": "https://example.com/a.pdf"}, True),
        ({"type": "input_text", "text": "https://example.com"}, False),
    ],
)
def test_a_url_stands_for_a_file_that_may_change(part: dict[str, Any], remote: bool) -> None:
    assert asked(input=[{"role": "user", "content": [part]}]).remote_media is remote
    result = {"type": "function_call_output", "call_id": "c", "output": [part]}
    assert asked(input=[result]).remote_media is remote


def test_everything_counts_but_the_shape_and_our_controls() -> None:
    body = {
        **REQUEST,
        "instructions": "be brief",
        "previous_response_id": "resp_0",
        "reasoning": {"effort": "low"},
        "store": False,
        "unknown": [1],
    }
    extra = {"stream": True, "kv_cache": {"ttl": 5}, "cache": {}, "metadata": {"a": "b"}}
    assert RESPONSES.identity({**body, **extra}, ignore=frozenset({"metadata"})) == body
    for name in body:
        assert RESPONSES.identity({**body, name: "other"}) != RESPONSES.identity(body)


def test_a_file_counts_by_its_bytes() -> None:
    def with_image(url: str) -> Any:
        part = {"type": "input_image", "image_url": url}
        return RESPONSES.identity({"model": "m", "input": [{"role": "user", "content": [part]}]})

    assert with_image(DATA_URL) != with_image(DATA_URL.replace("iV", "iW"))


def test_without_context_the_last_question_and_what_follows_it_count() -> None:
    told = {"role": "developer", "content": "be brief"}
    earlier = [{"role": "user", "content": "1"}, {"type": "message", "role": "assistant"}]
    asked_now = [
        {"role": "user", "content": "2"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]
    body = {"model": "m", "previous_response_id": "resp_0"}
    free = RESPONSES.identity(
        {**body, "input": [told, *earlier, {"type": "reasoning"}, *asked_now]},
        context_aware=False,
    )
    assert free == {**body, "input": [told, *asked_now]}
    assert RESPONSES.identity(REQUEST, context_aware=False) == REQUEST, "a text is one question"


def test_nothing_is_added_for_usage() -> None:
    raw = b'{"input":"x","stream":true}'
    assert RESPONSES.ask_usage(raw, json.loads(raw)) == raw


def test_errors_have_openais_shape_whole_and_in_a_stream() -> None:
    error = RESPONSES.error(429, "slow down", code="rate", param="model")
    told = json.loads(error)["error"]
    assert told == {
        "message": "slow down",
        "type": "rate_limit_error",
        "param": "model",
        "code": "rate",
    }
    relay = RESPONSES.relay(asked(), None)
    relay.pass_on([Event(b"", b'{"type":"response.created","sequence_number":6}'), Event(b":\n\n")])
    (sent,) = EventParser().feed(relay.fail(error))
    assert sent.name == "error"
    assert json.loads(sent.data or b"") == {
        "type": "error",
        "code": "rate",
        "message": "slow down",
        "param": "model",
        "error": told,
        "sequence_number": 7,
    }


@pytest.mark.parametrize("last", [b"", b"{", b"[1]", b'{"type":"x"}', b'{"sequence_number":"6"}'])
def test_an_error_after_events_without_a_number_has_the_first(last: bytes) -> None:
    relay = RESPONSES.relay(asked(), None)
    relay.pass_on([Event(b"", last)])
    (sent,) = EventParser().feed(relay.fail(RESPONSES.error(502, "gone")))
    assert json.loads(sent.data or b"")["sequence_number"] == 0
