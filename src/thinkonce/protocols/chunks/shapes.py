"""What chat and text completions share of their two shapes: all but the inside of a choice.

    chunks                                         object
    id, model, ...      the first that says it <-> as it is
    choices[i]          piece by piece         <-> choices in order of their index
    anything else, if all chunks agree on it   <-> as it is

What chunks do not agree on cannot be merged without loss: then there is no object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from thinkonce.protocols.bounds import all_keepable
from thinkonce.protocols.merging import Object, Unmergeable, agree, parse_chunk

__all__ = ("Shapes", "assemble_chunks", "split_chunks")

_PADDING = frozenset({"obfuscation", "p"})  # random text against traffic analysis
_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")

_encode = msgspec.json.Encoder().encode


class Shapes(NamedTuple):
    """One dialect's way from chunks to the object, and back; None where something would be lost."""

    assemble: Callable[[Sequence[bytes]], Object | None]
    split: Callable[[Any], list[bytes] | None]


def assemble_chunks(
    events: Sequence[bytes],
    kind: str,
    merge_choice: Callable[[Object, Object], None],
    finish: Callable[[Object], Object],
) -> Object | None:
    """The object (`kind` names it) the chunks amount to; None if that cannot be told.

    `merge_choice(into, piece)` adds one piece of a choice, `finish` completes the choice.
    """
    whole: Object = {}
    choices: dict[int, Object] = {}
    try:
        for data in events:
            _merge_chunk(whole, choices, parse_chunk(data), merge_choice)
        if "object" in whole:
            whole["object"] = kind
        whole["choices"] = [finish(choices[index]) for index in sorted(choices)]
    except (Unmergeable, AttributeError, TypeError):  # the last two: not a chunk as we know it
        return None
    return whole if all_keepable((whole,)) else None


def _merge_chunk(
    whole: Object,
    choices: dict[int, Object],
    chunk: Object,
    merge_choice: Callable[[Object, Object], None],
) -> None:
    for name, value in chunk.items():
        if name == "choices":
            whole.setdefault("choices", None)  # its place among the members
            for choice in value or ():
                index = choice.get("index", 0)
                merge_choice(choices.setdefault(index, {"index": index}), choice)
        elif name in _HEAD:
            whole[name] = whole.get(name) or value
        elif name == "usage":
            whole[name] = whole.get(name) if value is None else value
        elif name not in _PADDING:
            whole[name] = agree(whole.get(name), value)


def split_chunks(
    body: Object, kind: str, pieces: Callable[[Object], Iterator[Object]]
) -> list[bytes] | None:
    """Chunks (`kind` names them) that assemble to `body`, without any usage.

    `pieces` gives a choice piece by piece. None if `body` is no such answer, or what it holds
    cannot be written down again.
    """
    try:
        if not all_keepable((body,)) or not _are_apart(body["choices"]):
            return None
        return [_encode(chunk) for chunk in _chunks(body, kind, pieces)]
    except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
        return None


def _are_apart(choices: list[Object]) -> bool:
    """Whether no two choices have one index, by which clients would put them together."""
    return len({choice.get("index", at) for at, choice in enumerate(choices)}) == len(choices)


def _chunks(
    body: Object, kind: str, pieces: Callable[[Object], Iterator[Object]]
) -> Iterator[Object]:
    head = {name: body[name] for name in _HEAD if name in body}
    head["object"] = kind
    extras = {name: body[name] for name in body if name not in (*_HEAD, "choices", "usage")}
    for position, choice in enumerate(body["choices"]):
        for piece in pieces({"index": position, **choice}):
            yield {**head, "choices": [piece], **extras}
            extras = {}
