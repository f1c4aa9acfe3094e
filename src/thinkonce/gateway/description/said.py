"""Headers, controls and errors: what descriptions of all paths share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from thinkonce.engine.marks import MARKS
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.request.controls import DIRECTIVES, FIELDS, LITELLM_FIELDS, SECONDS_SCHEMA

__all__ = (
    "Json",
    "controls",
    "errors",
    "parameter",
    "ref",
    "request_headers",
    "response_headers",
    "responses",
    "schemas",
)

Json = dict[str, Any]

_WORDS = [each.value for each in Reason]
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}

_MARKS: Mapping[str, tuple[str, Json]] = {
    "x-cache": ("What was chosen.", {"enum": [each.value.upper() for each in Outcome]}),
    "x-cache-key": ("The key of the entry.", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
    "x-cache-reason": ("Why it is no hit: a closed list.", {"enum": _WORDS}),
    "x-cache-not-stored": ("Why the answer is not kept: the same list.", {"enum": _WORDS}),
    "x-cache-match": ("How a hit was found.", {"enum": [each.value for each in Match]}),
    "x-cache-tier": ("Where a hit lay.", _TEXT),
    "x-cache-ttl": ("Seconds left; negative once expired.", {"type": "integer"}),
    "x-cache-similarity": ("Of a hit by meaning.", {"type": "number"}),
    "x-cache-source-id": ("The upstream's own id of a stored answer.", _TEXT),
    "cache-status": ("The same by RFC 9211.", _TEXT),
    "age": ("Seconds since a stored answer was made.", _COUNT),
    "x-thinkonce-fallback": ("The pool that answers in place of the one asked.", _TEXT),
    "x-request-id": ("The client's own where it sent one.", _TEXT),
}
_WHEN: Mapping[int, str] = {
    400: "What was sent cannot be read; the message says where.",
    401: "The API key is unknown to this gateway.",
    403: "Not open to this caller.",
    404: "There is no such thing.",
    408: "The request did not come whole in time.",
    409: "It fits more than one thing, or belongs to another installation.",
    413: "Larger than [gateway] body_limit.",
    415: "The content type or encoding is not accepted.",
    422: "It is there and cannot be shown here.",
    429: "This client's rate limit; `Retry-After` says for how long.",
    431: "A larger head than [gateway] header_limit.",
    500: "The gateway failed; its log says how.",
    501: "Not built yet in this version.",
    502: "The upstream could not be reached, or its answer could not be read.",
    503: "Busy, restarting or without its store; `Retry-After` may say for how long.",
    504: "The upstream took too long; or only-if-cached, and nothing stored fits.",
    508: "The gateway is its own upstream.",
}


def ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def response_headers() -> Json:
    """By name, every header that says how an answer was come by."""
    return {
        name: {"description": _MARKS[name][0], "schema": _MARKS[name][1]} for name in sorted(MARKS)
    }


def parameter(name: str, about: str, schema: Json, where: str = "query", **more: Any) -> Json:
    return {"name": name, "in": where, "description": about, "schema": schema, **more}


def request_headers(ttl_classes: Collection[str]) -> Json:
    """The controls as headers, by the name of their component."""
    found = {
        f"x-thinkonce-{name.replace('_', '-')}": parameter(
            f"x-thinkonce-{name.replace('_', '-')}", f"{about} As `kv_cache.{name}`.", schema
        )
        for name, (schema, about) in _fields(ttl_classes).items()
    }
    known = f"RFC 9111 and RFC 5861: {', '.join(DIRECTIVES)}."
    found["cache-control"] = parameter("cache-control", known, _TEXT)
    found["x-request-id"] = parameter(
        "x-request-id",
        "Comes back with the answer and stands in the log.",
        {"type": "string", "pattern": "^[!-~]{1,128}$"},
    )
    return {name: {**each, "in": "header"} for name, each in found.items()}


def controls(ttl_classes: Collection[str]) -> Json:
    """The schemas of the members `kv_cache` and `cache` of a request."""
    fields = _fields(ttl_classes)
    ours = {name: _or_null(schema, about) for name, (schema, about) in fields.items()}
    litellm: Json = {
        "ttl": ours["ttl"],
        "namespace": ours["namespace"],
        "s-maxage": _or_null(dict(SECONDS_SCHEMA), "The oldest answer that will do."),
        "s-max-age": _or_null(dict(SECONDS_SCHEMA), "The same."),
        "no-cache": _or_null({"type": "boolean"}, "Skip the read, store the new answer."),
        "no-store": _or_null({"type": "boolean"}, "Do not store the answer."),
        "use-cache": _or_null({"type": "boolean"}, "false: neither read nor stored."),
    }
    return {
        "CacheControls": _closed("What a request says about caching.", ours),
        "LiteLLMControls": _closed(
            "The same as LiteLLM spells it.", {name: litellm[name] for name in LITELLM_FIELDS}
        ),
    }


def _fields(ttl_classes: Collection[str]) -> dict[str, tuple[Json, str]]:
    found = {name: (dict(field.schema), field.about) for name, field in FIELDS.items()}
    ttl, about = found["ttl"]
    found["ttl"] = {"anyOf": [*ttl["anyOf"], {"enum": sorted(ttl_classes)}]}, about
    return found


def _or_null(schema: Json, about: str) -> Json:
    return {"anyOf": [schema, {"type": "null"}], "description": about}


def _closed(about: str, members: Json) -> Json:
    return {
        "type": ["object", "null"],
        "description": about,
        "properties": members,
        "additionalProperties": False,
    }


def schemas() -> Json:
    """The shapes of errors."""
    text, maybe = _TEXT, {"type": ["string", "null"]}
    openai = {"message": text, "type": text, "param": maybe, "code": maybe}
    anthropic = {"type": text, "message": text}
    return {
        "Error": {
            "type": "object",
            "description": "As OpenAI's clients read it.",
            "properties": {"error": _object(openai)},
            "required": ["error"],
        },
        "AnthropicError": {
            "type": "object",
            "description": "As Anthropic's clients read it.",
            "properties": {"type": {"const": "error"}, "error": _object(anthropic)},
            "required": ["type", "error"],
        },
    }


def _object(members: Json) -> Json:
    return {"type": "object", "properties": members, "required": sorted(members)}


def errors(statuses: Iterable[int], shape: str = "Error") -> Json:
    """Answers of the gateway's own by status; `shape` is OpenAI's or Anthropic's."""
    return {str(status): ref("responses", f"{shape}{status}") for status in sorted(statuses)}


def responses() -> Json:
    """What `errors` refers to. They say of the cache where it was asked, or stood aside."""
    names = ("x-request-id", "x-cache", "x-cache-reason", "cache-status")
    headers = {name: ref("headers", name) for name in names}
    return {
        f"{shape}{status}": {
            "description": about,
            "headers": headers,
            "content": {"application/json": {"schema": ref("schemas", shape)}},
        }
        for status, about in _WHEN.items()
        for shape in ("Error", "AnthropicError")
    }
