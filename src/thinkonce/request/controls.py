"""What a request says about caching, from three places, parsed once into one struct.

Precedence per field, from first to last:

    body `kv_cache`      ours
    body `cache`         as LiteLLM spells it
    headers              `x-thinkonce-FIELD`, then `Cache-Control` (RFC 9111, RFC 5861)

A prohibition (`enabled: false`, `no-store`) wins from any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.protocols.splice import add, without
from thinkonce.request.control_fields import (
    FIELDS,
    SECONDS_SCHEMA,
    delta_seconds,
    from_text,
    listed,
    object_in,
    seconds_in,
    shown,
    truth,
    ttl_in,
)
from thinkonce.ttl_classes import TTL_CLASSES

__all__ = (
    "DEFAULTS",
    "DIRECTIVES",
    "FIELDS",
    "LITELLM_FIELDS",
    "SECONDS_SCHEMA",
    "Controls",
    "parse_controls",
    "strip_controls",
)


class Controls(msgspec.Struct, frozen=True, gc=False):
    """None and "" mean "not said". Times are in seconds; 0 is a value like any other."""

    enabled: bool = True  # False: neither read nor stored
    read: bool = True  # False: `enabled: false`, `refresh`, `no-cache`
    store: bool = True  # False: `enabled: false`, `no-store`
    ttl: float | None = None
    ttl_class: str = ""  # in place of `ttl`
    priority: str = ""  # high | medium | low | pinned
    label: str = ""  # `cache_key`
    override: bool = False  # `key_mode: "override"`: the label is the key
    context_aware: bool = True
    batch_mode: bool = False
    preload: bool = False
    namespace: str = ""
    tags: tuple[str, ...] = ()
    refresh: bool = False
    semantic: bool | float | None = None
    reuse: str = ""
    schema: str = ""  # of our own engine; what it says lies there
    modules: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    max_age: float | None = None
    max_stale: float | None = None  # inf: however stale
    min_fresh: float | None = None
    only_if_cached: bool = False
    stale_if_error: float | None = None
    stale_while_revalidate: float | None = None


DEFAULTS = Controls()

_PREFIX = b"x-thinkonce-"
_CACHE_CONTROL = b"cache-control"
# Headers of ours that say who asks, not how to cache.
_OTHER_HEADERS = frozenset({"admin-token", "tenant", "client-authorization", "engine-secret"})


def parse_controls(
    kv_cache: Any,
    cache: Any,
    headers: Sequence[tuple[bytes, bytes]],
    ttl_classes: Collection[str] = TTL_CLASSES,
) -> Controls:
    """`kv_cache` and `cache` as found in the body (None: absent); header names in lower case.

    Raises RequestError naming the field, and for an unknown one all known ones.
    """
    # One search over all names, because most requests carry no control at all.
    names = b"\n".join([name for name, _ in headers])
    some = _PREFIX in names or _CACHE_CONTROL in names
    if not some and kv_cache is None and cache is None:
        return DEFAULTS
    ours = [pair for pair in headers if pair[0].startswith(_PREFIX) or pair[0] == _CACHE_CONTROL]
    said = _Said(ttl_classes)
    said.take_fields(kv_cache)
    said.take_litellm(cache)
    for name, value in ours:
        if name != _CACHE_CONTROL:
            said.take_header(name.decode("latin-1"), _header_text(value))
    for name, value in ours:
        if name == _CACHE_CONTROL:
            said.take_cache_control(_header_text(value))
    return said.controls()


def strip_controls(raw: bytes, body: dict[str, Any], keep: bytes = b"") -> bytes:
    """The request's bytes without `kv_cache` and `cache`; every other member byte for byte.

    `keep` is the JSON of a `kv_cache` to put in their place, for our own engine.
    """
    if "kv_cache" in body or "cache" in body:
        raw = without(raw, ("kv_cache", "cache"))
    return add(raw, b'"kv_cache":' + keep) if keep else raw


def _header_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class _Said:
    """Collects fields from the strongest source to the weakest; the first to speak wins."""

    def __init__(self, ttl_classes: Collection[str]) -> None:
        self.fields: dict[str, Any] = {}
        self.forbidden: set[str] = set()  # "enabled", "store"
        self._ttl_classes = ttl_classes

    def say(self, field: str, value: Any) -> None:
        self.fields.setdefault(field, value)

    def take_fields(self, kv_cache: Any) -> None:
        for name, value in object_in("kv_cache", kv_cache).items():
            if name not in FIELDS:
                raise RequestError(
                    f"kv_cache.{shown(name)}", value, f"these fields: {listed(FIELDS)}"
                )
            if value is not None:
                self.take_field(name, f"kv_cache.{name}", value)

    def take_litellm(self, cache: Any) -> None:
        for name, value in object_in("cache", cache).items():
            if name not in LITELLM_FIELDS:
                raise RequestError(
                    f"cache.{shown(name)}", value, f"these: {listed(LITELLM_FIELDS)}"
                )
            if value is not None:
                self._take_litellm_field(name, f"cache.{name}", value)

    def take_header(self, header: str, text: str) -> None:
        name = header.removeprefix("x-thinkonce-")
        if name in _OTHER_HEADERS:
            return
        field = name.replace("-", "_")
        if field not in FIELDS:
            known = ", ".join(f"x-thinkonce-{each.replace('_', '-')}" for each in sorted(FIELDS))
            raise RequestError(shown(header), text, f"one of {known}")
        self.take_field(field, header, from_text(field, text))

    def take_field(self, name: str, path: str, value: Any) -> None:
        """`path` is how errors call the field."""
        if name == "ttl":
            self.say("ttl", ttl_in(path, value, self._ttl_classes))
            return
        parsed = FIELDS[name].parse(path, value)
        if name == "enabled" and not parsed:
            self.forbidden.add("enabled")
        self.say(_RENAMED.get(name, name), parsed)

    def _take_litellm_field(self, name: str, path: str, value: Any) -> None:
        if name in ("ttl", "namespace"):
            self.take_field(name, path, value)
        elif name in ("s-maxage", "s-max-age"):
            self.say("max_age", seconds_in(path, value))
        elif name == "no-cache":
            self.say("refresh", truth(path, value))
        elif name == "no-store" and truth(path, value):
            self.forbidden.add("store")
        elif name == "use-cache" and not truth(path, value):
            self.forbidden.add("enabled")

    def take_cache_control(self, text: str) -> None:
        for directive in text.split(","):
            name, _, value = directive.strip().lower().partition("=")
            path = f"cache-control {name}"
            if name == "no-cache":
                self.say("refresh", True)
            elif name == "no-store":
                self.forbidden.add("store")
            elif name == "only-if-cached":
                self.say("only_if_cached", True)
            elif name == "max-stale" and not value:
                self.say("max_stale", inf)
            elif name in _DIRECTIVE_SECONDS:
                self.say(name.replace("-", "_"), delta_seconds(path, value))

    def controls(self) -> Controls:
        fields = self.fields
        ttl, ttl_class = fields.pop("ttl", (None, ""))
        if fields.get("override") and not fields.get("label"):
            raise RequestError("key_mode", "override", "it together with a cache_key")
        if fields.get("override") and fields.get("batch_mode"):
            raise RequestError("key_mode", "override", "it without batch_mode, which drops labels")
        if not fields.get("schema"):
            for name in ("modules", "arguments"):
                if fields.get(name):
                    raise RequestError(f"kv_cache.{name}", fields[name], "it beside a schema")
        enabled = "enabled" not in self.forbidden
        fields["enabled"] = enabled
        return Controls(
            read=enabled and not fields.get("refresh", False),
            store=enabled and "store" not in self.forbidden,
            ttl=ttl,
            ttl_class=ttl_class,
            **fields,
        )


_RENAMED = {"cache_key": "label", "key_mode": "override"}
LITELLM_FIELDS = frozenset(
    {"ttl", "s-maxage", "s-max-age", "no-cache", "no-store", "namespace", "use-cache"}
)
_DIRECTIVE_SECONDS = frozenset(
    {"max-age", "max-stale", "min-fresh", "stale-if-error", "stale-while-revalidate"}
)
# What of Cache-Control counts.
DIRECTIVES = ("no-cache", "no-store", "only-if-cached", *sorted(_DIRECTIVE_SECONDS))
