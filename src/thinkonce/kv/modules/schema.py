"""A schema: named texts that prompts are put together from, each at positions of its own.

    Schema "persona"
    └─ Message system
       ├─ "You answer as the person below.\\n"          a text, in every prompt
       ├─ Module "name"
       │  └─ "I am called ", Parameter "who" of 8 tokens
       └─ Union                                        at most one of them
          ├─ Module "doctor" ── text
          └─ Module "farmer" ── text

Prompt Cache: Gim et al., MLSys 2024, arXiv 2311.04934. `markup.py` reads the same from XML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from thinkonce.errors import RequestError

__all__ = (
    *("ROLES", "Child", "Message", "Module", "Parameter", "Role", "Schema", "Text", "Union"),
    *("check", "refused"),
)

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)

MOST_DEPTH = 32  # elements within one another
MOST_ELEMENTS = 1 << 14
_NAME = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Text:
    """What a prompt says as it stands. In Python a bare `str` is one too."""

    text: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Room for an argument of at most `length` tokens. `scaffold`: what stands there while the
    texts around it are encoded.
    """

    name: str
    length: int
    scaffold: str = ""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Module:
    """What a prompt takes by name, or leaves out. `cache` false: it is computed each time."""

    name: str
    children: Sequence[Child] = ()
    cache: bool = True
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Union:
    """Modules of which a prompt takes one at most; they begin at the same position.

    `scaffold`: the one that is there while texts outside are encoded; "": the first.
    """

    members: Sequence[Module]
    scaffold: str = ""
    line: int = field(default=0, compare=False)

    @property
    def default(self) -> Module:
        return next(m for m in self.members if m.name == (self.scaffold or m.name))


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a chat, written as the model's own template writes those of this role."""

    role: Role
    children: Sequence[Child] = ()
    line: int = field(default=0, compare=False)


Child = str | Text | Parameter | Module | Union | Message


@dataclass(frozen=True, slots=True)
class Schema:
    """The root. It has no parameters itself."""

    name: str
    children: Sequence[Child] = ()
    line: int = field(default=0, compare=False)


def refused(element: object, got: object, accepts: str, line: int = 0) -> RequestError:
    """What is wrong with an element, by its line where it was written in XML."""
    kind = element if isinstance(element, str) else _kind(element)
    at = line or getattr(element, "line", 0)
    return RequestError(f"schema{f' line {at}' if at else ''}: <{kind}>", got, accepts)


def check(schema: Schema) -> None:
    """Raises RequestError that names the element, and its line."""
    _check_name(schema, schema.name)
    _check_siblings(schema, schema.children)
    for child in schema.children:
        if isinstance(child, Parameter):
            raise refused(child, child.name, "a place in a module; the root has no parameters")
        _check(child, depth=1, message=None)
    if (count := sum(map(_elements, schema.children))) > MOST_ELEMENTS:
        raise refused(schema, f"{count} texts and elements", f"at most {MOST_ELEMENTS}")


def _check(element: Child, depth: int, message: Message | None) -> None:
    if depth > MOST_DEPTH:
        raise refused(element, f"{depth} levels", f"at most {MOST_DEPTH} elements in one another")
    match element:
        case Parameter():
            _check_parameter(element)
        case Module():
            _check_name(element, element.name)
            _check_children(element, element.children, depth, message)
        case Union():
            _check_union(element)
            _check_children(element, element.members, depth, message)
        case Message():
            if element.role not in ROLES:
                raise refused(element, element.role, f"one of {', '.join(ROLES)}")
            if message is not None:
                raise refused(element, f"within <{message.role}>", "a place outside of messages")
            _check_children(element, element.children, depth, element)
        case str() | Text():
            pass
        case _:
            accepts = "texts, Parameter, Module, Union and Message"
            raise refused("schema", type(element).__name__, accepts)


def _elements(element: Child) -> int:
    """Itself, and what is in it."""
    match element:
        case Module() | Message():
            return 1 + sum(map(_elements, element.children))
        case Union():
            return 1 + sum(map(_elements, element.members))
    return 1


def _check_children(
    element: Module | Union | Message,
    children: Sequence[Child],
    depth: int,
    message: Message | None,
) -> None:
    _check_siblings(element, children)
    for child in children:
        _check(child, depth + 1, message)


def _check_parameter(parameter: Parameter) -> None:
    _check_name(parameter, parameter.name)
    length = parameter.length
    if isinstance(length, bool) or not isinstance(length, int) or not 0 < length <= 1 << 20:
        raise refused(parameter, length, "a length of 1 token or more")


def _check_union(union: Union) -> None:
    if not union.members:
        raise refused(union, "no modules", "one module or more")
    for member in union.members:
        if not isinstance(member, Module):
            raise refused(union, _kind(member), "modules alone", getattr(member, "line", 0))
    names = [member.name for member in union.members]
    if union.scaffold and union.scaffold not in names:
        raise refused(union, union.scaffold, f"a scaffold that is one of {', '.join(names)}")


def _check_name(element: Schema | Module | Parameter, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        accepts = "a name of up to 128 letters, digits, dots, - and _"
        raise refused(element, name, accepts)


def _check_siblings(parent: Schema | Module | Union | Message, children: Sequence[Child]) -> None:
    """Modules are told apart by name, through unions and messages; parameters likewise."""
    if isinstance(parent, Union | Message):
        return  # its parent looks
    seen: dict[tuple[type, str], object] = {}
    for child in _named(children):
        known = seen.setdefault((type(child), child.name), child)
        if known is not child:
            raise refused(child, child.name, f"another name: there is one in {parent.name!r}")


def _named(children: Sequence[Child]) -> Iterator[Module | Parameter]:
    for child in children:
        if isinstance(child, Module | Parameter):
            yield child
        elif isinstance(child, Union):
            yield from _named(child.members)
        elif isinstance(child, Message):
            yield from _named(child.children)


def _kind(element: object) -> str:
    if isinstance(element, Message):
        return str(element.role)
    return type(element).__name__.lower()
