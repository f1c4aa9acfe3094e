"""Types that msgpack does not have, as extension values: how they are lowered and raised.

    code   holds                                      code   holds
    1      integer beyond 64 bits                     10     timezone: offset, name
    2      str with lone surrogates                   11     ZoneInfo key
    3      tuple                                      12     Decimal
    4      set                                        13     UUID
    5      frozenset                                  14     enum member: class, name or value
    6      dict as pairs, for keys that are not str   15     named tuple: class, items
    7      complex                                    16     dataclass: class, fields, rest
    8      date, time or datetime: kind, text, fold   17     Struct: class, fields, rest
    9      timedelta: days, seconds, microseconds     18     pydantic model: class, fields, rest
                                                      19     msgspec.UNSET
    127    around a whole value that names classes

`rest` is whatever an instance carries besides its fields (cached properties, private attributes).
Neither `__init__` nor validation runs again; a Struct's `__post_init__` does, and its effect on
the fields is undone.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from importlib import import_module
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from thinkonce.errors import CorruptEntry

__all__ = ("NAMED", "Lowering", "raised")

NAMED = 127
(
    WIDE_INT, SURROGATES, TUPLE, SET, FROZENSET, PAIRS, COMPLEX, MOMENT, SPAN, OFFSET, ZONE,
    DECIMAL, UUID, ENUM, NAMED_TUPLE, DATACLASS, STRUCT, MODEL, UNSET,
) = range(1, 20)  # fmt: skip

_MOMENTS: dict[str, Any] = {"d": dt.date, "t": dt.time, "dt": dt.datetime}
_KIND_OF_MOMENT = {kind: name for name, kind in _MOMENTS.items()}
_EMPTY: dict[str, Any] = {}


class Lowering:
    """One walk that replaces what msgpack cannot hold. `named` tells whether it met classes."""

    __slots__ = ("_pack", "named")

    def __init__(self, pack: Callable[[Any], bytes]) -> None:
        self._pack = pack
        self.named = False

    def lower(self, value: Any, levels: int) -> Any:
        """Raises TypeError naming what cannot be encoded, or that it is nested too deeply."""
        if levels < 0:
            raise TypeError("a value nested this deeply, or within itself, cannot be encoded")
        kind = type(value)
        lower = _LOWER.get(kind)
        return self._instance(kind, value, levels) if lower is None else lower(self, value, levels)

    def ext(self, code: int, held: Any) -> Ext:
        return Ext(code, self._pack(held))

    def items(self, values: Any, levels: int) -> list[Any]:
        return [self.lower(value, levels - 1) for value in values]

    def dict(self, value: dict[Any, Any], levels: int) -> Any:
        if all(type(key) is str for key in value):
            try:
                return {sound(key): self.lower(item, levels - 1) for key, item in value.items()}
            except UnicodeEncodeError:
                pass
        return self.ext(PAIRS, [self.items(pair, levels) for pair in value.items()])

    def _instance(self, kind: type, value: Any, levels: int) -> Ext:
        if isinstance(value, enum.Enum):
            return self.ext(ENUM, self._enum(kind, value, levels))
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            if getattr(value, "__dict__", None):
                raise unencodable(kind)
            return self.ext(NAMED_TUPLE, [self._name(kind), self.items(value, levels)])
        code = code_of(kind)
        fields, rest = PARTS[code](kind, value)
        held = [self._name(kind), self.dict(fields, levels)]
        return self.ext(code, [*held, self.dict(rest, levels)] if rest else held)

    def _enum(self, kind: type, value: enum.Enum, levels: int) -> list[Any]:
        # Combined flags have no name of their own, or one that only a flag's value finds again.
        if value.name in kind.__members__:  # type: ignore[attr-defined]
            return [self._name(kind), value.name]
        return [self._name(kind), None, self.lower(value.value, levels - 1)]

    def _name(self, kind: type) -> str:
        self.named = True
        name = f"{kind.__module__}:{kind.__qualname__}"
        try:
            found = resolved(name)
        except (AttributeError, ImportError, ValueError):
            found = None
        if found is not kind:
            raise unencodable(kind, "cannot be imported under its own name")
        return name


def unencodable(kind: type, why: str = "is not a type that can be encoded") -> TypeError:
    return TypeError(
        f"{kind.__module__}.{kind.__qualname__} {why}, so a store cannot keep it; "
        "give serializer= with dumps and loads, or return built-in types, dataclasses, "
        "msgspec Structs or pydantic models"
    )


def resolved(name: str) -> Any:
    """The object called "module:qualname". Raises ImportError, AttributeError or ValueError."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module) or import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def sound(text: str) -> str:
    """`text` if UTF-8 can hold it; raises UnicodeEncodeError."""
    if not text.isascii():
        text.encode()
    return text


# -- built-in types ----------------------------------------------------------------------


def _lower_str(self: Lowering, value: str, _levels: int) -> Any:
    try:
        return sound(value)
    except UnicodeEncodeError:
        return Ext(SURROGATES, value.encode("utf-8", "surrogatepass"))


def _lower_int(self: Lowering, value: int, _levels: int) -> Any:
    if -(1 << 63) <= value < 1 << 64:
        return value
    return Ext(WIDE_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _lower_moment(self: Lowering, value: Any, levels: int) -> Ext:
    zone = getattr(value, "tzinfo", None)
    naive = value.replace(tzinfo=None) if zone is not None else value
    held = [_KIND_OF_MOMENT[type(value)], naive.isoformat(), getattr(value, "fold", 0)]
    return self.ext(MOMENT, held if zone is None else [*held, self.lower(zone, levels - 1)])


def _lower_zone(self: Lowering, value: zoneinfo.ZoneInfo, _levels: int) -> Ext:
    if value.key is None:
        raise unencodable(type(value), "without a key is not known elsewhere")
    return self.ext(ZONE, value.key)


_LOWER: dict[type, Callable[[Lowering, Any, int], Any]] = {
    **dict.fromkeys((bool, float, bytes, type(None)), lambda self, value, levels: value),
    str: _lower_str,
    int: _lower_int,
    list: Lowering.items,
    dict: Lowering.dict,
    tuple: lambda self, value, levels: self.ext(TUPLE, self.items(value, levels)),
    set: lambda self, value, levels: self.ext(SET, self.items(value, levels)),
    frozenset: lambda self, value, levels: self.ext(FROZENSET, self.items(value, levels)),
    complex: lambda self, value, levels: self.ext(COMPLEX, [value.real, value.imag]),
    **dict.fromkeys(_KIND_OF_MOMENT, _lower_moment),
    dt.timedelta: lambda self, value, levels: self.ext(
        SPAN, [value.days, value.seconds, value.microseconds]
    ),
    dt.timezone: lambda self, value, levels: self.ext(
        OFFSET, self.items(value.__getinitargs__(), levels)
    ),
    zoneinfo.ZoneInfo: _lower_zone,
    Decimal: lambda self, value, levels: self.ext(DECIMAL, str(value)),
    uuid.UUID: lambda self, value, levels: Ext(UUID, value.bytes),
    msgspec.UnsetType: lambda self, value, levels: Ext(UNSET, b""),
}


# -- classes with fields -----------------------------------------------------------------


Parts = tuple[dict[str, Any], dict[str, Any]]  # fields, rest


def code_of(kind: type) -> int:
    if issubclass(kind, msgspec.Struct):
        return STRUCT
    if is_model(kind):
        return MODEL
    if "__dataclass_fields__" in kind.__dict__ and is_pure(kind):
        return DATACLASS
    raise unencodable(kind)


def is_model(kind: type) -> bool:
    pydantic = sys.modules.get("pydantic")  # nobody holds a model who has not imported it
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def is_pure(kind: type) -> bool:
    """Whether instances hold nothing but attributes: no dict, list or exception underneath."""
    try:
        object.__new__(kind)
    except TypeError:
        return False
    return True


def dataclass_parts(kind: type, value: Any) -> Parts:
    names = [field.name for field in dataclasses.fields(kind)]
    rest = dict(getattr(value, "__dict__", _EMPTY))
    fields: dict[str, Any] = {}
    for name in names:
        try:
            fields[name] = rest.pop(name) if name in rest else getattr(value, name)
        except AttributeError:
            raise unencodable(kind, f"has an instance without its field {name!r}") from None
    if extra_slots(kind, names):
        raise unencodable(kind, "has slots that are not fields")
    return fields, rest


def extra_slots(kind: type, names: list[str]) -> set[str]:
    slots: set[str] = set()
    for base in kind.__mro__:
        own = base.__dict__.get("__slots__", ())
        slots.update((own,) if isinstance(own, str) else own)
    return slots - {*names, "__dict__", "__weakref__"}


def struct_parts(kind: Any, value: Any) -> Parts:
    fields = {name: getattr(value, name) for name in kind.__struct_fields__}
    return fields, dict(getattr(value, "__dict__", _EMPTY))


def model_parts(kind: Any, value: Any) -> Parts:
    state = value.__getstate__()
    held = dict(state["__dict__"])
    if not kind.model_fields.keys() <= held.keys():
        raise unencodable(kind, "has an instance without some of its fields")
    fields = {name: held.pop(name) for name in kind.model_fields}
    return fields, {
        "held": held,
        "extra": state["__pydantic_extra__"],
        "set": state["__pydantic_fields_set__"],
        "private": state["__pydantic_private__"],
    }


PARTS: dict[int, Callable[[Any, Any], Parts]] = {
    DATACLASS: dataclass_parts,
    STRUCT: struct_parts,
    MODEL: model_parts,
}


# -- and back ----------------------------------------------------------------------------


def raised(code: int, data: memoryview, unpack: Callable[[memoryview], Any]) -> Any:
    """The value behind extension `code`. Raises CorruptEntry, or what a lost class causes."""
    match code:
        case 1:  # WIDE_INT
            return int.from_bytes(data, "big", signed=True)
        case 2:  # SURROGATES
            return bytes(data).decode("utf-8", "surrogatepass")
        case 13:  # UUID
            return uuid.UUID(bytes=bytes(data))
        case 19:  # UNSET
            return msgspec.UNSET
        case 127:  # NAMED
            return unpack(data)
    raise_from = _RAISE.get(code)
    if raise_from is None:
        raise CorruptEntry("values", f"rebuilding the unknown kind {code}")
    return raise_from(unpack(data))


def known(name: str, expected: Callable[[type], bool]) -> Any:
    """The class called `name`, if it still is what the stored bytes say it was."""
    kind = resolved(name)
    if not isinstance(kind, type) or not expected(kind):
        raise CorruptEntry("values", f"rebuilding {name}, which is another kind of thing now")
    return kind


def same_fields(name: str, now: Any, stored: dict[str, Any]) -> None:
    if set(now) != stored.keys():
        raise CorruptEntry("values", f"rebuilding {name}, whose fields have changed")


def raise_moment(held: list[Any]) -> Any:
    kind, text, fold, *zone = held
    value = _MOMENTS[kind].fromisoformat(text)
    if zone:
        value = value.replace(tzinfo=zone[0])
    return value.replace(fold=fold) if fold else value


def raise_enum(held: list[Any]) -> Any:
    name, member, *value = held
    kind = known(name, lambda kind: issubclass(kind, enum.Enum))
    return kind(value[0]) if value else kind[member]


def raise_named_tuple(held: list[Any]) -> Any:
    name, items = held
    kind = known(name, lambda kind: issubclass(kind, tuple) and hasattr(kind, "_fields"))
    if len(kind._fields) != len(items):
        raise CorruptEntry("values", f"rebuilding {name}, whose fields have changed")
    return tuple.__new__(kind, items)


def raise_dataclass(held: list[Any]) -> Any:
    name, fields, *rest = held
    kind = known(name, lambda kind: dataclasses.is_dataclass(kind))
    same_fields(name, (field.name for field in dataclasses.fields(kind)), fields)
    value = object.__new__(kind)
    for key, item in fields.items():
        object.__setattr__(value, key, item)  # frozen classes refuse the ordinary way
    if rest:
        value.__dict__.update(rest[0])
    return value


def raise_struct(held: list[Any]) -> Any:
    name, fields, *rest = held
    kind = known(name, lambda kind: issubclass(kind, msgspec.Struct))
    same_fields(name, kind.__struct_fields__, fields)
    value = kind(**fields)
    if hasattr(kind, "__post_init__"):
        for key, item in fields.items():
            msgspec.structs.force_setattr(value, key, item)
    if rest:
        value.__dict__.update(rest[0])
    return value


def raise_model(held: list[Any]) -> Any:
    name, fields, rest = held
    kind = known(name, is_model)
    same_fields(name, kind.model_fields, fields)
    value = kind.__new__(kind)
    value.__setstate__(
        {
            "__dict__": fields | rest["held"],
            "__pydantic_extra__": rest["extra"],
            "__pydantic_fields_set__": rest["set"],
            "__pydantic_private__": rest["private"],
        }
    )
    return value


_RAISE: dict[int, Callable[[Any], Any]] = {
    TUPLE: tuple,
    SET: set,
    FROZENSET: frozenset,
    PAIRS: dict,
    COMPLEX: lambda parts: complex(*parts),
    MOMENT: raise_moment,
    SPAN: lambda parts: dt.timedelta(*parts),
    OFFSET: lambda parts: dt.timezone(*parts),
    ZONE: zoneinfo.ZoneInfo,
    DECIMAL: Decimal,
    ENUM: raise_enum,
    NAMED_TUPLE: raise_named_tuple,
    DATACLASS: raise_dataclass,
    STRUCT: raise_struct,
    MODEL: raise_model,
}
