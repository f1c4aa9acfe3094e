"""The paths that go through the cache, and what is known of those that are forwarded."""

from __future__ import annotations

from collections.abc import Mapping

from thinkonce.gateway.description.said import Json, errors, ref
from thinkonce.protocols.facts import FLAG, TEXT, Schema
from thinkonce.protocols.registry import BELOW, SPEECHES, spoken_at

__all__ = ("FORWARDED", "cached_paths", "forwarded_paths", "request_schemas")

# Of the paths that are forwarded, those that clients of these APIs use most: method, answer.
FORWARDED: Mapping[tuple[str, str], str] = {
    ("get", "models"): "The models of all pools",
    ("get", "models/{model}"): "One model",
    **{("post", name): about for name, about in BELOW.items()},
    ("post", "moderations"): "Classify a text",
}
_SCHEMAS = {name: SPEECHES[name].facts.schema for name in sorted(SPEECHES)}
_FORWARDED_MARKS = ("x-cache", "x-cache-reason", "x-request-id")
_OWN = (400, 401, 403, 408, 413, 429, 431, 500, 502, 503, 504, 508)
_OWN_CACHED = (*_OWN, 404, 415, 501)
_PASSED = "Whatever else the upstream answers: its status, body and headers, unchanged."


def request_schemas() -> Json:
    """One for each endpoint; what is not named there is passed on, and counts in the key."""
    return {schema.name: _request(schema) for schema in _SCHEMAS.values()}


def _request(schema: Schema) -> Json:
    members: Json = {"model": TEXT, **schema.members}
    if schema.streams:
        members |= {"stream": FLAG, "stream_options": {"type": ["object", "null"]}}
    members["kv_cache"] = ref("schemas", "CacheControls")
    members["cache"] = ref("schemas", "LiteLLMControls")
    return {
        "type": "object",
        "description": f"{schema.about}: any field of the provider's is accepted.",
        "properties": members,
        "required": list(schema.required),
        "additionalProperties": True,
        "examples": [{"model": "gpt-4o-mini", **schema.example}],
    }


def cached_paths(headers: Json, parameters: Json, security: list[Json]) -> Json:
    """Each path with and without /v1. `headers`, `parameters`: names of components."""
    shared = [ref("parameters", name) for name in parameters]
    return {
        prefix + name: {
            "post": {
                "operationId": _id(prefix, "post", name),
                "summary": schema.about,
                "tags": ["cached"],
                "parameters": shared,
                "security": security,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": ref("schemas", schema.name)}},
                },
                "responses": _answers(schema, headers),
            }
        }
        for name, schema in _SCHEMAS.items()
        for prefix in ("/v1/", "/")
    }


def _answers(schema: Schema, headers: Json) -> Json:
    content: Json = {"application/json": {"schema": ref("schemas", "Marked")}}
    if schema.streams:
        content["text/event-stream"] = {"schema": {"description": "Events as the provider's."}}
    found = {
        "description": "The upstream's answer or a stored one, with these marks of the cache.",
        "headers": {name: ref("headers", name) for name in headers},
        "content": content,
    }
    own = errors(_OWN_CACHED, schema.error)
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
    shape = spoken_at("/" + name).facts.schema.error
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
            {"name": "model", "in": "path", "required": True, "schema": TEXT}
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
