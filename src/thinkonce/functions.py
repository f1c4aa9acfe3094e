"""What a decorated function is, for the cache: its identity, its parameters, its kind.

Identity: module, qualified name and a digest of source and code (or a version), for `__main__` the
file's path too. Editing the function therefore makes old answers unreachable, as it should.
Functions made by one `def` with other values around them differ as well: what a closure holds is
in the digest, or in `held` where it has no canonical form. What a partial or a bound method
carries along is in `fixed` and `owners`. Whoever makes keys has to count these three.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from inspect import Parameter
from itertools import count
from types import FunctionType, ModuleType
from typing import Any, ClassVar

from thinkonce.closure import Held, traits
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.request.arguments import canonical_args

__all__ = ("Function", "Kind", "Receiver", "describe", "told_apart")


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
    `owners` are the objects it is bound to, `fixed` the arguments a partial has filled in, `held`
    what it closes over that has no canonical form; nothing where a version was given.
    """

    call: Callable[..., Any]
    identity: bytes
    scope: str
    version: str
    kind: Kind
    parameters: tuple[Parameter, ...]
    is_method: bool
    owners: tuple[object, ...] = ()
    fixed: tuple[object, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def apart(self, raw: bytes) -> Function:
        """The same function, told apart from all others by `raw` too."""
        version = _digest(self.version, raw.hex()).hex()
        return replace(self, version=version, identity=_digest(self.scope, version))


def describe(function: Callable[..., Any], version: str | None = None) -> Function:
    """Read everything the cache needs to know from `function`.

    Raises TypeError for something without a readable signature (some built-ins).
    """
    if not callable(function):
        raise TypeError(f"{function!r} is no function; settings are given by name: cached(ttl=...)")
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise TypeError(f"{function!r} has no signature that could be read; wrap it") from error
    parameters = tuple(signature.parameters.values())
    core, owners, fixed = _peel(function)
    module = getattr(core, "__module__", "") or ""
    name = getattr(core, "__qualname__", type(core).__qualname__)
    scope = f"{_main_path(module) or module}.{name}"
    seen = [] if version else _traits_of(core)
    held = tuple(part for part in seen if isinstance(part, Held))
    # The place of what is held counts too: two variables may have changed theirs.
    marks = [part.name if isinstance(part, Held) else part for part in seen]
    version = version or _digest(*marks).hex()
    return Function(
        call=function,
        identity=_digest(scope, version),
        scope=scope,
        version=version,
        kind=_kind(core),
        parameters=parameters,
        is_method=_is_method(name, parameters),
        owners=owners,
        fixed=fixed,
        held=held,
    )


# As at first sight: a list that a function closes over may change, the function stays the same,
# and `get_or_call` shares with the decorator.
_first_sight: weakref.WeakKeyDictionary[FunctionType, list[str | Held]]
_first_sight = weakref.WeakKeyDictionary()


def _traits_of(core: Any) -> list[str | Held]:
    if not isinstance(core, FunctionType):
        return list(traits(core))
    known = _first_sight.get(core)
    if known is None:
        known = _first_sight[core] = list(traits(core))
    return known


def _peel(function: Any) -> tuple[Any, tuple[object, ...], tuple[object, ...]]:
    """The function inside partials, bound methods and callable objects, and what they add."""
    owners: list[object] = []
    fixed: list[object] = []
    while True:
        if isinstance(function, functools.partial):
            fixed += [list(function.args), function.keywords]
            function = function.func
        elif inspect.ismethod(function):
            owners.append(function.__self__)
            function = function.__func__
        elif inspect.isbuiltin(function) and not isinstance(function.__self__, ModuleType | None):
            return function, (*owners, function.__self__), tuple(fixed)
        elif not (inspect.isroutine(function) or isinstance(function, type)):
            owners.append(function)
            function = type(function).__call__
        else:
            return function, tuple(owners), tuple(fixed)


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


def _is_method(name: str, parameters: tuple[Parameter, ...]) -> bool:
    owner = name.rpartition(".")[0]
    inside_class = bool(owner) and not owner.endswith("<locals>")
    return inside_class and bool(parameters) and parameters[0].name in ("self", "cls")


class Receiver:
    """Names the object a method is called on: by its `__thinkonce_key__`, else by a serial.

    A serial is held weakly and never reused, unlike `id()`; it means nothing to another process,
    so with a persistent store it is a TypeError. Thread-safe.
    """

    # For all receivers together: one cache may hold a function that was defined twice.
    _count: ClassVar[Iterator[int]] = count(1)

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def name(self, receiver: Any, scope: str, *, persistent: bool) -> tuple[object, ...]:
        if isinstance(receiver, type):
            # A class made inside a function shares its name with every other made there.
            if "<locals>" not in receiver.__qualname__:
                return ("class", receiver.__module__, receiver.__qualname__)
        elif (own := getattr(receiver, "__thinkonce_key__", None)) is not None:
            kind = type(receiver)
            return ("key", kind.__module__, kind.__qualname__, own() if callable(own) else own)
        if persistent:
            raise TypeError(
                f"{scope}: a {type(receiver).__name__} has no __thinkonce_key__, so its "
                "answers cannot be told apart in a persistent store; define one, or use ignore="
            )
        return ("serial", self._serial(receiver, scope))

    def name_held(self, held: Held, scope: str, *, persistent: bool) -> tuple[object, ...]:
        """Names what a function closes over. Raises TypeError for a persistent store."""
        kind = type(held.value)
        if getattr(held.value, "__thinkonce_key__", None) is not None:
            return self.name(held.value, scope, persistent=persistent)
        if persistent:
            raise TypeError(
                f"{scope}: its variable {held.name!r} holds a {kind.__qualname__}, which has no "
                "canonical form, so a persistent store cannot tell its answers from those of the "
                "same function around another one; name what it stands for with version=, or "
                "define __thinkonce_key__ on it"
            )
        try:
            return ("serial", self._serial(held.value, scope))
        except TypeError:  # no weak references: it shares with nobody, itself decorated again
            return ("serial", next(self._count))

    def class_serial(self, kind: type) -> int:
        """The serial of a class that shares its name with others; see `canonical_args`."""
        return self._serial(kind, kind.__qualname__)

    def _serial(self, receiver: Any, scope: str) -> int:
        with self._lock:
            known = self._held.get(id(receiver))
            if known is not None and known[0]() is receiver:
                return known[1]
            serial = next(self._count)
            self._held[id(receiver)] = (self._weak(receiver, scope), serial)
            return serial

    def _in_child(self) -> None:
        free_after_fork(self._lock)

    def _weak(self, receiver: Any, scope: str) -> weakref.ref[Any]:
        address = id(receiver)
        try:
            return weakref.ref(receiver, lambda gone: self._forget(address, gone))
        except TypeError:
            raise TypeError(
                f"{scope}: a {type(receiver).__name__} allows no weak reference; "
                "define __thinkonce_key__ on it, or use ignore="
            ) from None

    def _forget(self, address: int, gone: weakref.ref[Any]) -> None:
        # Runs in the collector, possibly inside the lock: a dict operation is atomic by itself.
        held = self._held.get(address)
        if held is not None and held[0] is gone:
            del self._held[address]


# -- apart from others of the same code --------------------------------------------------------


def told_apart(
    function: Function,
    receiver: Receiver,
    own_key: Function | None,
    ignore: Iterable[str],
    *,
    persistent: bool,
    has_serializer: bool = False,
) -> Function:
    """`function`, told apart by what it carries along, how its arguments count, and whether a
    serializer of the user's made the bytes of its answers.

    Raises TypeError for a partial whose arguments have no canonical form, and with a persistent
    store for objects that mean nothing to another process.
    """
    bound = _bound(function, receiver, persistent=persistent)
    key_bound = own_key and (own_key.version, _bound(own_key, receiver, persistent=persistent))
    parts: dict[str, object] = {"self": bound, "ignore": sorted(ignore), "key": key_bound}
    if not any(parts.values()) and not has_serializer:
        return function
    if has_serializer:
        parts["serializer"] = True
    serial = None if persistent else receiver.class_serial
    return function.apart(canonical_args(tuple(parts), tuple(parts.values()), serial))


def _bound(function: Function, receiver: Receiver, *, persistent: bool) -> tuple[object, ...]:
    """What `function` carries along, by names that may enter a key; empty if it is nothing."""
    scope = function.scope
    owners = [receiver.name(owner, scope, persistent=persistent) for owner in function.owners]
    serial = None if persistent else receiver.class_serial
    # Names the partial if it has no form.
    canonical_args(("partial",), (list(function.fixed),), serial)
    held = [receiver.name_held(one, scope, persistent=persistent) for one in function.held]
    return (owners, held, list(function.fixed)) if owners or held or function.fixed else ()
