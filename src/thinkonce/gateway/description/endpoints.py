"""The paths that go through the cache, and what is known of those that are forwarded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinkonce.gateway.description.said import Json, errors, ref

__all__ = ("CACHED", "FORWARDED", "cached_paths", "forwarded_paths", "request_schemas")

_TEXT: Json = {"type": "string"}
_OBJECTS: Json = {"type": "array", "items": {"type": "object"}}
_TEXTS: Json = {"anyOf": [_TEXT, {"type": "array", "items": {}}]}
_NUMBER: Json = {"type": ["number", "null"]}
_FLAG: Json = {"type": ["boolean", "null"]}
_QUESTION = "What is the capital of Norway?"
_HELLO = [{"role": "user", "content": _QUESTION}]


@dataclass(frozen=True, slots=True)
class Spoken:
    """One endpoint: its members that are known here, by name, and a request that works."""

    schema: str
    about: str
    members: Mapping[str, Json]
    required: tuple[str, ...]
    example: Mapping[str, Any]
    streams: bool = True
    error: str = "Error"


CACHED: Mapping[str, Spoken] = {
    "chat/completions": Spoken(
        "ChatRequest",
        "OpenAI's chat completions",
        {"messages": _OBJECTS, "tools": _OBJECTS, "temperature": _NUMBER},
        ("model", "messages"),
        {"messages": _HELLO},
    ),
    "completions": Spoken(
        "CompletionRequest",
        "OpenAI's text completions",
        {"prompt": _TEXTS, "temperature": _NUMBER},
        ("model", "prompt"),
        {"prompt": _QUESTION, "max_tokens": 40},
    ),
    "embeddings": Spoken(
        "EmbeddingsRequest",
        "OpenAI's embeddings, cached input by input",
        {"input": _TEXTS, "encoding_format": _TEXT},
        ("model", "input"),
        {"input": ["one", "two"]},
        streams=False,
    ),
    "messages": Spoken(
        "MessagesRequest",
        "Anthropic's Messages",
        {"messages": _OBJECTS, "max_tokens": {"type": "integer"}, "tools": _OBJECTS},
        ("model", "messages", "max_tokens"),
        {"messages": _HELLO, "max_tokens": 100},
        error="AnthropicError",
    ),
    "responses": Spoken(
        "ResponsesRequest",
        "OpenAI's Responses",
        {"input": _TEXTS, "tools": _OBJECTS, "temperature": _NUMBER},
        ("model", "input"),
        {"input": _QUESTION},
    ),
}
# Of the paths that are forwarded, those that clients of these APIs use most: method, answer.
FORWARDED: Mapping[tuple[str, str], str] = {
    ("get", "models"): "The models of all pools",
    ("get", "models/{model}"): "One model",
    ("post", "messages/count_tokens"): "Count the tokens of a message",
    ("post", "moderations"): "Classify a text",
}
_FORWARDED_MARKS = ("x-cache", "x-cache-reason", "x-request-id")
_OWN = (400, 401, 403, 408, 413, 429, 431, 500, 502, 503, 504, 508)
_OWN_CACHED = (*_OWN, 404, 415, 501)
_PASSED = "Whatever else the upstream answers: its status, body and headers, unchanged."


def request_schemas() -> Json:
    """One for each endpoint; what is not named there is passed on, and counts in the key."""
    return {spoken.schema: _request(spoken) for spoken in CACHED.values()}


def _request(spoken: Spoken) -> Json:
    members: Json = {"model": _TEXT, **spoken.members}
    if spoken.streams:
        members |= {"stream": _FLAG, "stream_options": {"type": ["object", "null"]}}
    members["kv_cache"] = ref("schemas", "CacheControls")
    members["cache"] = ref("schemas", "LiteLLMControls")
    return {
        "type": "object",
        "description": f"{spoken.about}: any field of the provider's is accepted.",
        "properties": members,
        "required": list(spoken.required),
        "additionalProperties": True,
        "examples": [{"model": "gpt-4o-mini", **spoken.example}],
    }


def cached_paths(headers: Json, parameters: Json, security: list[Json]) -> Json:
    """Each path with and without /v1. `headers`, `parameters`: names of components."""
    shared = [ref("parameters", name) for name in parameters]
    return {
        prefix + name: {
            "post": {
                "operationId": _id(prefix, "post", name),
                "summary": spoken.about,
                "tags": ["cached"],
                "parameters": shared,
                "security": security,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": ref("schemas", spoken.schema)}},
                },
                "responses": _answers(spoken, headers),
            }
        }
        for name, spoken in CACHED.items()
        for prefix in ("/v1/", "/")
    }


def _answers(spoken: Spoken, headers: Json) -> Json:
    content: Json = {"application/json": {"schema": ref("schemas", "Marked")}}
    if spoken.streams:
        content["text/event-stream"] = {"schema": {"description": "Events as the provider's."}}
    found = {
        "description": "The upstream's answer or a stored one, with these marks of the cache.",
        "headers": {name: ref("headers", name) for name in headers},
        "content": content,
    }
    own = errors(_OWN_CACHED, spoken.error)
    return {"200": found, **own, "default": _passed()}


def forwarded_paths(headers: Json, security: list[Json]) -> Json:
    """Never cached: marked `x-cache: BYPASS` with the reason `endpoint`, if `headers` has these."""
    found: Json = {}
    for (method, name), about in FORWARDED.items():
        for prefix in ("/v1/", "/"):
            place = found.setdefault(prefix + name, {})
            operation = _forwarded(_id(prefix, method, name), method, name, about, security)
            operation["responses"]["200"]["headers"] = {
                each: ref("headers", each) for each in _FORWARDED_MARKS if each in headers
            }
            place[method] = operation
    return found


def _forwarded(id: str, method: str, name: str, about: str, security: list[Json]) -> Json:
    shape = "AnthropicError" if name.startswith("messages/") else "Error"
    operation: Json = {
        "operationId": id,
        "summary": f"{about}; forwarded",
        "tags": ["forwarded"],
        "security": security,
        "responses": {
            "200": {
                "description": "The upstream's answer.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **errors(_OWN, shape),
            "default": _passed(),
        },
    }
    if "{model}" in name:
        operation["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": _TEXT}
        ]
    if method == "post":
        body = {"application/json": {"schema": {"type": "object"}}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _passed() -> Json:
    return {"description": _PASSED, "content": {"*/*": {"schema": {}}}}


def _id(prefix: str, method: str, name: str) -> str:
    """Such as `post_v1_chat_completions`."""
    words = (prefix + name).replace("{", "").replace("}", "")
    return method + words.replace("/", "_")
