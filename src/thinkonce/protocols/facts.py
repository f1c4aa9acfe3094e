"""What is known of the path a dialect is spoken at, for whoever does not speak it.

Whoever routes, describes, traces or guesses asks here, so that a new dialect is one new file.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

__all__ = (
    "ANTHROPIC_VERSION",
    "FLAG",
    "HELLO",
    "NUMBER",
    "OBJECTS",
    "QUESTION",
    "TEXT",
    "TEXTS",
    "Facts",
    "Schema",
)

Json = dict[str, Any]

# What Anthropic's API wants of each request; its SDKs send it, others do not.
ANTHROPIC_VERSION = (b"anthropic-version", b"2023-06-01")

TEXT: Json = {"type": "string"}
OBJECTS: Json = {"type": "array", "items": {"type": "object"}}
TEXTS: Json = {"anyOf": [TEXT, {"type": "array", "items": {}}]}
NUMBER: Json = {"type": ["number", "null"]}
FLAG: Json = {"type": ["boolean", "null"]}
QUESTION = "What is the capital of Norway?"
HELLO = [{"role": "user", "content": QUESTION}]


class Schema(msgspec.Struct, frozen=True):
    """Its requests, for OpenAPI: the members that are known here, and a request that works."""

    name: str = ""
    about: str = ""
    members: Mapping[str, Json] = MappingProxyType({})
    required: tuple[str, ...] = ()
    example: Mapping[str, Any] = MappingProxyType({})
    streams: bool = True
    error: str = "Error"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Without any, those of a path that is not known."""

    schema: Schema = Schema()
    # OpenTelemetry's well-known values of gen_ai.operation.name and gen_ai.provider.name.
    operation: str = ""
    provider: str = "openai"
    # What a body without a path is told by: the field that asks, and how a header begins, if its
    # clients send one.
    field: str = ""
    header_prefix: bytes = b""
    # How its SDKs send a key, and what they send besides that is in the key of an entry.
    key_header: bytes = b"authorization"
    sent: tuple[tuple[bytes, bytes], ...] = ()
    # Its SDKs take a base URL without /v1 and add it; a path that ends in its name may be another
    # thing, so that it is asked at the API's root only.
    adds_version: bool = False
    at_root: bool = False
    # Its ids and times can be made anew, and it is stored whole or not at all: what hits and
    # misses alike would be told by.
    can_be_strict: bool = False
    # What is forwarded below it and may be asked twice, by name, and what that is.
    below: Mapping[str, str] = MappingProxyType({})
