"""Pieces of one answer put together, and one text cut into pieces, without loss or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ("Object", "Unmergeable", "agree", "joined", "merge_lists", "parse_chunk", "pieces_of")

Object = dict[str, Any]

_PIECES = 8  # of a text that came whole
_SHORTEST = 32  # characters of a piece; a shorter text is one

_decode = msgspec.json.Decoder().decode


class Unmergeable(Exception):
    """Two pieces say different things and nothing tells how they belong together."""


def parse_chunk(data: bytes) -> Any:
    """Also what msgspec refuses, such as half of a surrogate pair. Raises ValueError."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data)


def joined(old: Any, new: Any) -> Any:
    """Texts and lists one after the other; for anything else both must be the same.

    Raises Unmergeable.
    """
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    return agree(old, new)


def merge_lists(old: Any, new: Any) -> Any:
    """Two objects whose members are joined one by one. Raises Unmergeable."""
    if old is None or new is None:
        return new if old is None else old
    return {name: joined(old.get(name), new.get(name)) for name in {**old, **new}}


def agree(old: Any, new: Any) -> Any:
    """What both say, where one may say nothing. Raises Unmergeable."""
    if old == new and type(old) is type(new):
        return old
    if old is None or old in ("", {}, []):
        return old if new is None else new
    if new is None or new in ("", {}, []):
        return old
    if isinstance(old, dict) and isinstance(new, dict):
        return {name: agree(old.get(name), new.get(name)) for name in {**old, **new}}
    raise Unmergeable


def pieces_of(text: str) -> Iterator[str]:
    """`text` as a stream would bring it: in a few pieces."""
    size = max(_SHORTEST, -(-len(text) // _PIECES))
    for start in range(0, len(text), size):
        yield text[start : start + size]
