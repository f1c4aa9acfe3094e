"""Events of the Responses API: what is where in one.

    {"type":"response.completed","response":{"id":...,"output":[...]},"sequence_number":9}
            ^type                           ^answer                ^marks                ^marks

The marks go to both places: a client that reads events finds them on the event, one that takes
the answer out of it (as the official client's `get_final_response` does) on the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.splice import members

__all__ = ("END", "Brief", "brief", "cut_for_marks", "number_after", "response_in")

# The types of the last event, which holds the whole answer.
END = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Brief(msgspec.Struct):
    """What any event says of itself."""

    type: str = ""
    delta: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(Brief).decode


def brief(data: bytes) -> Brief:
    """Raises ValueError or RecursionError for what is no event."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.convert(parse_chunk(data), Brief)


def number_after(data: bytes) -> int:
    """The `sequence_number` of what follows the event with this data; 0 where it has none."""
    try:
        event = parse_chunk(data)
    except (ValueError, RecursionError):
        return 0
    number = event.get("sequence_number") if isinstance(event, dict) else None
    return number + 1 if type(number) is int else 0


def response_in(data: bytes) -> bytes:
    """The answer inside an event. Raises ValueError where there is none."""
    start, end = _span(data)
    return data[start:end]


def cut_for_marks(data: bytes) -> list[bytes]:
    """An event with an answer in it, cut where the marks go, each after a comma."""
    data = unmarked(data)
    start, end = _span(data)
    rest = data[end:]
    return [data[:start] + _opened(unmarked(data[start:end])), b"}" + _opened(rest), b"}"]


def _span(data: bytes) -> tuple[int, int]:
    # The last one of a name is what every parser takes.
    found = [member for member in members(data) if member.name == "response"]
    if not found or not data.startswith(b"{", found[-1].value):
        raise ValueError("an event without an answer in it")
    return found[-1].value, found[-1].end


def _opened(text: bytes) -> bytes:
    """`text` without its last brace."""
    return text.rstrip()[:-1].rstrip()
