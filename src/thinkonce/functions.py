"""What a decorated function is, for the cache: its identity, its parameters, its kind.

Identity: module, qualified name and a digest of the source (or a version), for `__main__` the
file's path too. Editing the function therefore makes old answers unreachable, as it should.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter
from itertools import count
from typing import Any

__all__ = ("Function", "Kind", "Receiver", "describe")


class Kind(Enum):
    """How a function hands out its answer."""

    PLAIN = "plain"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


@dataclass(frozen=True, slots=True)
class Function:
    """One function as the cache knows it.

    `scope` and `version` name it in every process alike; `identity` is both in 16 bytes.
    """

    call: Callable[..., Any]
    identity: bytes
    scope: str
    version: str
    kind: Kind
    parameters: tuple[Parameter, ...]
    is_method: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)


def describe(function: Callable[..., Any], version: str | None = None) -> Function:
    """Read everything the cache needs to know from `function`.

    Raises TypeError for something without a readable signature (some built-ins).
    """
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise TypeError(f"{function!r} has no signature that could be read; wrap it") from error
    parameters = tuple(signature.parameters.values())
    module = getattr(function, "__module__", "") or ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    scope = f"{_main_path(module) or module}.{name}"
    version = version or _digest(_source(function)).hex()
    return Function(
        call=function,
        identity=_digest(scope, version),
        scope=scope,
        version=version,
        kind=_kind(function),
        parameters=parameters,
        is_method=_is_method(name, parameters),
    )


def _kind(function: Callable[..., Any]) -> Kind:
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    if inspect.iscoroutinefunction(function):
        return Kind.COROUTINE
    return Kind.PLAIN


def _digest(*parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


def _main_path(module: str) -> str:
    # Two scripts may both define `__main__.ask`.
    if module != "__main__":
        return ""
    return str(getattr(sys.modules.get("__main__"), "__file__", ""))


def _source(function: Callable[..., Any]) -> str:
    """The source text; where there is none (a REPL, a frozen module), code and constants."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return repr(code and (code.co_code, code.co_names, _constants(code)))


def _constants(code: Any) -> list[object]:
    # A nested function is a constant whose repr holds an address.
    return [c.co_code if hasattr(c, "co_code") else c for c in code.co_consts]


def _is_method(name: str, parameters: tuple[Parameter, ...]) -> bool:
    owner = name.rpartition(".")[0]
    inside_class = bool(owner) and not owner.endswith("<locals>")
    return inside_class and bool(parameters) and parameters[0].name in ("self", "cls")


class Receiver:
    """Names the object a method is called on: by its `__thinkonce_key__`, else by a serial.

    A serial is held weakly and never reused, unlike `id()`; it means nothing to another process,
    so with a persistent store it is a TypeError. Thread-safe.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._count = count(1)
        self._lock = threading.Lock()

    def name(self, receiver: Any, scope: str, *, persistent: bool) -> tuple[object, ...]:
        if isinstance(receiver, type):
            return ("class", receiver.__module__, receiver.__qualname__)
        own = getattr(receiver, "__thinkonce_key__", None)
        if own is not None:
            kind = type(receiver)
            return ("key", kind.__module__, kind.__qualname__, own() if callable(own) else own)
        if persistent:
            raise TypeError(
                f"{scope}: a {type(receiver).__qualname__} has no __thinkonce_key__, so its "
                "answers cannot be told apart in a persistent store; define one, or use ignore="
            )
        return ("serial", self._serial(receiver, scope))

    def _serial(self, receiver: Any, scope: str) -> int:
        with self._lock:
            known = self._held.get(id(receiver))
            if known is not None and known[0]() is receiver:
                return known[1]
            serial = next(self._count)
            self._held[id(receiver)] = (self._weak(receiver, scope), serial)
            return serial

    def _weak(self, receiver: Any, scope: str) -> weakref.ref[Any]:
        address = id(receiver)
        try:
            return weakref.ref(receiver, lambda gone: self._forget(address, gone))
        except TypeError:
            raise TypeError(
                f"{scope}: a {type(receiver).__qualname__} allows no weak reference; "
                "define __thinkonce_key__ on it, or use ignore="
            ) from None

    def _forget(self, address: int, gone: weakref.ref[Any]) -> None:
        # Runs in the collector, possibly inside the lock: a dict operation is atomic by itself.
        held = self._held.get(address)
        if held is not None and held[0] is gone:
            del self._held[address]
