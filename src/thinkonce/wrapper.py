"""The generated wrapper: a function with the decorated one's own signature whose body is a probe.

For `def ask(prompt, *, model="m")` the text that is compiled reads

    def ask(prompt, *, model=_default1):
        try:
            _entry = _get((_identity, prompt, prompt.__class__, model, model.__class__))
        except Exception:
            _entry = None
        if _entry is not None and _now() < _entry.inline_until and _quiet(20) is False:
            _entry.hits += 1; _entry.floor = _policy.floor
            _tally.hits += 1; _tally.saved_seconds += _entry.seconds
            _thaw = _entry.thaw
            return _entry.payload if _thaw is None else _thaw(_entry.payload)
        return _slow((prompt, model))

so a hit builds one tuple and reads one dict. It answers only what the flow has decided already
(`inline_until`); everything else takes the slow path with the same arguments. The classes are in
the key because 1, 1.0 and True are equal; see `scalar_key` for the rest of that rule.
"""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from itertools import count
from typing import Any

from thinkonce.eviction.policy import Note
from thinkonce.functions import Function, Kind

__all__ = ("SCALARS", "Probe", "bind_invoke", "bind_values", "build", "is_floaty", "scalar_key")

SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_UNKNOWABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_STARS: dict[object, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
_serial = count()


@dataclass(frozen=True, slots=True)
class Probe:
    """What the generated text needs to answer by itself.

    `identity` begins every key of the function, as in `scalar_key`. `quiet(20) is False` says
    that nobody listens to INFO; `epoch` and `tier` are compared where other processes may purge.
    """

    identity: bytes
    get: Callable[[Hashable], Any]
    now: Callable[[], float]
    tally: Any
    quiet: Callable[[int], Any]
    policy: Any
    note: Note
    heard: Callable[[Any], None]
    epoch: Any = None
    tier: Any = None


def scalar_key(
    identity: bytes, values: Sequence[object], floaty: Sequence[bool]
) -> tuple[object, ...] | None:
    """The tuple under which the generated probe looks; None where values need canonical bytes.

    Two calls may share a tuple only if they are the same call. Equal values of one scalar class
    are, but for -0.0 and 0.0 (told apart by their repr where a float is expected, else not
    keyed here) and NaN (equal to nothing).
    """
    key: list[object] = [identity]
    for value, is_float in zip(values, floaty, strict=True):
        kind = value.__class__
        if kind not in SCALARS or value != value:
            return None
        if kind is float and not value and not is_float:
            return None
        key += ((value or repr(value)) if is_float else value, kind)
    return tuple(key)


def is_floaty(parameter: Parameter) -> bool:
    """Whether a float is expected here: its default is one, or its annotation names one."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return parameter.default.__class__ is float or "float" in text


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
    lines = [f"{'async ' if function.kind is Kind.COROUTINE else ''}def wrapper({signature}):"]
    if probe is not None and _can_probe(function):
        lines += _probe_lines(function, probe, prefix, names, ignore)
    values = "".join(f"{name}, " for name in function.names)
    wait = "await " if function.kind is Kind.COROUTINE else ""
    lines.append(f"    return {wait}{prefix}slow(({values}))")
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


# -- the text --------------------------------------------------------------------------------


def _can_probe(function: Function) -> bool:
    streams = function.kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)
    unknowable = any(p.kind in _UNKNOWABLE for p in function.parameters)
    return not (streams or unknowable or function.is_method)


def _probe_lines(
    function: Function, probe: Probe, p: str, names: dict[str, Any], ignore: frozenset[str]
) -> list[str]:
    names |= {
        f"{p}get": probe.get,
        f"{p}now": probe.now,
        f"{p}tally": probe.tally,
        f"{p}quiet": probe.quiet,
        f"{p}policy": probe.policy,
        f"{p}heard": probe.heard,
        f"{p}identity": probe.identity,
    }
    shared = ""
    if probe.tier is not None:
        names |= {f"{p}epoch": probe.epoch, f"{p}tier": probe.tier}
        shared = f" and {p}epoch[0] == {p}tier.applied"
    e = f"{p}entry"
    return [
        "    try:",
        f"        {e} = {p}get(({p}identity, {_key_text(function, ignore)}))",
        "    except Exception:",
        f"        {e} = None",
        f"    if {e} is not None and {p}now() < {e}.inline_until"
        f" and {p}quiet(20) is False{shared}:",
        *(f"        {line}" for line in _note_lines(probe.note, p)),
        f"        {p}tally.hits += 1",
        f"        {p}tally.saved_seconds += {e}.seconds",
        f"        {p}thaw = {e}.thaw",
        f"        return {e}.payload if {p}thaw is None else {p}thaw({e}.payload)",
    ]


def _key_text(function: Function, ignore: frozenset[str]) -> str:
    parts = []
    for parameter in function.parameters:
        name = parameter.name
        if name in ignore:
            continue
        # Where a float is expected, zeros enter by repr: -0.0 and 0.0 are equal but differ.
        parts.append(f"{name} or repr({name})" if is_floaty(parameter) else name)
        parts.append(f"{name}.__class__")
    return ", ".join(parts)


def _note_lines(note: Note, p: str) -> list[str]:
    if note is Note.COUNT:
        return [f"{p}entry.hits += 1", f"{p}entry.floor = {p}policy.floor"]
    if note is Note.BIT:
        return [f"if {p}entry.hits < 3:", f"    {p}entry.hits += 1"]
    return [f"{p}heard({p}entry)"]


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
    return space[name]  # type: ignore[no-any-return]
