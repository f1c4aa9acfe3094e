"""Changing a few members of a JSON object without parsing or writing the rest.

Only for bytes already known to be a JSON object. Strings are stepped over whole, so a brace or a
name inside a text is never taken for structure:

    {"id":"a","text":"say \\"id\\": {"}
     ^start   ^value ^end                 of the member `id`
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import NamedTuple

__all__ = ("Member", "add", "members", "without")

# Possessive quantifiers: linear time, whatever the text.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*+:\s*+)?|[\[\]{}]', re.DOTALL)
_OPENING = frozenset(b"[{")
_CLOSING = frozenset(b"]}")
_QUOTE = b'"'[0]


class Member(NamedTuple):
    """Offsets: the name begins at `start`, the value is `[value, end)`."""

    name: str
    start: int
    value: int
    end: int


def members(raw: bytes) -> list[Member]:
    """The members of the outermost object, in order, repeated names included."""
    found: list[Member] = []
    depth = 0
    for token in _TOKEN.finditer(raw):
        first = raw[token.start()]
        if first == _QUOTE:
            if depth == 1 and token[1] is not None:
                found.append(_begin(raw, token, found))
        elif first in _OPENING:
            depth += 1
        elif first in _CLOSING:
            depth -= 1
            if depth == 0:
                _finish(raw, found, token.start())
    return found


def _begin(raw: bytes, token: re.Match[bytes], found: list[Member]) -> Member:
    if found:
        # Between a value and the next name there is one comma and white space.
        _finish(raw, found, raw.rindex(b",", found[-1].value, token.start()))
    name = raw[token.start() : token.start(1)]
    text = name[1:-1].decode() if b"\\" not in name else json.loads(name)
    return Member(text, token.start(), token.end(), token.end())


def _finish(raw: bytes, found: list[Member], end: int) -> None:
    if found:
        last = found[-1]
        length = len(raw[last.value : end].rstrip())
        found[-1] = last._replace(end=last.value + length)


def without(raw: bytes, names: Collection[str]) -> bytes:
    """`raw` less the members called so; the others byte for byte. Unchanged if there are none."""
    all_members = members(raw)
    kept = [raw[member.start : member.end] for member in all_members if member.name not in names]
    return raw if len(kept) == len(all_members) else b"{" + b",".join(kept) + b"}"


def add(raw: bytes, fragment: bytes) -> bytes:
    """`raw` with the members in `fragment` (`"a":1,"b":2`) at its end."""
    if not fragment:
        return raw
    head = raw.rstrip()[:-1].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return b"".join((head, comma, fragment, b"}"))
