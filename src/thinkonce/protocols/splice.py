"""Changing a few members of a JSON object without parsing or writing the rest.

Only for bytes already known to be a JSON object; others take no longer. Strings are stepped over
whole, so a brace or a name inside a text is never taken for structure:

    {"id":"a","text":"say \\"id\\": {"}
     ^start   ^value ^end                 of the member `id`
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from math import inf
from typing import NamedTuple

__all__ = ("Member", "add", "members", "put", "without")

# Linear time, whatever the text: possessive quantifiers, and a string without an end is one token.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"(\s*+:\s*+)?|\\?\Z)|[\[\]{}]', re.DOTALL)
_OPENING = frozenset(b"[{")
_QUOTE = b'"'[0]


class Member(NamedTuple):
    """Offsets: the name begins at `start`, the value is `[value, end)`."""

    name: str
    start: int
    value: int
    end: int


def members(raw: bytes, only: Collection[str] = (), most: float = inf) -> list[Member]:
    """The members of the outermost object, in order, repeated names included.

    With `only`, the search ends as soon as each of these names was found; with `most`, as soon as
    so many members were.
    """
    found: list[Member] = []
    missing = set(only)
    open_member: tuple[str, int, int] | None = None
    depth = 0
    for token in _TOKEN.finditer(raw):
        start = token.start()
        first = raw[start]
        if first == _QUOTE:
            if depth != 1 or not token.lastindex:
                continue
            if open_member is not None:
                # Between a value and the next name there is one comma and white space.
                _close(raw, found, open_member, raw.rindex(b",", open_member[2], start))
                if (only and not missing) or len(found) >= most:
                    return found
            open_member = (_name(raw[start : token.start(1)]), start, token.end())
            missing.discard(open_member[0])
        elif first in _OPENING:
            depth += 1
        else:
            depth -= 1
            if depth == 0 and open_member is not None:
                _close(raw, found, open_member, start)
    return found


def _close(raw: bytes, found: list[Member], member: tuple[str, int, int], end: int) -> None:
    name, start, value = member
    found.append(Member(name, start, value, value + len(raw[value:end].rstrip())))


def _name(quoted: bytes) -> str:
    return quoted[1:-1].decode() if b"\\" not in quoted else str(json.loads(quoted))


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


def put(raw: bytes, name: str, value: bytes) -> bytes:
    """`raw` with `value` for every member called `name`; added at the end if there is none."""
    pieces, at = [], 0
    for member in members(raw):
        if member.name == name:
            pieces += [raw[at : member.value], value]
            at = member.end
    if not pieces:
        return add(raw, json.dumps(name).encode() + b":" + value)
    return b"".join((*pieces, raw[at:]))
