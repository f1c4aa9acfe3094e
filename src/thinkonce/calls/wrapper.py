"""The generated wrapper: a function with the decorated one's own signature whose body is a probe.

For `def ask(prompt: str, *, model="m")` the text that is compiled reads

    def ask(prompt, *, model=_default1):
        try:
            _entry = _map[(_identity, prompt, model)]
            if (
                _type(prompt) is _str and _type(model) is _str
                and _now() < _entry.inline_until and _levels.quiet
            ):
                _entry.hits += 1
                _entry.floor = _policy.floor
                if _entry.tally is _tally:
                    return _entry.payload
                return _tally.first(_entry)
        except _Exception:
            pass
        return _slow((prompt, model))

so a hit builds one tuple and reads one dict. Where an annotation says that a list or a dict is to
be expected, the key is `(_identity, _plain_args((messages, model)))` instead. The text answers
only what the flow has decided already (`inline_until`); everything else, what raises included,
takes the slow path with the same arguments. Types are looked at because 1, 1.0 and True are equal,
and with `type`, because an object may lie about its `__class__`; see `scalar_key` for the rest of
that rule.
"""

from __future__ import annotations

import functools
import linecache
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter
from itertools import count
from math import inf
from typing import Any, assert_never

from thinkonce.eviction.policy import Note
from thinkonce.functions import Function, Kind
from thinkonce.request.arguments import plain_args

__all__ = (
    "Probe",
    "Slot",
    "bind_invoke",
    "bind_values",
    "build",
    "scalar_key",
    "slots_of",
    "takes_containers",
)

# Not bytes: alone in its tuple, a value would look like the canonical bytes of other arguments.
_SCALARS = {str, int, float, bool}
_TAGGED = frozenset(_SCALARS | {bytes, type(None)})
_BY_NAME = {kind.__name__: kind for kind in _SCALARS}
_UNKNOWABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_STARS: dict[object, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
_CONTAINER = re.compile(r"\b(list|dict|sequence|mapping|iterable)\b", re.IGNORECASE)
_serial = count()


@dataclass(frozen=True, slots=True)
class Slot:
    """How one parameter enters the tuple.

    `expected` is the one class a value may have there; None: any scalar, with its class beside.
    """

    name: str
    expected: type | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What the generated text needs to answer by itself.

    `identity` begins every key of the function, as in `scalar_key`. `levels.quiet` is True while
    it is known that nobody listens to INFO. `epoch` and `tier` are compared where other processes
    may purge.
    """

    identity: bytes
    map: Mapping[Any, Any]
    now: Callable[[], float]
    tally: Any
    levels: Any
    policy: Any
    note: Note
    heard: Callable[[Any], None]
    epoch: Any = None
    tier: Any = None
    endless: bool = False  # entries are not expected to expire


def slots_of(parameters: Sequence[Parameter], ignore: frozenset[str]) -> tuple[Slot, ...]:
    """One slot for each parameter that counts."""
    return tuple(Slot(p.name, _expected(p)) for p in parameters if p.name not in ignore)


def _expected(parameter: Parameter) -> type | None:
    """The class of the default, else the one the annotation names."""
    kind = type(parameter.default)
    if kind in _SCALARS:
        return kind
    annotation = parameter.annotation
    if parameter.default is not Parameter.empty:
        return None  # a default of None, say: two classes are to be expected
    return _BY_NAME.get(annotation if isinstance(annotation, str) else _name_of(annotation))


def _name_of(annotation: Any) -> str:
    return str(annotation.__name__) if isinstance(annotation, type) else ""


def scalar_key(
    identity: bytes, values: Sequence[object], slots: Sequence[Slot]
) -> tuple[object, ...] | None:
    """The tuple under which the generated probe looks; None where values need canonical bytes.

    Two calls may share a tuple only if they are the same call. Equal values of one scalar class
    are, but for -0.0 and 0.0 (told apart by their repr where a float is expected, else not
    keyed here) and NaN (equal to nothing).
    """
    key: list[object] = [identity]
    for value, slot in zip(values, slots, strict=True):
        kind = type(value)
        if kind is not slot.expected and (slot.expected or kind not in _TAGGED):
            return None
        if kind is float and (value != value or (not value and slot.expected is None)):
            return None
        key.append(repr(value) if slot.expected is float and value == 0.0 else value)
        if slot.expected is None:
            key.append(kind)
    return tuple(key)


def build(
    function: Function,
    slow: Callable[[tuple[object, ...]], Any],
    probe: Probe | None,
    ignore: frozenset[str],
) -> Callable[..., Any]:
    """Compile the wrapper of `function`. `slow` gets the bound values in parameter order."""
    prefix = _free_prefix(function.names)
    names: dict[str, Any] = {f"{prefix}slow": slow}
    signature = _signature(function.parameters, prefix, names)
    is_async = function.kind in (Kind.COROUTINE, Kind.ASYNC_GENERATOR)
    lines = [f"{'async ' if is_async else ''}def wrapper({signature}):"]
    if probe is not None and _can_probe(function):
        lines += _probe_lines(function, probe, prefix, names, ignore)
    lines += _slow_lines(function, prefix)
    made = _compile("\n".join(lines) + "\n", "wrapper", names, function.scope)
    return functools.update_wrapper(made, function.call)


def bind_values(function: Function) -> Callable[..., tuple[object, ...]]:
    """A function of the same signature that returns the bound values in parameter order."""
    prefix = _free_prefix(function.names)
    names: dict[str, Any] = {}
    signature = _signature(function.parameters, prefix, names)
    values = "".join(f"{name}, " for name in function.names)
    text = f"def bind({signature}):\n    return ({values})\n"
    made = _compile(text, "bind", names, function.scope)
    made.__name__ = getattr(function.call, "__name__", "bind")  # TypeErrors name the function
    made.__qualname__ = getattr(function.call, "__qualname__", "bind")
    return made


def bind_invoke(
    call: Callable[..., Any], parameters: Sequence[Parameter], scope: str
) -> Callable[[tuple[object, ...]], Any]:
    """Calls `call` with bound values, each the way its parameter takes it."""
    parts = []
    for place, parameter in enumerate(parameters):
        star = _STARS.get(parameter.kind, "")
        name = f"{parameter.name}=" if parameter.kind is Parameter.KEYWORD_ONLY else ""
        parts.append(f"{star}{name}v[{place}]")
    text = f"def invoke(v):\n    return call({', '.join(parts)})\n"
    return _compile(text, "invoke", {"call": call}, scope)


def takes_containers(function: Function) -> bool:
    """Whether an annotation says that a tuple of scalars will not do, e.g. `list[dict]`."""
    texts = [
        p.annotation if isinstance(p.annotation, str) else str(p.annotation)
        for p in function.parameters
    ]
    return any(_CONTAINER.search(text) for text in texts)


def _slow_lines(function: Function, p: str) -> list[str]:
    """Hand over, as a function of the same kind: frameworks ask what kind a function is."""
    values = "".join(f"{name}, " for name in function.names)
    slow = f"{p}slow(({values}))"
    match function.kind:
        case Kind.PLAIN:
            return [f"    return {slow}"]
        case Kind.COROUTINE:
            return [f"    return await {slow}"]
        case Kind.GENERATOR:
            return [f"    return (yield from {slow})"]
        case Kind.ASYNC_GENERATOR:
            return [
                f"    {p}items = {slow}",
                "    try:",
                f"        async for {p}item in {p}items:",
                f"            yield {p}item",
                "    finally:",
                f"        await {p}items.aclose()",
            ]
        case _:
            assert_never(function.kind)


# -- the text --------------------------------------------------------------------------------


def _can_probe(function: Function) -> bool:
    streams = function.kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)
    unknowable = any(p.kind in _UNKNOWABLE for p in function.parameters)
    return not (streams or unknowable or function.is_method)


def _probe_lines(
    function: Function, probe: Probe, p: str, names: dict[str, Any], ignore: frozenset[str]
) -> list[str]:
    for field in fields(Probe):
        names[p + field.name] = getattr(probe, field.name)
    # Under names of ours, because a parameter may be called like them.
    names |= {f"{p}type": type, f"{p}repr": repr, f"{p}Exception": Exception, f"{p}inf": inf}
    slots = slots_of(function.parameters, ignore)
    for slot in slots:
        if slot.expected is not None:
            names[p + slot.expected.__name__] = slot.expected
    if takes_containers(function):
        names[f"{p}plain_args"] = plain_args
        counted = "".join(f"{slot.name}, " for slot in slots)
        key, conditions = f"{p}plain_args(({counted}))", _conditions((), probe, p)
    else:
        key, conditions = ", ".join(_key_parts(slots, p)), _conditions(slots, probe, p)
    return [
        "    try:",
        f"        {p}entry = {p}map[({p}identity, {key})]",
        f"        if {' and '.join(conditions)}:",
        *(f"            {line}" for line in _answer_lines(probe.note, p)),
        f"    except {p}Exception:",
        "        pass",
    ]


def _key_parts(slots: Sequence[Slot], p: str) -> Iterator[str]:
    for slot in slots:
        # Where a float is expected, zeros enter by repr: -0.0 and 0.0 are equal but differ.
        zero = f"{slot.name} if {slot.name} != 0.0 else {p}repr({slot.name})"
        yield zero if slot.expected is float else slot.name
        if slot.expected is None:
            yield f"{p}type({slot.name})"


def _conditions(slots: Sequence[Slot], probe: Probe, p: str) -> Iterator[str]:
    for slot in slots:
        if slot.expected is not None:
            yield f"{p}type({slot.name}) is {p}{slot.expected.__name__}"
    alive = f"{p}now() < {p}entry.inline_until"
    # Reading the clock is a sixth of a hit; what never expires can do without.
    yield f"({p}entry.inline_until == {p}inf or {alive})" if probe.endless else alive
    yield f"{p}levels.quiet"
    if probe.tier is not None:
        yield f"{p}epoch[0] == {p}tier.applied"


def _answer_lines(note: Note, p: str) -> list[str]:
    """Tell the policy and the tally, and answer. Where the policy counts, nobody else needs to:
    an entry whose hits wait for this tally has nothing to thaw either (see `Tally`)."""
    if note is Note.COUNT:
        return [
            f"{p}entry.hits += 1",
            f"{p}entry.floor = {p}policy.floor",
            f"if {p}entry.tally is {p}tally:",
            f"    return {p}entry.payload",
            f"return {p}tally.first({p}entry)",
        ]
    bit = [f"if {p}entry.hits < 3:", f"    {p}entry.hits += 1"]
    return [
        f"{p}value = {p}entry.payload",
        f"if {p}entry.thaw is not None:",
        f"    {p}value = {p}entry.thaw({p}value)",
        *(bit if note is Note.BIT else [f"{p}heard({p}entry)"]),
        f"{p}tally.probed_hits += 1",
        f"{p}tally.probed_seconds += {p}entry.seconds",
        f"return {p}value",
    ]


def _signature(parameters: Sequence[Parameter], prefix: str, names: dict[str, Any]) -> str:
    parts: list[str] = []
    for place, parameter in enumerate(parameters):
        previous = parameters[place - 1].kind if place else None
        if previous is Parameter.POSITIONAL_ONLY and parameter.kind is not previous:
            parts.append("/")
        starred = any(part.startswith("*") for part in parts)
        if parameter.kind is Parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        parts.append(_parameter_text(parameter, f"{prefix}default{place}", names))
    if parameters and parameters[-1].kind is Parameter.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def _parameter_text(parameter: Parameter, default_name: str, names: dict[str, Any]) -> str:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return f"*{parameter.name}"
    if parameter.kind is Parameter.VAR_KEYWORD:
        return f"**{parameter.name}"
    if parameter.default is Parameter.empty:
        return parameter.name
    names[default_name] = parameter.default
    return f"{parameter.name}={default_name}"


def _free_prefix(names: Sequence[str]) -> str:
    prefix = "_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix


def _compile(text: str, name: str, names: Mapping[str, Any], scope: str) -> Callable[..., Any]:
    """Compile `text`; its lines are registered so that tracebacks show them."""
    filename = f"<thinkonce {scope} {next(_serial)}>"
    space: dict[str, Any] = dict(names)
    exec(compile(text, filename, "exec"), space)  # our own text; names come from a signature
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    made: Callable[..., Any] = space[name]
    weakref.finalize(made, linecache.cache.pop, filename, None).atexit = False
    return made
