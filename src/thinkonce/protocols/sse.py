"""Server-sent events, cut from bytes that arrive in any pieces.

Line ends may be LF, CRLF or CR; data may span lines; borders may fall anywhere, also inside a
character. Source: the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream".

    chunks   ...a: x\\r | \\n\\r\\nda | ta: y\\n\\n
    events   [..."data: x\\n\\n"] ["data: y\\n\\n"]      joined again: the stream with LF ends
"""

from __future__ import annotations

import msgspec

__all__ = ("DONE", "Event", "EventParser", "frame")

DONE = b"[DONE]"  # OpenAI's end mark
_BOM = b"\xef\xbb\xbf"
_PLAIN, _NAMED = b"data: ", b"event: "


class Event(msgspec.Struct, gc=False):
    """One event, or a comment (`data` is None). `raw` is its text with LF ends, blank line too.

    A piece of an event too large to hold has `data` None and no blank line at its end. `flags`
    belongs to the dialect's recorder, which tells the relays by it what the event brings.
    """

    raw: bytes
    data: bytes | None = None
    name: str = ""
    flags: int = 0


class EventParser:
    """Push bytes in, take complete events out. Not thread-safe.

    An event above `max_event_bytes` comes out in pieces and sets `oversized`, so that memory
    stays bounded and nothing is lost to whoever only passes the stream on.
    """

    def __init__(self, max_event_bytes: int = 1 << 20) -> None:
        self.oversized = False
        self._max_event_bytes = max_event_bytes
        self._rest = b""  # of an event not yet complete
        self._searched = 0  # bytes of `_rest` known to hold no blank line
        self._after_cr = False
        self._started = False
        self._in_pieces = False

    def feed(self, chunk: bytes) -> list[Event]:
        if not self._rest and self._may_be_one_event(chunk):
            event = _short_event(chunk)
            if event is not None:
                return [event]
        if not chunk:
            return []
        text = self._rest + self._with_lf(chunk)
        events: list[Event] = []
        if text.find(b"\n\n", max(self._searched - 1, 0)) >= 0:
            *blocks, text = text.split(b"\n\n")
            events = [self._cut(block) for block in blocks]
        self._rest = text
        self._searched = len(self._rest)
        if self._in_pieces or len(self._rest) > self._max_event_bytes:
            self._give_piece(events)
        return events

    def _may_be_one_event(self, chunk: bytes) -> bool:
        """By far the most frequent case: one short event, and nothing else."""
        return (
            chunk.endswith(b"\n\n") and b"\r" not in chunk and self._started and not self._in_pieces
        )

    def finish(self) -> list[Event]:
        """What the stream ended in, if it ended without a blank line."""
        rest, self._rest, self._searched = self._rest, b"", 0
        return [self._event(rest)] if rest else []

    def _with_lf(self, chunk: bytes) -> bytes:
        """CRLF and CR become LF. A CR ends its line at once; an LF after it belongs to it."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if b"\r" not in chunk:
            self._after_cr = self._after_cr and not chunk
            return chunk
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _give_piece(self, events: list[Event]) -> None:
        # A line end stays here: with the next byte it may be the blank line.
        keep = 1 if self._rest.endswith(b"\n") else 0
        piece = self._rest[: len(self._rest) - keep]
        if piece:
            events.append(Event(piece))
        self._rest, self._searched = self._rest[len(piece) :], keep
        self._in_pieces = self.oversized = True

    def _cut(self, lines: bytes) -> Event:
        """The event of these lines; a blank one came behind them."""
        plain = self._started and not self._in_pieces
        if plain and lines.startswith(_PLAIN) and b"\n" not in lines:
            return Event(lines + b"\n\n", lines[len(_PLAIN) :])
        return self._event(lines + b"\n\n")

    def _event(self, block: bytes) -> Event:
        if self._in_pieces:
            self._in_pieces = False
            return Event(block)
        if not self._started:
            self._started = True
            block = block.removeprefix(_BOM)
        return _short_event(block) or _parse_lines(block)


def frame(data: bytes, name: str = "") -> bytes:
    """`data` (one line) as an event."""
    return (
        b"data: %b\n\n" % data if not name else b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    )


def _short_event(block: bytes) -> Event | None:
    """One line of data, or a name and one line of data; None for anything else."""
    start, name = 0, ""
    if block.startswith(_NAMED):
        start = block.find(b"\n") + 1
        name = block[len(_NAMED) : start - 1].decode("utf-8", "replace")
    if block.startswith(_PLAIN, start) and block.find(b"\n", start) == len(block) - 2:
        return Event(block, block[start + len(_PLAIN) : -2], name)
    return None


def _parse_lines(block: bytes) -> Event:
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    if not data:
        return Event(block)
    return Event(block, b"\n".join(data), name.decode("utf-8", "replace"))
