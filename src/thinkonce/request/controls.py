"""What a request says about caching, from three places, parsed once into one struct.

Precedence per field, from first to last:

    body `kv_cache`      ours
    body `cache`         as LiteLLM spells it
    headers              `x-thinkonce-FIELD`, then `Cache-Control` (RFC 9111, RFC 5861)

A prohibition (`enabled: false`, `no-store`) wins from any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple, cast, get_args

import msgspec

from thinkonce.errors import ConfigError, RequestError
from thinkonce.protocols.bounds import encodable
from thinkonce.protocols.splice import add, without
from thinkonce.settings.kv import KvMethod
from thinkonce.ttl_classes import TTL_CLASSES
from thinkonce.units import parse_seconds

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
_PRIORITIES = ("high", "medium", "low", "pinned")
_REUSES: tuple[str, ...] = get_args(KvMethod)
_MAX_TEXT = 1024  # characters of a label or namespace
# Of tags, which a store holds three times: with the answer, and in both orders for purges.
_MAX_TAG = 256  # characters
_MAX_TAGS = 64
_MAX_SHOWN = 80  # characters of an unknown name that an error repeats


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
        for name, value in _object("kv_cache", kv_cache).items():
            if name not in FIELDS:
                raise RequestError(
                    f"kv_cache.{_shown(name)}", value, f"these fields: {_known(FIELDS)}"
                )
            if value is not None:
                self.take_field(name, f"kv_cache.{name}", value)

    def take_litellm(self, cache: Any) -> None:
        for name, value in _object("cache", cache).items():
            if name not in LITELLM_FIELDS:
                raise RequestError(
                    f"cache.{_shown(name)}", value, f"these: {_known(LITELLM_FIELDS)}"
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
            raise RequestError(_shown(header), text, f"one of {known}")
        self.take_field(field, header, _from_text(field, text))

    def take_field(self, name: str, path: str, value: Any) -> None:
        """`path` is how errors call the field."""
        if name == "ttl":
            self.say("ttl", _ttl(path, value, self._ttl_classes))
            return
        parsed = FIELDS[name].parse(path, value)
        if name == "enabled" and not parsed:
            self.forbidden.add("enabled")
        self.say(_RENAMED.get(name, name), parsed)

    def _take_litellm_field(self, name: str, path: str, value: Any) -> None:
        if name in ("ttl", "namespace"):
            self.take_field(name, path, value)
        elif name in ("s-maxage", "s-max-age"):
            self.say("max_age", _seconds(path, value))
        elif name == "no-cache":
            self.say("refresh", _bool(path, value))
        elif name == "no-store" and _bool(path, value):
            self.forbidden.add("store")
        elif name == "use-cache" and not _bool(path, value):
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
                self.say(name.replace("-", "_"), _delta_seconds(path, value))

    def controls(self) -> Controls:
        fields = self.fields
        ttl, ttl_class = fields.pop("ttl", (None, ""))
        if fields.get("override") and not fields.get("label"):
            raise RequestError("key_mode", "override", "it together with a cache_key")
        if fields.get("override") and fields.get("batch_mode"):
            raise RequestError("key_mode", "override", "it without batch_mode, which drops labels")
        enabled = "enabled" not in self.forbidden
        fields["enabled"] = enabled
        return Controls(
            read=enabled and not fields.get("refresh", False),
            store=enabled and "store" not in self.forbidden,
            ttl=ttl,
            ttl_class=ttl_class,
            **fields,
        )


# -- one field ---------------------------------------------------------------------------------


def _object(path: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(path, value, "a JSON object")
    return value


def _known(fields: Iterable[str]) -> str:
    return ", ".join(sorted(fields))


def _shown(name: str) -> str:
    """A name that a client made up, as an error repeats it: text, and not too long."""
    text = name[:_MAX_SHOWN].encode("utf-8", "backslashreplace").decode()
    return text if len(name) <= _MAX_SHOWN else text + "…"


def _bool(path: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(path, value, "true or false")
    return value


def _text(path: str, value: Any, most: int = _MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise RequestError(path, value, f"a string of at most {most} characters")
    if encodable(value) != value:
        raise RequestError(path, value, "text without half a surrogate pair")
    return value


def _tags(path: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_TAGS:
        raise RequestError(path, value, f"a list of at most {_MAX_TAGS} strings")
    return tuple(dict.fromkeys(_text(path, tag, _MAX_TAG) for tag in value))


def _one_of(words: tuple[str, ...]) -> Callable[[str, Any], str]:
    def parse(path: str, value: Any) -> str:
        if value not in words:
            raise RequestError(path, value, " | ".join(words))
        return cast(str, value)

    return parse


def _override(path: str, value: Any) -> bool:
    return _one_of(("label", "override"))(path, value) == "override"


def _semantic(path: str, value: Any) -> bool | float:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise RequestError(path, value, "true, false, or the smallest similarity, 0 to 1")


def _ttl(path: str, value: Any, classes: Collection[str]) -> tuple[float | None, str]:
    if isinstance(value, str) and value in classes:
        return None, value
    return _seconds(path, value, f", or a class: {' | '.join(sorted(classes))}"), ""


def _seconds(path: str, value: Any, or_else: str = "") -> float:
    try:
        return parse_seconds(value, path)
    except ConfigError as error:
        raise RequestError(path, value, error.accepts + or_else) from None


def _delta_seconds(path: str, value: str) -> float:
    digits = value.strip().strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise RequestError(path, value, "whole seconds (RFC 9111, 1.2.2)")
    return float(digits)


def _from_text(field: str, text: str) -> Any:
    """A header's text as the JSON value it stands for."""
    text = text.strip()
    if field == "tags":
        return [tag.strip() for tag in text.split(",") if tag.strip()]
    if field in _BOOLEANS or field == "semantic":
        if text.lower() in ("true", "1", "yes", "on") and not (field == "semantic" and text == "1"):
            return True
        if text.lower() in ("false", "0", "no", "off") and not (
            field == "semantic" and text == "0"
        ):
            return False
    if field == "semantic":
        with suppress(ValueError):
            return float(text)
    return text


class _Field(NamedTuple):
    """`parse` takes the path that errors name, and the value; `schema` is JSON Schema."""

    parse: Callable[[str, Any], Any]
    schema: Mapping[str, Any]
    about: str


def _truth(about: str, default: bool) -> _Field:
    return _Field(_bool, {"type": "boolean", "default": default}, about)


def _written(about: str) -> _Field:
    return _Field(_text, {"type": "string", "maxLength": _MAX_TEXT}, about)


def _word(words: tuple[str, ...], about: str) -> _Field:
    return _Field(_one_of(words), {"enum": list(words)}, about)


# Seconds, or a text such as 90s, 5m, 24h.
SECONDS_SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)?$"},
    ]
}
_BOOLEANS = ("enabled", "context_aware", "batch_mode", "preload", "refresh")
FIELDS: dict[str, _Field] = {
    "enabled": _truth("false: neither read nor stored.", True),
    "cache_key": _written("A label: requests share only where it is the same."),
    "key_mode": _Field(
        _override,
        {"enum": ["label", "override"], "default": "label"},
        "override: the label is the key, within tenant, model and endpoint.",
    ),
    "ttl": _Field(_seconds, SECONDS_SCHEMA, "Life of the stored answer: seconds, or a class."),
    "priority": _word(_PRIORITIES, "Weight when room is needed."),
    "context_aware": _truth(
        "false: system messages, the last user message, parameters and tools alone count.", True
    ),
    "batch_mode": _truth("Labels do not count.", False),
    "preload": _truth("Pinned until its ttl.", False),
    "namespace": _written("For versions and purges; another namespace is another answer."),
    "tags": _Field(
        _tags,
        {
            "type": "array",
            "items": {"type": "string", "maxLength": _MAX_TAG},
            "maxItems": _MAX_TAGS,
        },
        "For purges; they do not count in the key.",
    ),
    "refresh": _truth("Skip the read, store the new answer.", False),
    "semantic": _Field(
        _semantic,
        {"anyOf": [{"type": "boolean"}, {"type": "number", "minimum": 0, "maximum": 1}]},
        "Allow or forbid a hit by meaning; a number: the smallest similarity.",
    ),
    "reuse": _word(_REUSES, "How the engine may reuse attention state."),
}
_RENAMED = {"cache_key": "label", "key_mode": "override"}
LITELLM_FIELDS = frozenset(
    {"ttl", "s-maxage", "s-max-age", "no-cache", "no-store", "namespace", "use-cache"}
)
_DIRECTIVE_SECONDS = frozenset(
    {"max-age", "max-stale", "min-fresh", "stale-if-error", "stale-while-revalidate"}
)
# What of Cache-Control counts.
DIRECTIVES = ("no-cache", "no-store", "only-if-cached", *sorted(_DIRECTIVE_SECONDS))
