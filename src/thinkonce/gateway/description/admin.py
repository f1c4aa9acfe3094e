"""Everything under /cache, as `gateway.admin` answers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from thinkonce.gateway.admin.change import Feedback, Limits, Purge, Reset
from thinkonce.gateway.admin.look import MOST_LISTED
from thinkonce.gateway.admin.preload import DEFAULT_CONCURRENCY, MOST_CONCURRENCY, Result
from thinkonce.gateway.description.said import Json, errors, parameter, ref
from thinkonce.insight.entries import EntryRow
from thinkonce.insight.explained import Explained
from thinkonce.protocols.annotation import Annotation
from thinkonce.selector import ALL_DIGITS, LEAST_DIGITS

__all__ = ("ADMIN", "TOKEN", "admin_paths", "admin_schemas")

TOKEN = "x-thinkonce-admin-token"
_TEXT: Json = {"type": "string"}
_HEX: Json = {"type": "string", "pattern": "^([0-9a-f]{2})*$"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_LINES = "application/jsonl"
_OWN = (400, 403, 431, 500, 503, 508)
_OWN_BODY = (408, 413, 415)
_STRUCTS = (Annotation, EntryRow, Explained, Feedback, Limits, Purge, Reset, Result)
_CHOICE = (
    parameter("tag", "With all of these tags.", {"type": "array", "items": _TEXT}),
    parameter("namespace", "Of this namespace.", _TEXT),
    parameter("model", "Of this model.", _TEXT),
    parameter("tenant", "Of this tenant, as `entries` shows it.", _TEXT),
    parameter("after", "Behind this key: `next` of the page before.", _HEX),
)
_LIMIT = parameter(
    "limit", "Most entries of a page.", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}
)
_WHOSE = tuple(
    parameter(name, about, _TEXT, "header")
    for name, about in (
        ("x-thinkonce-tenant", "Whose entries: a tenant, as `entries` shows it, or `anonymous`."),
        ("x-thinkonce-group", "Whose entries: a group of the configuration."),
        ("x-thinkonce-client-authorization", "Whose entries: the client's `Authorization`."),
        ("x-thinkonce-client-api-key", "Whose entries: the client's `x-api-key`."),
    )
)
_CONCURRENCY: Json = {
    "type": "integer",
    "minimum": 1,
    "maximum": MOST_CONCURRENCY,
    "default": DEFAULT_CONCURRENCY,
}
_RATE: Json = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e6}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _members(**schemas: Json) -> Json:
    return {"type": "object", "properties": schemas, "required": sorted(schemas)}


def _verb(
    about: str,
    answer: Json,
    body: Json | None = None,
    parameters: Iterable[Json] = (),
    also: Iterable[int] = (),
) -> Json:
    """`also`: statuses besides those that every path may answer with."""
    statuses = {*_OWN, *also, *(_OWN_BODY if body else ())}
    ok = {"description": about, "content": answer}
    found: Json = {"summary": about, "responses": {"200": ok, **errors(statuses)}}
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
    given = list(parameters)
    return {**found, "parameters": given} if given else found


def _lines(schema: Json) -> Json:
    """What is sent or answered line by line: `schema` of one line."""
    return {_LINES: {"schema": _TEXT, "x-line": schema}}


_BOUNDS = ("max_size", "max_bytes", "store_max_bytes")
_MAYBE: Json = {"type": ["integer", "null"]}

# By method and path below /cache, as `admin.router` has them; KEY stands for one.
ADMIN: Mapping[tuple[str, str], Json] = {
    ("GET", "stats"): _verb(
        "What is held, what was asked.",
        _json({"type": "object"}),
        parameters=[parameter("apart", "`true`: which single fields keep requests apart.", _TEXT)],
    ),
    ("GET", "entries"): _verb(
        "A page of entries, in the order of their keys.",
        _json(
            _members(
                entries={"type": "array", "items": ref("schemas", "EntryRow")},
                next={"type": ["string", "null"]},
            )
        ),
        parameters=(*_CHOICE, _LIMIT),
    ),
    ("GET", "export"): _verb(
        "Entries that live, a line each.", _lines({"type": "object"}), parameters=_CHOICE
    ),
    ("POST", "purge"): _verb(
        "Forget entries.",
        _json(_members(purged=_COUNT)),
        _json(ref("schemas", "Purge")),
        also=(404, 409),
    ),
    ("POST", "limits"): _verb(
        "Change the bounds at once.",
        _json(_members(**dict.fromkeys(_BOUNDS, _MAYBE))),
        _json(ref("schemas", "Limits")),
    ),
    ("POST", "audits/reset"): _verb(
        "Audits of hits in other words begin anew, after alarms.",
        _json(_members(reset=_COUNT)),
        _json(ref("schemas", "Reset")),
    ),
    ("POST", "preload"): _verb(
        "Ask ahead of time: lines of OpenAI's Batch format in, a line of result out for each.",
        _lines(ref("schemas", "Result")),
        _lines({"type": "object"}),
        (
            parameter("concurrency", "Lines under way at a time.", _CONCURRENCY),
            parameter("rate", "Requests a second.", _RATE),
            *_WHOSE,
        ),
    ),
    ("POST", "import"): _verb(
        "Entries of an export; back come lines for what was not taken, and sums.",
        _lines({"type": "object"}),
        _lines({"type": "object"}),
        (
            parameter("into_tenant", "Whose they shall be.", _TEXT),
            parameter("from_tenant", "Whose they are; may be repeated.", _TEXT),
            *_WHOSE,
        ),
        also=(409,),
    ),
    ("POST", "explain"): _verb(
        "Would this request hit, and if not, why not: a request, or a line of a batch.",
        _json(ref("schemas", "Explained")),
        _json({"type": "object"}),
        (parameter("endpoint", "Such as chat/completions.", _TEXT), *_WHOSE),
        also=(404, 501),
    ),
    ("GET", "entries/KEY"): _verb(
        "One entry.",
        _json(ref("schemas", "EntryRow")),
        parameters=(parameter("content", "true: with its answer.", {"enum": ["true"]}),),
        also=(404, 409, 422),
    ),
    ("DELETE", "entries/KEY"): _verb(
        "Forget one entry.", _json(_members(purged=_COUNT)), also=(404, 409)
    ),
    ("POST", "entries/KEY/feedback"): _verb(
        "Say whether an answer was right; a wrong one goes.",
        _json(_members(key=_TEXT, removed={"type": "boolean"}, learned={"type": "boolean"})),
        _json(ref("schemas", "Feedback")),
        also=(404, 409),
    ),
}
_KEY = parameter(
    "key",
    f"A key, or its first {LEAST_DIGITS} digits or more.",
    {"type": "string", "pattern": f"^[0-9a-f]{{{LEAST_DIGITS},{ALL_DIGITS}}}$"},
    "path",
    required=True,
)


def admin_schemas() -> Json:
    """Of what the paths take and give, from the structs that read and write it."""
    template = "#/components/schemas/{name}"
    _, found = msgspec.json.schema_components(_STRUCTS, ref_template=template)
    return found


def admin_paths(security: list[Json]) -> Json:
    """`security`: the token, where one is configured."""
    found: Json = {}
    for (method, name), verb in ADMIN.items():
        place = found.setdefault("/cache/" + name.replace("KEY", "{key}"), {})
        place[method.lower()] = _operation(method, name, verb, security)
    return found


def _operation(method: str, name: str, verb: Json, security: list[Json]) -> Json:
    own: list[Any] = [_KEY] if "KEY" in name else []
    words = name.replace("/", "_").lower()
    return {
        "operationId": f"{method.lower()}_cache_{words}",
        "tags": ["admin"],
        "security": security,
        **verb,
        "parameters": [*own, *verb.get("parameters", ()), ref("parameters", "x-request-id")],
    }
