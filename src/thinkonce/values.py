"""How a Python value is kept so that no caller can change what the next one gets.

    PLAIN     str bytes int float complex bool None, and tuples of them: handed out as they are
    ENCODED   msgpack bytes, decoded anew for every caller, with exactly the types it had
    COPIED    anything else: deep-copied on the way in and for every caller; memory only

ENCODED takes the built-in containers, dates, decimals, UUIDs, enums, named tuples, dataclasses,
msgspec Structs and pydantic models. Types are compared exactly: an instance of a subclass is
never turned into its base class. Two places that hold one object hold two equal ones afterwards.
Plain JSON-like data takes a fast path: a 2 KB dict is rebuilt in about a microsecond.

There is no pickle. A class is stored as "module:qualname" and looked up when a value is rebuilt;
one that is gone or has other fields makes the bytes a CorruptEntry, hence a miss.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Protocol

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from thinkonce.entry import Entry, Form
from thinkonce.errors import CorruptEntry
from thinkonce.typed import NAMED, Lowering, raised

__all__ = (
    "Kept",
    "Serializer",
    "Unkeepable",
    "encode",
    "keep",
    "keep_stream",
    "mentions_classes",
    "persistable",
    "revive",
    "thaw",
    "thaw_with",
    "unopened",
)

DEEPEST = 100  # levels; deeper values are copied instead: the decoder recurses on the C stack
FOREIGN = 126  # the code around bytes a serializer of the user made

_LEAVES = frozenset({str, bytes, int, float, complex, bool, type(None)})
_JSON_LEAVES = frozenset({str, bytes, int, float, bool, type(None)})
_EXT_HEADERS = {0xC7: 2, 0xC8: 3, 0xC9: 5} | dict.fromkeys(range(0xD4, 0xD9), 1)
_EXT_FIRST = frozenset(bytes([header]) for header in _EXT_HEADERS)
_MOST_COUNTED = 10_000  # objects; the size of a copied value beyond that is an estimate


class Serializer(Protocol):
    """How a user brings values of their own into a store. `loads(dumps(x))` stands for `x`."""

    def dumps(self, value: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


class Unkeepable(TypeError):
    """A value that can neither be encoded nor copied, so that it has one holder only."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A value, ready to become an entry: the four fields of the same names in `Entry`."""

    form: int
    payload: Any
    thaw: Callable[[Any], Any] | None
    size: int  # bytes


def keep(value: Any, serializer: Serializer | None = None) -> Kept:
    """Take `value` into keeping; the caller may change it afterwards.

    Raises Unkeepable for a value that can neither be encoded nor copied (a lock, a socket).
    """
    if serializer is not None:
        payload = _pack(Ext(FOREIGN, serializer.dumps(value)))
        return Kept(Form.ENCODED, payload, thaw_with(serializer), len(payload))
    if _is_plain(value, DEEPEST):
        return Kept(Form.PLAIN, value, None, _plain_size(value))
    return _encoded_or_copied(Form.ENCODED, value)


def keep_stream(items: Sequence[Any], serializer: Serializer | None = None) -> Kept:
    """Take the items a generator yielded into keeping; thawing gives a list of them."""
    if serializer is not None:
        payload = _pack([Ext(FOREIGN, serializer.dumps(item)) for item in items])
        return Kept(Form.STREAM, payload, thaw_with(serializer), len(payload))
    return _encoded_or_copied(Form.STREAM, list(items))


def encode(value: Any) -> bytes:
    """`value` as bytes for `thaw`. Raises TypeError naming the type that cannot be encoded."""
    if _is_json(value, DEEPEST):
        try:
            return _pack(value)
        except (OverflowError, UnicodeEncodeError):
            pass  # an integer beyond 64 bits, or a lone surrogate: the long way keeps them
    lowering = Lowering(_pack)
    packed = _pack(lowering.lower(value, DEEPEST))
    return _pack(Ext(NAMED, packed)) if lowering.named else packed


def thaw(payload: bytes) -> Any:
    """A new value from what `encode` gave. Raises CorruptEntry."""
    try:
        return _unpack(payload)
    except (CorruptEntry, MemoryError, RecursionError):
        raise
    except Exception as error:  # whatever the constructor of somebody's class raises
        raise CorruptEntry("values", f"rebuilding a value: {error!r}") from error


def thaw_with(serializer: Serializer) -> Callable[[bytes], Any]:
    """The `thaw` of entries made with `serializer`; set it on entries that come from a store."""
    return partial(_thaw_foreign, Decoder(ext_hook=partial(_foreign_raised, serializer)).decode)


def persistable(kept: Kept | Entry) -> bytes:
    """What a store writes as payload. Raises TypeError for what only memory can hold."""
    if kept.form == Form.PLAIN:
        return encode(kept.payload)
    if kept.form == Form.COPIED:
        encode(kept.payload)  # raises, naming the type
        raise TypeError("a copied value cannot be kept in a store; use serializer=")
    payload: bytes = kept.payload
    return payload


def revive(form: int, stored: bytes) -> tuple[Any, Callable[[Any], Any] | None]:
    """Payload and thaw of an entry from the bytes `persistable` gave. Raises CorruptEntry.

    A payload whose classes cannot be rebuilt here is found out now, not by its first caller.
    """
    if form == Form.ENCODED or form == Form.STREAM:
        if stored[:1] in _EXT_FIRST and mentions_classes(stored):
            thaw(stored)
        return stored, thaw
    if form == Form.PLAIN:
        return thaw(stored), None
    if form == Form.REPLY:
        return stored, None
    raise CorruptEntry("values", f"reading the unknown form {form}")


def unopened(form: int, stored: bytes) -> tuple[bytes, Callable[[Any], Any] | None]:
    """The same without rebuilding anything: an answer that nobody may be able to read here."""
    return stored, None if form == Form.REPLY else thaw


def mentions_classes(payload: bytes) -> bool:
    """Whether rebuilding `payload` looks up classes by name."""
    code_at = _EXT_HEADERS.get(payload[0]) if payload else None
    return code_at is not None and payload[code_at] == NAMED


# -- what a value is ---------------------------------------------------------------------


def _is_plain(value: Any, levels: int) -> bool:
    kind = type(value)
    if kind in _LEAVES:
        return True
    return kind is tuple and levels > 0 and all(_is_plain(item, levels - 1) for item in value)


def _is_json(value: Any, levels: int) -> bool:
    """Whether msgpack gives `value` back with every type as it was (apart from wide integers)."""
    kind = type(value)
    if kind in _JSON_LEAVES:
        return True
    if kind is list:
        items = value
    elif kind is dict:
        if any(type(key) is not str for key in value):
            return False
        items = value.values()
    else:
        return False
    # Leaves are told apart here: a call for each of them would double the time.
    return levels > 0 and all(
        type(item) in _JSON_LEAVES or _is_json(item, levels - 1) for item in items
    )


def _encoded_or_copied(form: int, value: Any) -> Kept:
    try:
        payload = encode(value)
    except TypeError:
        return _copied(value)
    return Kept(form, payload, thaw, len(payload))


def _copied(value: Any) -> Kept:
    try:
        copy = deepcopy(value)
    except Exception as error:  # __deepcopy__ and __reduce__ are the user's code
        kind = type(value)
        raise Unkeepable(
            f"a value of type {kind.__module__}.{kind.__qualname__} can be neither encoded nor "
            f"copied ({error}); give serializer= with dumps and loads, or return something else"
        ) from error
    return Kept(Form.COPIED, copy, deepcopy, _copied_size(copy))


def _plain_size(value: Any) -> int:
    size = sys.getsizeof(value)
    return size + sum(map(_plain_size, value)) if type(value) is tuple else size


def _copied_size(value: Any) -> int:
    """Bytes of the objects `value` owns, as far as they can be seen; at least its own."""
    seen, todo, size = {id(value)}, [value], 0
    while todo and len(seen) < _MOST_COUNTED:
        item = todo.pop()
        # Tensors hide their data from getsizeof and tell it as nbytes.
        nbytes = getattr(item, "nbytes", 0) if hasattr(type(item), "nbytes") else 0
        size += max(sys.getsizeof(item, 0), nbytes if isinstance(nbytes, int) else 0)
        for part in gc.get_referents(item):
            if id(part) not in seen and not isinstance(part, type | ModuleType | FunctionType):
                seen.add(id(part))
                todo.append(part)
    return size


# -- bytes --------------------------------------------------------------------------------


def _raised(code: int, data: memoryview) -> Any:
    if code == FOREIGN:
        raise CorruptEntry("values", "rebuilding a value without the serializer= that made it")
    return raised(code, data, _unpack)


def _foreign_raised(serializer: Serializer, code: int, data: memoryview) -> Any:
    if code != FOREIGN:
        raise CorruptEntry("values", "rebuilding with serializer= a value made without it")
    return serializer.loads(bytes(data))


def _thaw_foreign(unpack: Callable[[bytes], Any], payload: bytes) -> Any:
    try:
        return unpack(payload)
    except CorruptEntry:
        raise
    except Exception as error:  # whatever the user's `loads` raises
        raise CorruptEntry("values", f"rebuilding with serializer=: {error!r}") from error


_pack = Encoder().encode
_unpack = Decoder(ext_hook=_raised).decode
