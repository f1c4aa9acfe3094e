"""What a function's code is, and what it sees around it: the parts that make its digest.

The source text alone would not do: it is read from the file now, which may have been edited since
the code was loaded, and `functools.wraps` makes `inspect` read another function's. So the code
object counts too. Values around the code enter by their canonical form. What has none is `Held`:
this process can name it by a number, a store cannot.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from thinkonce.request.arguments import canonical_args

__all__ = ("Held", "traits")

_CONSTANTS = (str, bytes, int, float, complex, bool, type(None))
_LRU = type(functools.lru_cache(len))


@dataclass(frozen=True, slots=True)
class Held:
    """An object without a canonical form, and the name of the variable that holds it."""

    name: str
    value: object


def traits(function: Callable[..., Any]) -> Iterator[str | Held]:
    """What tells `function` from others of its module and name; its own defaults are arguments."""
    yield _source(function)
    yield from _around(function, frozenset({id(function)}))


# -- code ----------------------------------------------------------------------------------


def _source(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return ""
    described = repr(_code_parts(code))
    try:
        # Of the code, not of the function: `functools.wraps` leads from that to another one.
        return inspect.getsource(code) + described
    except (OSError, TypeError, IndexError):  # a REPL, a frozen module, a file cut short since
        return described


def _code_parts(code: CodeType) -> tuple[object, ...]:
    return (
        code.co_code,
        code.co_exceptiontable,
        code.co_flags,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        [_constant(constant) for constant in code.co_consts],
    )


def _constant(value: object) -> object:
    # A nested function's repr holds an address, that of a set depends on the process.
    if isinstance(value, CodeType):
        return _code_parts(value)
    if isinstance(value, frozenset):
        return "set", sorted(repr(_constant(item)) for item in value)
    return tuple(map(_constant, value)) if isinstance(value, tuple) else value


# -- what is around it -----------------------------------------------------------------------


def _around(function: Callable[..., Any], seen: frozenset[int]) -> Iterator[str | Held]:
    """The values that `function` closes over. Not those it changes itself."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return
    own = _assigned(code)
    for name, value in _closed_over(function, code):
        if name not in own or isinstance(value, FunctionType):
            yield from _value(name, value, seen)
    for name, value in _foreign_globals(function, code):
        yield from _value(name, value, seen)


def _assigned(code: CodeType) -> set[str]:
    own = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return own.union(*map(_assigned, inner))


def _closed_over(function: Any, code: CodeType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            if name != "__class__":  # what `super()` needs; the qualified name tells the class
                yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _foreign_globals(function: Any, code: CodeType) -> Iterator[tuple[str, Any]]:
    """Constants and functions that the code names, where its globals are not its module's.

    A module is one text; what is run with globals of its own may see others each time.
    """
    module = sys.modules.get(function.__module__ or "")
    around = function.__globals__
    if module is not None and vars(module) is around:
        return
    for name in code.co_names:
        value = around.get(name)
        if name in around and isinstance(value, (*_CONSTANTS, FunctionType)):
            yield name, value


def _value(name: str, value: Any, seen: frozenset[int]) -> Iterator[str | Held]:
    if id(value) in seen:
        return
    within = seen | {id(value)}
    if isinstance(value, FunctionType):
        yield from _function(name, value, within)
    elif isinstance(value, functools.partial):
        yield from _parts(name, "partial", {"": value.func}, within)
        yield from _parts(name, "arguments", dict(enumerate(value.args)), within)
        yield from _parts(name, "keywords", value.keywords, within)
    elif isinstance(value, MethodType):
        yield from _parts(name, "method", {"of": value.__func__, "self": value.__self__}, within)
    elif isinstance(value, _LRU):
        yield from _parts(name, "lru_cache", {"of": value.__wrapped__}, within)
    elif isinstance(value, BuiltinFunctionType):
        yield from _parts(name, f"built-in {value.__name__}", {"self": value.__self__}, within)
    elif isinstance(value, ModuleType):
        yield f"{name}: module {value.__name__}"
    elif isinstance(value, type) and "<locals>" not in value.__qualname__:
        yield f"{name}: class {value.__module__}.{value.__qualname__}"
    else:
        yield _plain(name, value)


def _parts(
    name: str, kind: str, parts: Mapping[Any, Any], seen: frozenset[int]
) -> Iterator[str | Held]:
    yield f"{name}: {kind} of {len(parts)}"
    for part, value in parts.items():
        yield f"{part}"
        yield from _value(name, value, seen)


def _function(name: str, value: FunctionType, seen: frozenset[int]) -> Iterator[str | Held]:
    yield f"{name}: {value.__module__}.{value.__qualname__}"
    parts = [_source(value), *_defaults(name, value, seen), *_around(value, seen)]
    # What a function of a module is given by that module is the same each time it is loaded.
    fixed = _is_importable(value)
    yield from (part for part in parts if not (fixed and isinstance(part, Held)))
    wrapped = getattr(value, "__wrapped__", None)
    if wrapped is not None:  # possibly kept where no closure shows it
        yield from _value(name, wrapped, seen)


def _defaults(name: str, value: FunctionType, seen: frozenset[int]) -> Iterator[str | Held]:
    yield from _parts(name, "defaults", dict(enumerate(value.__defaults__ or ())), seen)
    yield from _parts(name, "keyword defaults", value.__kwdefaults__ or {}, seen)


def _is_importable(value: FunctionType) -> bool:
    found: Any = sys.modules.get(value.__module__ or "")
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _plain(name: str, value: Any) -> str | Held:
    try:
        return f"{name}={canonical_args((name,), (value,)).hex()}"
    except TypeError:
        return Held(name, value)
