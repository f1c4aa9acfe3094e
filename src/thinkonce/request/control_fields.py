"""The fields of `kv_cache`, one by one: what each accepts, and how an error calls it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, cast, get_args

import msgspec

from thinkonce.errors import ConfigError, RequestError
from thinkonce.protocols.bounds import encodable
from thinkonce.settings.kv import KvMethod
from thinkonce.units import parse_seconds

__all__ = (
    "FIELDS",
    "SECONDS_SCHEMA",
    "ControlField",
    "delta_seconds",
    "from_text",
    "listed",
    "object_in",
    "seconds_in",
    "shown",
    "truth",
    "ttl_in",
)

_PRIORITIES = ("high", "medium", "low", "pinned")
_REUSES: tuple[str, ...] = get_args(KvMethod)
_MAX_TEXT = 1024  # characters of a label or namespace
# Of tags, which a store holds three times: with the answer, and in both orders for purges.
_MAX_TAG = 256  # characters
_MAX_TAGS = 64
_MAX_ARGUMENT = 1 << 20  # characters; the schema bounds its tokens
_MAX_PARTS = 1024  # modules and arguments of a schema
_MAX_SHOWN = 80  # characters of an unknown name that an error repeats


def object_in(path: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(path, value, "a JSON object")
    return value


def listed(fields: Iterable[str]) -> str:
    return ", ".join(sorted(fields))


def shown(name: str) -> str:
    """A name that a client made up, as an error repeats it: text, and not too long."""
    text = name[:_MAX_SHOWN].encode("utf-8", "backslashreplace").decode()
    return text if len(name) <= _MAX_SHOWN else text + "…"


def truth(path: str, value: Any) -> bool:
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


def _modules(path: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_PARTS:
        raise RequestError(path, value, f"a list of at most {_MAX_PARTS} strings")
    return tuple(_text(path, name) for name in value)


def _arguments(path: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > _MAX_PARTS:
        raise RequestError(path, value, f"an object of at most {_MAX_PARTS} texts")
    return tuple(
        (_text(path, name), _text(path, text, _MAX_ARGUMENT)) for name, text in value.items()
    )


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


def ttl_in(path: str, value: Any, classes: Collection[str]) -> tuple[float | None, str]:
    if isinstance(value, str) and value in classes:
        return None, value
    return seconds_in(path, value, f", or a class: {' | '.join(sorted(classes))}"), ""


def seconds_in(path: str, value: Any, or_else: str = "") -> float:
    try:
        return parse_seconds(value, path)
    except ConfigError as error:
        raise RequestError(path, value, error.accepts + or_else) from None


def delta_seconds(path: str, value: str) -> float:
    digits = value.strip().strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise RequestError(path, value, "whole seconds (RFC 9111, 1.2.2)")
    return float(digits)


def from_text(field: str, text: str) -> Any:
    """A header's text as the JSON value it stands for."""
    text = text.strip()
    if field == "arguments":
        with suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(text)
    if field in ("tags", "modules"):
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


class ControlField(NamedTuple):
    """`parse` takes the path that errors name, and the value; `schema` is JSON Schema."""

    parse: Callable[[str, Any], Any]
    schema: Mapping[str, Any]
    about: str


def _switch(about: str, default: bool) -> ControlField:
    return ControlField(truth, {"type": "boolean", "default": default}, about)


def _written(about: str) -> ControlField:
    return ControlField(_text, {"type": "string", "maxLength": _MAX_TEXT}, about)


def _word(words: tuple[str, ...], about: str) -> ControlField:
    return ControlField(_one_of(words), {"enum": list(words)}, about)


# Seconds, or a text such as 90s, 5m, 24h.
SECONDS_SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)?$"},
    ]
}
_BOOLEANS = ("enabled", "context_aware", "batch_mode", "preload", "refresh")
FIELDS: dict[str, ControlField] = {
    "enabled": _switch("false: neither read nor stored.", True),
    "cache_key": _written("A label: requests share only where it is the same."),
    "key_mode": ControlField(
        _override,
        {"enum": ["label", "override"], "default": "label"},
        "override: the label is the key, within tenant, model and endpoint.",
    ),
    "ttl": ControlField(
        seconds_in, SECONDS_SCHEMA, "Life of the stored answer: seconds, or a class."
    ),
    "priority": _word(_PRIORITIES, "Weight when room is needed."),
    "context_aware": _switch(
        "false: system messages, the last user message, parameters and tools alone count.", True
    ),
    "batch_mode": _switch("Labels do not count.", False),
    "preload": _switch("Pinned until its ttl.", False),
    "namespace": _written("For versions and purges; another namespace is another answer."),
    "tags": ControlField(
        _tags,
        {
            "type": "array",
            "items": {"type": "string", "maxLength": _MAX_TAG},
            "maxItems": _MAX_TAGS,
        },
        "For purges; they do not count in the key.",
    ),
    "refresh": _switch("Skip the read, store the new answer.", False),
    "semantic": ControlField(
        _semantic,
        {"anyOf": [{"type": "boolean"}, {"type": "number", "minimum": 0, "maximum": 1}]},
        "Allow or forbid a hit by meaning; a number: the smallest similarity.",
    ),
    "reuse": _word(_REUSES, "How the engine may reuse attention state."),
    "schema": _written("Our own engine puts the prompt together from a schema that it knows."),
    "modules": ControlField(
        _modules,
        {"type": "array", "items": {"type": "string"}, "maxItems": _MAX_PARTS},
        "What the prompt takes of the schema.",
    ),
    "arguments": ControlField(
        _arguments,
        {"type": "object", "additionalProperties": {"type": "string"}},
        "Texts of the parameters of what it takes.",
    ),
}
