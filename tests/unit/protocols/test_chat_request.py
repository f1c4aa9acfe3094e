"""What a chat request asks for, what of it counts, and its errors."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.annotation import Annotation
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.registry import DIALECTS, spoken_at

CHAT = OpenAIChat()
USER = {"role": "user", "content": "hi"}
BODY: dict[str, Any] = {"model": "m", "messages": [USER]}


def test_both_paths_lead_to_the_dialect() -> None:
    assert spoken_at("/v1/chat/completions") is spoken_at("/chat/completions")
    assert spoken_at("/v1/chat/completions") is DIALECTS["chat/completions"]


def test_what_is_asked_for_is_read_from_the_body() -> None:
    asked = CHAT.asks(
        {
            **BODY,
            "stream": True,
            "stream_options": {"include_usage": True},
            "n": 3,
            "temperature": 0,
            "response_format": {"type": "json_schema", "json_schema": {}},
        }
    )
    assert (asked.model, asked.stream, asked.include_usage) == ("m", True, True)
    assert (asked.answers, asked.wants_json, asked.temperature) == (3, True, 0)


def test_an_omitted_temperature_is_not_zero() -> None:
    assert CHAT.asks(BODY).temperature is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream": "true", "n": "2", "temperature": "hot", "model": 5},
        {"stream": 1, "n": True, "temperature": True, "stream_options": [], "response_format": "x"},
        {"n": 0, "messages": "hi", "tools": {"type": "function"}, "stream_options": "x"},
        {"messages": [1, None, {"content": [2]}], "tools": [1]},
        {},
    ],
)
def test_wrong_types_are_left_for_the_upstream_to_refuse(wrong: dict[str, Any]) -> None:
    asked = CHAT.asks(wrong)
    assert (asked.stream, asked.answers, asked.temperature) == (False, 1, None)
    for context_aware in (True, False):
        identity = CHAT.identity(wrong, context_aware=context_aware)
        assert identity.get("messages") == wrong.get("messages")


def test_controls_and_the_shape_are_no_part_of_the_identity() -> None:
    body = {**BODY, "stream": True, "kv_cache": {"ttl": 5}, "cache": {"ttl": 5}}
    body["stream_options"] = {"include_usage": True}
    assert CHAT.identity(body) == BODY
    assert "stream" in body, "the body itself is left as it is"


def test_everything_else_is_unknown_fields_included() -> None:
    body = {**BODY, "top_k": 5, "user": "u", "stream_options": {"include_obfuscation": False}}
    assert CHAT.identity(body) == body
    with_usage = {**body, "stream_options": {"include_obfuscation": False, "include_usage": True}}
    assert CHAT.identity(with_usage) == body


def test_an_operator_may_leave_fields_out() -> None:
    body = {**BODY, "user": "u", "metadata": {}}
    assert CHAT.identity(body, ignore=frozenset({"user", "metadata", "absent"})) == BODY


def test_without_context_earlier_turns_do_not_count_but_all_that_follows_does() -> None:
    system, developer = {"role": "system", "content": "s"}, {"role": "developer", "content": "d"}
    old = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "answer"}]
    tail = [{"role": "assistant", "tool_calls": [{"id": "1"}]}, {"role": "tool", "content": "9"}]
    messages = [system, *old, developer, USER, *tail]
    identity = CHAT.identity({**BODY, "messages": messages, "seed": 1}, context_aware=False)
    assert identity == {"model": "m", "seed": 1, "messages": [system, developer, USER, *tail]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, ""),
        ({"tools": [{"type": "function"}, {"type": "custom"}]}, ""),
        ({"tools": [{"function": {"name": "f"}}]}, ""),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "mcp"}]}, "tools"),
        ({"tools": [{"google_search": {}}]}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        ({"tools": {"type": "web_search"}}, "tools"),
        ({"tools": [{"type": ["function"]}]}, "tools"),
        ({"tools": [{"type": "function"}, None]}, "tools"),
        ({"tools": []}, ""),
        ({"tools": None}, ""),
        ({"model": "openai/gpt-4o:online"}, "model"),
        ({"model": "some/model:free:online"}, "model"),
        ({"model": "some/model:online:free"}, "model"),
        ({"model": "llama-3-sonar-small-32k-online"}, "model"),
        ({"model": "gpt-4o-search-preview-2025-03-11"}, "model"),
        ({"model": "gpt-5-search-api"}, "model"),
        ({"model": "o3-deep-research"}, "model"),
        ({"model": "some/model:free"}, ""),
        ({"model": "online-shop"}, ""),
        ({"model": "non-onlineable"}, ""),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"search_parameters": {"mode": "auto"}}, "search_parameters"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"enable_search": True}, "enable_search"),
        ({"enable_search": False}, ""),
    ],
)
def test_what_brings_live_data_in_is_named(fields: dict[str, Any], field: str) -> None:
    assert CHAT.asks({**BODY, **fields}).stateful == field


@pytest.mark.parametrize(
    ("part", "remote"),
    [
        ({"type": "text", "text": "https://example.com/a.png"}, False),
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, True),
        ({"type": "image_url", "image_url": "http://example.com/a.png"}, True),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, False),
        ({"type": "image_url", "image_url": {}}, False),
        ({"type": "file", "file": {"file_data": "https://example.com/a.pdf"}}, True),
        ({"type": "file", "file": {"file_data": "gs://bucket/a.pdf"}}, True),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA//"}}, False),
        ({"type": "file", "file": {"file_data": "AA//", "filename": "https://a"}}, False),
        ({"type": "file", "file": {"file_id": "file-1"}}, False),
        ({"type": "input_audio", "input_audio": {"data": "https://example.com/a.mp3"}}, True),
        ({"type": "input_audio", "input_audio": {"data": "AA//", "format": "mp3"}}, False),
    ],
)
def test_a_picture_by_url_may_change(part: dict[str, Any], remote: bool) -> None:
    body = {**BODY, "messages": [USER, {"role": "user", "content": [part]}]}
    assert CHAT.asks(body).remote_media is remote


def test_usage_is_asked_for_without_touching_the_rest() -> None:
    raw = b'{"model":"m","seed":1.0,"stream":true}'
    asked = CHAT.ask_usage(raw, json.loads(raw))
    assert asked == raw[:-1] + b',"stream_options":{"include_usage":true}}'
    raw = b'{"stream_options":{"include_usage":false,"x":1},"seed":1.0}'
    asked = CHAT.ask_usage(raw, json.loads(raw))
    assert b'"seed":1.0' in asked
    assert json.loads(asked)["stream_options"] == {"include_usage": True, "x": 1}


def test_ids_are_fresh_and_look_like_the_providers() -> None:
    ids = {CHAT.fresh_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(each.startswith("chatcmpl-") and len(each) == 39 for each in ids)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
    ],
)
def test_errors_have_the_shape_the_client_reads(status: int, kind: str) -> None:
    body = json.loads(CHAT.error(status, "kv_cache.ttl: no", code="bad_ttl", param="kv_cache.ttl"))
    assert body == {
        "error": {
            "message": "kv_cache.ttl: no",
            "type": kind,
            "param": "kv_cache.ttl",
            "code": "bad_ttl",
        }
    }
    error = openai.APIError("", request=None, body=body["error"])  # type: ignore[arg-type]
    assert (error.type, error.code, error.param) == (kind, "bad_ttl", "kv_cache.ttl")


def test_an_error_in_a_stream_is_an_event() -> None:
    relay = CHAT.relay(CHAT.asks(BODY), None)
    assert relay.fail(b'{"error":{}}') == b'data: {"error":{}}\n\n'


def test_the_marks_hold_every_promised_member() -> None:
    annotation = Annotation(
        Outcome.HIT, match=Match.EXACT, tier="memory", key="ab" * 32, age=1.5, stored=False,
        not_stored=Reason.LENGTH,
    )  # fmt: skip
    marks = json.loads(b"{" + annotation.members() + b"}")
    assert marks["cache_hit"] is True
    assert marks["kv_cache"] == {
        "status": "hit", "match": "exact", "tier": "memory", "key": "ab" * 32, "cache_key": None,
        "age": 1.5, "ttl": None, "similarity": None, "saved_tokens": None, "saved_cost": None,
        "saved_ms": None, "stored": False, "not_stored": "length",
    }  # fmt: skip


@pytest.mark.parametrize("outcome", Outcome)
def test_only_an_answer_from_the_cache_is_a_hit(outcome: Outcome) -> None:
    hit = json.loads(b"{" + Annotation(outcome).members() + b"}")["cache_hit"]
    assert hit is (outcome in (Outcome.HIT, Outcome.STALE))
