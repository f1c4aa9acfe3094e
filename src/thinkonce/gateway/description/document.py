"""The whole description as one document, and as the bytes that are served."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec

from thinkonce.gateway.description.admin import TOKEN, admin_paths, admin_schemas
from thinkonce.gateway.description.endpoints import (
    cached_paths,
    forwarded_paths,
    request_schemas,
)
from thinkonce.gateway.description.pages import page_paths
from thinkonce.gateway.description.said import (
    Json,
    controls,
    ref,
    request_headers,
    response_headers,
    responses,
    schemas,
)
from thinkonce.settings import Settings
from thinkonce.version import __version__

__all__ = ("description_of", "document_of")

_ABOUT = (
    "A cache in front of language models. Paths that are not listed here are forwarded to the "
    "upstream untouched, and their answers are marked `x-cache: BYPASS`. Each path of a provider "
    "works with and without `/v1`."
)
_TAGS = {
    "cached": "Answered from the cache where it holds a fitting answer.",
    "forwarded": "Passed on and never cached, as every path is that stands nowhere here.",
    "pages": "The gateway's own pages; open to everybody who can reach it.",
    "admin": "Who may, looks into the cache and changes it.",
}
REQUEST_ID = "x-request-id"
_KEYS: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def description_of(settings: Settings) -> Callable[[], bytes]:
    """What /openapi.json answers under `settings`; made when it is first asked for."""
    return cache(lambda: msgspec.json.encode(document_of(settings)))


def document_of(settings: Settings) -> Json:
    """OpenAPI 3.1.1."""
    headers, classes = response_headers(), settings.ttl_classes
    strict = settings.gateway.strict  # to everybody: their answers have no marks
    shown = {name: each for name, each in headers.items() if not strict or name == REQUEST_ID}
    parameters = request_headers(classes)
    clients = _clients_security(settings)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "thinkonce",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": {
            **page_paths(),
            **cached_paths(shown, parameters, clients),
            **forwarded_paths(shown, clients),
            **admin_paths(_admin_security(settings)),
        },
        "components": {
            "headers": headers,
            "responses": responses(),
            "parameters": parameters,
            "schemas": {
                **request_schemas(),
                **controls(classes),
                **schemas(),
                **admin_schemas(),
                "Marked": _marked(annotated=settings.gateway.annotate_body and not strict),
            },
            "securitySchemes": {**_KEYS, "admin": _token()},
        },
    }


def _clients_security(settings: Settings) -> list[Json]:
    """Once clients are known, one of their keys; else what the upstream wants, if anything."""
    known: list[Json] = [{name: []} for name in _KEYS]
    return known if settings.clients else [{}, *known]


def _admin_security(settings: Settings) -> list[Json]:
    return [{"admin": []}] if settings.admin.token else [{}, {"admin": []}]


def _token() -> Json:
    about = "The value of THINKONCE_ADMIN_TOKEN; without one, callers on the same machine only."
    return {"type": "apiKey", "in": "header", "name": TOKEN, "description": about}


def _marked(*, annotated: bool) -> Json:
    """A provider's answer; with `annotate_body`, what was added to it."""
    if not annotated:
        return {"type": "object", "additionalProperties": True}
    members = {"cache_hit": {"type": "boolean"}, "kv_cache": ref("schemas", "Annotation")}
    return {"type": "object", "properties": members, "additionalProperties": True}
