"""What a Messages request asks for, what of it counts, and errors in Anthropic's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import ErrorResponse

from thinkonce.protocols.messages.dialect import AnthropicMessages
from thinkonce.protocols.registry import DIALECTS, spoken_at
from thinkonce.request.canonical import parse_body
from thinkonce.request.controls import DEFAULTS, Controls
from thinkonce.request.key import Keyer, request_parts, wanted_parts

MESSAGES = AnthropicMessages()
USER = {"role": "user", "content": "hi"}
BODY: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": [USER]}


def test_the_path_leads_to_the_dialect_and_its_errors_lead_further() -> None:
    ours = DIALECTS["messages"]
    for path in ("/v1/messages", "/messages", "/v1/messages/count_tokens", "/messages/batches/x"):
        assert spoken_at(path) is ours
    for path in ("/v1/messagesx", "/", "", "/v1/models", "/v1/chat/completions", "/cache/messages"):
        assert spoken_at(path) is DIALECTS["chat/completions"]


def test_what_is_asked_for_is_read_from_the_body() -> None:
    asked = MESSAGES.asks({**BODY, "stream": True, "temperature": 0})
    assert (asked.model, asked.stream, asked.temperature) == ("m", True, 0)
    assert asked.include_usage, "it comes without being asked for"
    assert MESSAGES.asks(BODY).temperature is None
    assert MESSAGES.ask_usage(b'{"a":1}', BODY) == b'{"a":1}'


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream": "true", "temperature": "hot", "model": 5, "tools": {}},
        {"stream": 1, "temperature": True, "messages": "hi", "output_config": "x"},
        {"messages": [1, None, {"content": [2]}, {"role": "user", "content": 5}], "tools": []},
        {"messages": [{"role": "user", "content": [None, {"source": 3}]}], "output_format": []},
        {"messages": {"role": "user"}, "tools": "", "container": None},
        {},
    ],
)
def test_wrong_types_are_left_for_the_upstream_to_refuse(wrong: dict[str, Any]) -> None:
    asked = MESSAGES.asks(wrong)
    assert (asked.stream, asked.temperature, asked.stateful) == (False, None, "")
    assert MESSAGES.identity(wrong).get("messages") == wrong.get("messages")
    MESSAGES.identity(wrong, context_aware=False)


def test_deep_content_is_looked_through_without_recursion() -> None:
    content: Any = "x"
    for _ in range(5000):
        content = [{"type": "tool_result", "content": content}]
    assert not MESSAGES.asks({"messages": [{"role": "user", "content": content}]}).remote_media


# -- identity --------------------------------------------------------------------------------


def test_everything_counts_but_the_shape_and_our_controls() -> None:
    kept = {
        **BODY,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["x"],
        "brand_new": 1,
    }
    body = {**kept, "stream": True, "kv_cache": {"ttl": 5}, "cache": {"ttl": 5}}
    assert MESSAGES.identity(body) == kept
    assert "stream" in body, "the body itself is left as it is"
    ignore = frozenset({"metadata", "absent"})
    without = {name: value for name, value in kept.items() if name != "metadata"}
    assert MESSAGES.identity(body, ignore=ignore) == without


def test_a_field_that_is_left_out_stays_out_without_context() -> None:
    ignore = frozenset({"messages"})
    assert "messages" not in MESSAGES.identity(BODY, context_aware=False, ignore=ignore)
    assert MESSAGES.identity({"model": "m"}, context_aware=False) == {"model": "m"}


RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "9"}]}
CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}


def test_without_context_the_results_of_tools_stay_with_their_question() -> None:
    old = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "answer"}]
    told = {"role": "system", "content": "from now on"}
    messages = [*old, told, USER, CALL, RESULT]
    body = {**BODY, "system": "s", "messages": messages}
    identity = MESSAGES.identity(body, context_aware=False)
    assert identity == {**body, "messages": [told, USER, CALL, RESULT]}


@pytest.mark.parametrize(
    ("last", "is_question"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "and now?"}]}, True),
        ({"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}, True),
        ({"role": "user", "content": []}, True),
        (RESULT, False),
        ({"role": "user", "content": [*RESULT["content"], {"type": "text", "text": "x"}]}, False),
        ({"role": "user", "content": [{"type": "mcp_tool_result"}]}, False),
    ],
)
def test_a_turn_with_a_result_is_no_question_of_the_user(last: Any, is_question: bool) -> None:
    body = {**BODY, "messages": [USER, CALL, last]}
    kept = MESSAGES.identity(body, context_aware=False)["messages"]
    assert kept == ([last] if is_question else [USER, CALL, last])


GOLDEN = {
    "plain": "42be0267da391e359d7f3eb6461b8c07786806df23a7808dfc24e4736a18fcc6",
    "tools": "2f7b310262a0e0a2afce475dd1a8d12fb5727b2ece30633103c4e6962f84cd92",
    "context": "993d9d744b95dc4c8e36a9b917fe55498f4bd717d88ac46a79f05aedb54e3587",
}


def golden() -> dict[str, str]:
    """Keys of requests, as this version makes them."""
    keyer = Keyer(bytes(range(32)))
    tools = b'"tools":[{"name":"f","input_schema":{"type":"object"}}],"metadata":{"user_id":"u"}'
    plain = b'"model":"m","max_tokens":5.0,"system":"\xe4\xbd\xa0","messages":[{"role":"user",'
    plain += b'"content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]'
    bodies = {
        "plain": (b'{"stream":true,' + plain + b"}", True),
        "tools": (b"{" + tools + b"," + plain + b',"kv_cache":{"ttl":5}}', True),
        "context": (b"{" + plain + b"}", False),
    }
    keys = {}
    for name, (raw, context_aware) in bodies.items():
        identity = MESSAGES.identity(parse_body(raw).body, context_aware=context_aware)
        wanted = wanted_parts(Controls(context_aware=context_aware))
        keyed = ((b"anthropic-version", b"2023-06-01"),)
        parts = request_parts(("messages", "p", "t", ""), wanted, identity, keyed)
        keys[name] = keyer.key_of(parts).digest.hex()
    return keys


def test_keys_are_what_they_were_when_this_version_was_released() -> None:
    assert golden() == GOLDEN


# -- state and media elsewhere ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, ""),
        ({"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}, ""),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, ""),
        ({"tools": [{"type": "text_editor_20250728", "name": "e"}]}, ""),
        ({"tools": [{"type": "memory_20250818", "name": "memory"}]}, ""),
        ({"tools": [{"type": "tool_search_tool_bm25_20251119", "name": "s"}]}, ""),
        ({"tools": [{"type": None, "name": "f", "input_schema": {}}]}, ""),
        ({"tools": [{"type": "custom"}, {"type": "web_search_20250305"}]}, "tools"),
        ({"tools": [{"name": "web_search"}]}, "tools"),
        ({"tools": [{"google_search": {}}]}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        ({"tools": {"type": "web_search"}}, "tools"),
        ({"tools": [{"type": None}]}, "tools"),
        ({"model": "some/model:online"}, "model"),
        ({"tools": [{"type": "web_fetch_20250910"}]}, "tools"),
        ({"tools": [{"type": "code_execution_20250825"}]}, "tools"),
        ({"tools": [{"type": "bash_code_execution_20250825"}]}, "tools"),
        ({"tools": [{"type": "computer_20250124"}]}, "tools"),
        ({"tools": [{"type": "computer_toolset_20260801"}]}, "tools"),
        ({"tools": [{"type": "mcp_toolset"}]}, "tools"),
        ({"tools": [{"type": "brand_new"}]}, "tools"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
        ({"mcp_servers": []}, ""),
        ({"thread": {"id": "t"}}, "thread"),
    ],
)
def test_what_brings_live_data_in_is_named(fields: dict[str, Any], field: str) -> None:
    assert MESSAGES.asks({**BODY, **fields}).stateful == field


@pytest.mark.parametrize(
    ("part", "remote"),
    [
        ({"type": "text", "text": "https://example.com/a.png"}, False),
        ({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}, True),
        ({"type": "document", "source": {"type": "url", "url": "https://example.com/a"}}, True),
        ({"type": "image", "source": {"type": "base64", "data": "AAAA"}}, False),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, False),
        ({"type": "search_result", "source": "https://example.com", "content": []}, False),
        ({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url"}}]}, True),
        (
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [{"type": "image", "source": {"type": "url"}}],
                },
            },
            True,
        ),
    ],
)
def test_media_at_a_url_are_noticed(part: dict[str, Any], remote: bool) -> None:
    body = {**BODY, "messages": [USER, {"role": "user", "content": [part]}]}
    assert MESSAGES.asks(body).remote_media is remote


def test_pictures_count_by_their_bytes_and_files_by_their_id() -> None:
    sources = [
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        {"type": "base64", "media_type": "image/png", "data": "AAAB"},
        {"type": "file", "file_id": "file_1"},
        {"type": "file", "file_id": "file_2"},
    ]
    keys = set()
    for source in sources:
        content = [{"type": "image", "source": source}]
        identity = MESSAGES.identity({**BODY, "messages": [{"role": "user", "content": content}]})
        keys.add(request_parts(("messages", "p", "t", ""), wanted_parts(DEFAULTS), identity))
    assert len(keys) == 4


def test_json_is_asked_for_in_two_ways() -> None:
    form = {"type": "json_schema", "schema": {}}
    assert MESSAGES.asks({**BODY, "output_config": {"format": form}}).wants_json
    assert MESSAGES.asks({**BODY, "output_format": form}).wants_json
    assert not MESSAGES.asks({**BODY, "output_config": {"effort": "low"}}).wants_json


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (431, "invalid_request_error"),
        (500, "api_error"),
        (501, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (508, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_words_for_each_status(status: int, kind: str) -> None:
    body = json.loads(MESSAGES.error(status, "no", type="server_error"))
    assert body == {"type": "error", "error": {"type": kind, "message": "no"}}
    if kind != "request_too_large":  # the client's types know no such error; its API does
        ErrorResponse.model_validate({**body, "request_id": None})


def test_the_field_and_the_code_are_told_in_the_message() -> None:
    told = [
        json.loads(MESSAGES.error(400, "model: no", code=code, param=param))["error"]["message"]
        for code, param in (("", "model"), ("bad", "model"), ("bad", "stream"), ("", "stream"))
    ]
    assert told == ["model: no", "model: no (bad)", "model: no (stream, bad)", "model: no (stream)"]


def test_an_error_is_told_whatever_its_text() -> None:
    relay = MESSAGES.relay(MESSAGES.asks(BODY), None)
    event = relay.fail(MESSAGES.error(400, "got '\ud800\n'"))
    name, data = event.rstrip(b"\n").split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"]["message"] == "got '\\ud800\n'"


def test_ids_look_like_the_providers() -> None:
    made = {MESSAGES.fresh_id() for _ in range(100)}
    assert len(made) == 100
    assert all(each.startswith("msg_") and each.removeprefix("msg_").isalnum() for each in made)
