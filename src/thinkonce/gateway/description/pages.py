"""The gateway's own pages: is it there, can it serve, what it counts, what it can be asked."""

from __future__ import annotations

from typing import Any

from thinkonce.gateway.description.said import Json, errors, ref

__all__ = ("PAGES", "page_paths")

_STATUS: Json = {
    "type": "object",
    "properties": {"status": {"type": "string"}},
    "required": ["status"],
}
_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}
_OWN = (431, 500, 508)


def _page(about: str, status: str, media: str, schema: Json, **more: Any) -> Json:
    answer = {"description": about, "content": {media: {"schema": schema}}}
    return {"summary": about, "responses": {status: answer, **more, **errors(_OWN)}}


def _status(what: str) -> Json:
    return {"description": what, "content": {"application/json": {"schema": _STATUS}}}


_DESCRIPTION = _page("This description.", "200", "application/json", _OBJECT)
_LATER: Json = {"summary": "Not built yet.", "responses": errors((501, *_OWN))}

PAGES: Json = {
    "/": {
        "summary": "What this is, and where to go from here.",
        "responses": {
            "200": {
                "description": "JSON; text for browsers.",
                "content": {
                    "application/json": {"schema": _OBJECT},
                    "text/plain": {"schema": _TEXT},
                },
            },
            **errors(_OWN),
        },
    },
    "/healthz": _page("The process lives.", "200", "application/json", _STATUS),
    "/readyz": _page(
        "It serves.", "200", "application/json", _STATUS, **{"503": _status("It drains.")}
    ),
    "/metrics": _page("Prometheus' text format.", "200", "text/plain", _TEXT),
    "/openapi.json": _DESCRIPTION,
    "/v1/openapi.json": _DESCRIPTION,
    "/dashboard": _LATER,
    "/v1/dashboard": _LATER,
}


def page_paths() -> Json:
    found: Json = {}
    for path, page in PAGES.items():
        name = path.strip("/").replace("/", "_").replace(".", "_") or "root"
        operation = {"operationId": f"get_{name}", "tags": ["pages"], "security": [], **page}
        found[path] = {"get": {**operation, "parameters": [ref("parameters", "x-request-id")]}}
    return found
