"""Schemas in XML, as Prompt Cache publishes them (PML).

    <schema name="persona">
      <system>
        You answer as the person below.
        <module name="name">I am called <parameter name="who" length="8"/>.
        </module>
        <union>
          <module name="doctor">I am a doctor in a small town.</module>
          <module name="farmer" src="farmer.txt"/>
        </union>
      </system>
    </schema>

A line break in a text takes the blanks around it along; one at the beginning of a text is nothing,
unless it stands behind a parameter, and a text of nothing but line breaks is none. Document types,
and with them entities, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from thinkonce.errors import RequestError
from thinkonce.kv.modules.schema import (
    ROLES,
    Child,
    Message,
    Module,
    Parameter,
    Role,
    Schema,
    Text,
    Union,
    check,
    refused,
)

__all__ = ("MOST_CHARACTERS", "read_schema")

MOST_CHARACTERS = 8 * 1024 * 1024  # of a schema, and of all files that it names
_MOST_DEPTH = 64  # tags that are open while parsing; `check` wants fewer
# From the first of some blanks on: looked at from each of them, many would take for ever.
_BREAK = re.compile(r"(?<![^\S\n])[^\S\n]*+\n\s*")

_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "schema": ("name",),
    "module": ("name", "cache", "src"),
    "union": ("scaffold",),
    "parameter": ("name", "length", "scaffold"),
    **dict.fromkeys(ROLES, ()),
}


def read_schema(text: str, folder: Path | None = None) -> Schema:
    """`folder`: that below which `src` may name files; None: it may name none.

    Raises RequestError that names the line and the element.
    """
    if len(text) > MOST_CHARACTERS:
        raise refused("schema", f"{len(text)} characters", f"{MOST_CHARACTERS} at most")
    schema = _Reader(folder).read(text)
    check(schema)
    return schema


@dataclass(slots=True)
class _Open:
    """An element whose end is yet to come."""

    kind: str
    line: int
    said: Mapping[str, str]
    children: list[Child] = field(default_factory=list)
    text: str = ""
    text_line: int = 0

    def wrong(self, got: object, accepts: str) -> RequestError:
        return refused(self.kind, got, accepts, self.line)


class _Reader:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open: list[_Open] = []
        self._left = MOST_CHARACTERS
        self._root: Schema | None = None
        # In UTF-8 whatever a declaration says: the text was decoded before.
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._say
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype

    def read(self, text: str) -> Schema:
        try:
            self._parser.Parse(text.encode(errors="replace"), True)
        except expat.ExpatError as broken:
            inner = self._open[-1].kind if self._open else "schema"
            message = expat.ErrorString(broken.code)
            raise refused(inner, message, "well-formed XML", broken.lineno) from broken
        assert self._root is not None, "a document without a root is not well-formed"
        return self._root

    # -- what the parser finds -------------------------------------------------------------------

    def _refuse_doctype(self, name: str, *_: object) -> None:
        line = self._parser.CurrentLineNumber
        raise refused(name, "a document type", "none: no entities are declared", line)

    def _begin(self, kind: str, said: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        opened = _Open(kind, line, said)
        if kind not in _ATTRIBUTES:
            raise opened.wrong(kind, f"one of {', '.join(_ATTRIBUTES)}")
        if (kind == "schema") != (not self._open):
            raise opened.wrong("this place", "<schema> at the root and nowhere else")
        if len(self._open) >= _MOST_DEPTH:
            raise opened.wrong(f"{len(self._open)} levels", "fewer elements in one another")
        known = _ATTRIBUTES[kind]
        if unknown := [name for name in said if name not in known]:
            raise opened.wrong(unknown[0], ", ".join(known) or "no attributes")
        if self._open:
            self._close_text(self._open[-1])
        self._open.append(opened)

    def _say(self, data: str) -> None:
        inner = self._open[-1]
        if not inner.text:
            inner.text_line = self._parser.CurrentLineNumber
        inner.text += data

    def _end(self, kind: str) -> None:
        closed = self._open.pop()
        self._close_text(closed)
        made = _MAKE[kind](self, closed)
        if isinstance(made, Schema):
            self._root = made
        else:
            self._open[-1].children.append(made)

    def _close_text(self, element: _Open) -> None:
        text, element.text = element.text, ""
        text = _BREAK.sub("\n", text)
        behind = element.children[-1] if element.children else None
        if not isinstance(behind, Parameter):
            text = text.removeprefix("\n")
        if text:
            element.children.append(Text(text, element.text_line))

    # -- what elements become --------------------------------------------------------------------

    def _schema(self, of: _Open) -> Schema:
        return Schema(_named(of), tuple(of.children), of.line)

    def _module(self, of: _Open) -> Module:
        cache = of.said.get("cache", "true")
        if cache not in ("true", "false"):
            raise of.wrong(cache, "cache: true or false")
        children = tuple(of.children)
        if (source := of.said.get("src")) is not None:
            if children:
                raise of.wrong(source, "src, or something within, not both")
            children = (Text(self._file(of, source), of.line),)
        return Module(_named(of), children, cache == "true", of.line)

    def _union(self, of: _Open) -> Union:
        members = list[Module]()
        for child in of.children:
            if isinstance(child, Module):
                members.append(child)
            elif not isinstance(child, Text) or child.text.strip():
                got = child.text if isinstance(child, Text) else "another element"
                raise refused("union", got, "modules alone", getattr(child, "line", of.line))
        return Union(tuple(members), of.said.get("scaffold", ""), of.line)

    def _parameter(self, of: _Open) -> Parameter:
        if of.children:
            raise of.wrong("something within", "nothing within; scaffold is an attribute")
        length = of.said.get("length", "")
        if not re.fullmatch(r"[0-9]{1,7}", length):
            raise of.wrong(length or None, "length: tokens that are reserved, 1 or more")
        return Parameter(_named(of), int(length), of.said.get("scaffold", ""), of.line)

    def _message(self, of: _Open) -> Message:
        role: Role = next(role for role in ROLES if role == of.kind)
        return Message(role, tuple(of.children), of.line)

    def _file(self, of: _Open, source: str) -> str:
        """Raises RequestError for what is not below the folder, whatever links lie in between."""
        if self._folder is None:
            raise of.wrong(source, "no src: no folder is set for it")
        folder = self._folder.resolve()
        try:
            path = (folder / source).resolve()
            if not path.is_relative_to(folder) or not path.is_file():
                raise of.wrong(source, "src: a file below the folder that is set for it")
            self._left -= path.stat().st_size
            if self._left < 0:
                raise of.wrong(source, f"src: files of at most {MOST_CHARACTERS} bytes together")
            return path.read_text("utf-8")
        except (OSError, ValueError) as failed:
            if isinstance(failed, RequestError):
                raise
            raise of.wrong(source, "src: a file in UTF-8 that can be read") from failed


def _named(of: _Open) -> str:
    if (name := of.said.get("name")) is None:
        raise of.wrong(None, "a name; it is required")
    return name


_MAKE: Mapping[str, Callable[[_Reader, _Open], Child | Schema]] = {
    "schema": _Reader._schema,
    "module": _Reader._module,
    "union": _Reader._union,
    "parameter": _Reader._parameter,
    **dict.fromkeys(ROLES, _Reader._message),
}
