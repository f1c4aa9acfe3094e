"""One canonical form for the arguments of a Python call: equal bytes exactly for equal calls.

Plain values (str, int, float, bool, bytes, None, and lists and dicts of them) are MessagePack
with sorted keys; it tells 1, 1.0, True and "1" apart, and str from bytes. Everything else would
look like one of these, so it is wrapped in an extension value, which no plain value can equal:

    Ext(code, MessagePack of the type's name and its parts)

Both give the same bytes for plain values, so the fast path needs no flag in the key.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from pathlib import PurePath
from types import MemberDescriptorType
from typing import Any
from uuid import UUID

import msgspec

__all__ = ("LocalClass", "Serial", "canonical_args", "plain_args")

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_NAMES = frozenset({str})

_TYPED = 1  # a type's name and its parts, in order
_UNORDERED = 2  # a type's name and its parts, sorted by their bytes
_BIG = 3  # an integer beyond 64 bits, as decimal digits
_SURROGATE = 4  # a text with lone surrogates
_FIELDS = 5  # the names of a named tuple's members
_BUILT_IN = frozenset({dict, set, frozenset})  # built in, and not in the table below

Parts = Iterable[Any]
Serial = Callable[[type], int]


class LocalClass(TypeError):
    """A value of a class made inside a function, where only a name could tell its class."""


def canonical_args(
    names: Sequence[str], values: Sequence[Any], serial: Serial | None = None
) -> bytes:
    """Bytes for bound arguments, in the order of the parameters; every type is told apart.

    A type counts by its name. A class that its name does not lead to has it in common with
    others, so it counts by `serial` too, a number that no other class of this process has. Without
    `serial` a class made inside a function raises LocalClass; others count by their names.
    `names` serve the errors only: TypeError naming the argument and `key=` / `ignore=`, for a
    value that has no canonical form.
    """
    try:
        return plain_args(values)
    except (OverflowError, TypeError, UnicodeEncodeError):
        pass  # not plain, a big integer, a name that is no text, a lone surrogate: told apart below
    pairs = zip(names, values, strict=True)
    return _encode([_argument(name, value, serial) for name, value in pairs])


def plain_args(values: Sequence[Any]) -> bytes:
    """`canonical_args` for plain values only; TypeError for all others, without saying which.

    Spelled out for lists of dicts of text, which is what chat messages are: this is most of what
    a hit on a chat function costs.
    """
    for value in values:
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind is not list:
            if not _is_plain(value, 0):
                raise TypeError("not plain")
            continue
        for item in value:
            if type(item) is dict:
                for name, leaf in item.items():
                    if type(name) is not str or (
                        type(leaf) is not str
                        and type(leaf) not in _ATOMS
                        and not _is_plain(leaf, 2)
                    ):
                        raise TypeError("not plain")
            elif type(item) not in _ATOMS and not _is_plain(item, 1):
                raise TypeError("not plain")
    return _encode(values)


def _is_plain(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is dict:
        # A name of a type derived from str would be encoded as if it were a str.
        if not _NAMES.issuperset(map(type, value)):
            return False
        items: Iterable[Any] = value.values()
        if _ATOMS.issuperset(map(type, items)):
            return True
    elif kind is list:
        items = value
    else:
        return False
    if depth > _MAX_DEPTH:
        return False
    for item in items:  # noqa: SIM110 - a generator for `all` costs twice as much
        if type(item) not in _ATOMS and not _is_plain(item, depth + 1):
            return False
    return True


_MAX_DEPTH = 100  # far from Python's own limit, whatever the caller's stack
_encode = msgspec.msgpack.Encoder(order="sorted").encode


def _argument(name: str, value: Any, serial: Serial | None) -> Any:
    try:
        return _tagged(value, 0, serial)
    except _Local as error:
        raise LocalClass(
            f"argument {name!r}: {error} is of a class made inside a function, which a name alone "
            "cannot tell from others made there; define the class in its module, "
            f"leave it out of the key with ignore=[{name!r}], or compute the key with key="
        ) from None
    except _NoForm as error:
        raise TypeError(
            f"argument {name!r}: {error} has no canonical form; "
            f"leave it out of the key with ignore=[{name!r}], or compute the key with key="
        ) from None


class _NoForm(Exception):
    """Carries words for the value that is in the way."""


class _Local(Exception):
    """The same."""


class _Fields(tuple[str, ...]):
    """The names of a named tuple's members. They count: another version of the class may have
    put its members in another order."""

    __slots__ = ()


def _tagged(value: Any, depth: int, serial: Serial | None) -> Any:
    """`value` with everything that is not plain wrapped, ready to encode."""
    if depth > _MAX_DEPTH:
        raise _NoForm(f"a value nested deeper than {_MAX_DEPTH} levels (or within itself)")
    kind = type(value)
    if kind in _ATOMS:
        return _tagged_atom(value)
    if kind is list:
        return [_tagged(item, depth + 1, serial) for item in value]
    if kind is dict and all(type(name) is str for name in value):
        return {
            _tagged_name(name): _tagged(item, depth + 1, serial) for name, item in value.items()
        }
    if kind is dict or kind is set or kind is frozenset:
        loose = value.items() if kind is dict else value
        packed = sorted(_encode(_tagged(part, depth + 1, serial)) for part in loose)
        return _wrap(_UNORDERED, _name_of(kind, serial), packed)
    if kind is _Fields:
        return msgspec.msgpack.Ext(_FIELDS, _encode(value))
    parts_of = _PARTS.get(kind) or _parts_of(value)
    parts = [_tagged(part, depth + 1, serial) for part in parts_of(value)]
    return _wrap(_TYPED, _name_of(kind, serial), parts)


def _tagged_atom(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG, b"%x" % value)
    if type(value) is str and not _is_text(value):
        return msgspec.msgpack.Ext(_SURROGATE, value.encode("utf-8", "surrogatepass"))
    return value


def _tagged_name(name: str) -> str:
    if not _is_text(name):
        raise _NoForm(f"a name with a lone surrogate, {name!a},")
    return name


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrap(code: int, name: str, parts: list[Any]) -> Any:
    return msgspec.msgpack.Ext(code, _encode([name, parts]))


def _name_of(kind: type, serial: Serial | None) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind in _PARTS or kind in _BUILT_IN:
        return name
    if serial is not None:
        return name if _is_found(kind) else f"{name} {serial(kind)}"
    if "<locals>" in name:
        raise _Local(f"a value of type {name}")
    return name


def _is_found(kind: type) -> bool:
    """Whether the name of `kind` leads to it: two classes may share one, as those of factories."""
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


# -- what a value of each type is made of ----------------------------------------------------

_PARTS: dict[type, Callable[[Any], Parts]] = {
    tuple: tuple,
    bytearray: lambda value: (bytes(value),),
    complex: lambda value: (value.real, value.imag),
    deque: lambda value: (value.maxlen, *value),
    OrderedDict: lambda value: [[name, item] for name, item in value.items()],
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    # as_tuple: 1.0 and 1.00 print differently, so a prompt made of them differs.
    Decimal: lambda value: (str(value),),
    Fraction: lambda value: (value.numerator, value.denominator),
    UUID: lambda value: (value.bytes,),
    date: lambda value: (value.isoformat(),),
    # The zone's name besides its offset: one instant prints differently under two names.
    datetime: lambda value: (value.isoformat(), value.fold, str(value.tzinfo)),
    time: lambda value: (value.isoformat(), value.fold, str(value.tzinfo)),
    timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    type(...): lambda value: (),
}


def _parts_of(value: Any) -> Callable[[Any], Parts]:
    """How to take apart a value of a type that is not in the table."""
    kind = type(value)
    if isinstance(value, Enum):
        return lambda member: (member.name, member.value)
    if isinstance(value, PurePath) and not _adds_state(value):
        return lambda path: (str(path),)
    if isinstance(value, msgspec.Struct):
        return _struct_parts
    if dataclasses.is_dataclass(kind) and _is_pure(kind):
        return _dataclass_parts
    if hasattr(kind, "__pydantic_fields_set__"):
        return _pydantic_parts
    if isinstance(value, tuple) and hasattr(kind, "_fields") and not _has_state(value):
        return lambda named: (_Fields(named._fields), *named)
    for base in (str, bytes, int, float):
        if isinstance(value, base) and not _has_state(value):
            return lambda derived, base=base: (_base_value(derived, base),)  # type: ignore[misc]
    raise _NoForm(f"a value of type {kind.__module__}.{kind.__qualname__}")


def _base_value(derived: Any, base: type) -> Any:
    # The base's own conversion: a subclass may override __str__ or __int__.
    return base.__getnewargs__(derived)[0]  # type: ignore[attr-defined]


def _has_state(value: Any) -> bool:
    """Whether instances can carry more than the base type's value."""
    return bool(getattr(value, "__dict__", None)) or any(
        getattr(kind, "__slots__", ()) for kind in type(value).__mro__
    )


def _adds_state(path: PurePath) -> bool:
    """Whether a class derived from pathlib's gives its instances more than the path."""
    derived = [k for k in type(path).__mro__ if k.__module__.partition(".")[0] != "pathlib"]
    return bool(getattr(path, "__dict__", None) or any(map(_slots, derived)))


def _is_pure(kind: type) -> bool:
    """Whether instances hold nothing but attributes: no list, text or exception underneath."""
    try:
        object.__new__(kind)
    except TypeError:
        return False
    return True


def _slots(kind: type) -> set[str]:
    return {name for name, held in vars(kind).items() if isinstance(held, MemberDescriptorType)}


def _further(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """The attributes besides those called `names`; what a property has worked out is none."""
    kind, known = type(value), set(names)
    return {
        name: held
        for name, held in getattr(value, "__dict__", {}).items()
        if name not in known and not isinstance(getattr(kind, name, None), cached_property)
    }


def _refuse_further(value: Any, names: Iterable[str]) -> None:
    for name in _further(value, names):
        raise _NoForm(f"a {type(value).__qualname__} with the undeclared attribute {name!r}")


def _dataclass_parts(value: Any) -> Parts:
    names = [field.name for field in dataclasses.fields(value)]
    _refuse_further(value, names)
    for name in set().union(*map(_slots, type(value).__mro__)) - set(names):
        raise _NoForm(f"a {type(value).__qualname__} with the undeclared slot {name!r}")
    return _set_fields(value, names)


def _struct_parts(value: Any) -> Parts:
    names = value.__struct_fields__
    further = _further(value, names)
    return [*_set_fields(value, names), *([further] if further else [])]


def _set_fields(value: Any, names: Iterable[str]) -> list[Any]:
    # A field that was never set is no None.
    return [[name, getattr(value, name)] for name in names if hasattr(value, name)]


def _pydantic_parts(value: Any) -> Parts:
    # Which fields were set counts: `model_dump(exclude_unset=True)` tells.
    private = getattr(value, "__pydantic_private__", None)
    extra = getattr(value, "__pydantic_extra__", None)
    names = type(value).model_fields
    _refuse_further(value, names)
    fields = {name: vars(value)[name] for name in names if name in vars(value)}
    # The order of the names too: `model_dump_json()` keeps it.
    return (fields, extra, private, sorted(value.model_fields_set), list(names))
