"""What a body has wrong, in words for whoever wrote it: the field, the value it has, what works.

msgspec: "Expected `array | null`, got `str` - at `$.tags`"
     │
     ▼
kv_cache.tags: got 'v1'; it accepts array | null
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from thinkonce.errors import RequestError

__all__ = ("decoded", "object_in", "wrong_in")

_NO_WORDS: Mapping[str, str] = MappingProxyType({})
_SHOWN = 100  # characters of a value
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def decoded(body: bytes, kind: type[_Kind]) -> _Kind:
    """A JSON object as `kind` has it. Raises RequestError."""
    raw = object_in(body, f" with {', '.join(kind.__struct_fields__)}")
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as wrong:
        raise wrong_in(raw, wrong, kind) from wrong


def object_in(body: bytes, more: str = "") -> dict[str, Any]:
    """`more`: what the object may have, for whoever sent none. Raises RequestError."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise RequestError("body", f"{len(body)} bytes", f"JSON{more} ({broken})") from broken
    if not isinstance(raw, dict):
        raise RequestError("body", raw, f"a JSON object{more}")
    return raw


def wrong_in(
    raw: object,
    wrong: msgspec.ValidationError,
    kind: type[msgspec.Struct],
    at: str = "",
    words: Mapping[str, str] = _NO_WORDS,
) -> RequestError:
    """What `wrong` says of `raw`, which is no `kind`. `at`: where in the body `raw` stands; ""
    for all of it. `words`: what fields accept, where the type does not say it well.
    """
    expected, _, path = str(wrong).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", expected):
        accepts = f"one of {', '.join(kind.__struct_fields__)}"
        return RequestError(_joined(at, unknown[1]), _value_at(raw, unknown[1]), accepts)
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", expected):
        return RequestError(_joined(at, missing[1]), None, "a value; it is required")
    accepts = re.sub(r"^Expected |, got .*$", "", expected.replace("`", ""))
    told = words.get(field, accepts)
    return RequestError(_joined(at, field) or "body", _value_at(raw, field), told)


def _joined(at: str, field: str) -> str:
    return f"{at}.{field}" if at and field else at or field


def _value_at(raw: Any, field: str) -> Any:
    """What the client wrote at `field`, as far as the path names single values."""
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", field):
        try:
            raw = raw[name] if name else raw[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    text = repr(raw)
    return raw if len(text) <= _SHOWN else text[:_SHOWN] + "..."
