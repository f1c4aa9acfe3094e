"""One value, as somebody wrote it, read as the type its field declares."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.units import parse_bytes, parse_seconds

__all__ = ("Field", "fields_of", "read_value")

_WORDS_FOR_BOOL = {"yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Field:
    """What a section says about one of its fields. `unit`: "", "seconds", "bytes" or "ttl"."""

    name: str
    type: Any
    doc: str
    accepts: str
    unit: str
    least: float | None
    most: float | None
    secret: bool
    fixed: bool

    @property
    def may_be_none(self) -> bool:
        return NoneType in get_args(self.type)


def fields_of(section: type[msgspec.Struct]) -> dict[str, Field]:
    """The described fields of `section`, in the order of their definition."""
    hints = get_type_hints(section, include_extras=True)
    return {
        name: _field(name, hint) for name, hint in hints.items() if hasattr(hint, "__metadata__")
    }


def _field(name: str, hint: Any) -> Field:
    (meta,) = hint.__metadata__
    extra: dict[str, Any] = meta.extra
    return Field(
        name=name,
        type=hint.__origin__,
        doc=meta.description,
        accepts=extra["accepts"],
        unit=extra.get("unit", ""),
        least=extra.get("least"),
        most=extra.get("most"),
        secret=bool(extra.get("secret", False)),
        fixed=bool(extra.get("fixed", False)),
    )


def read_value(field: Field, written: str, value: object, classes: Collection[str]) -> object:
    """`value` as `field` declares it.

    `written` is the setting as its writer knows it (`[gateway] port`, `THINKONCE_GATEWAY_PORT`)
    and `classes` are the names a life may have. Raises ConfigError.
    """
    if field.may_be_none and (value is None or str(value).lower() == "none"):
        return None
    try:
        read = _as_type(field, value, classes)
    except (ConfigError, msgspec.ValidationError, ValueError):
        shown = "***" if field.secret else value
        raise ConfigError(written, shown, _accepts(field, classes)) from None
    if isinstance(read, int | float) and not _within(field, read):
        raise ConfigError(written, value, _accepts(field, classes))
    return read


def _as_type(field: Field, value: object, classes: Collection[str]) -> object:
    match field.unit:
        case "bytes":
            return parse_bytes(value)
        case "seconds":
            return parse_seconds(value)
        case "ttl":
            return value if value in classes else parse_seconds(value)
    if isinstance(value, str) and field.type is bool:
        value = _WORDS_FOR_BOOL.get(value.lower(), value)
    if isinstance(value, str) and field.type == list[str]:
        value = [part.strip() for part in value.split(",") if part.strip()]
    return msgspec.convert(value, field.type, strict=not isinstance(value, str))


def _within(field: Field, number: float) -> bool:
    return (field.least is None or number >= field.least) and (
        field.most is None or number <= field.most
    )


def _accepts(field: Field, classes: Collection[str]) -> str:
    if field.unit == "ttl":
        return f"{field.accepts} ({', '.join(classes)})"
    if field.unit and field.least is not None:
        return f"{field.accepts}, at least {field.least:g}"
    return field.accepts
