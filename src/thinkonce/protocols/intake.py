"""What every recorder of a stream does: take bytes in, look at each event, keep within bounds."""

from __future__ import annotations

from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.sse import DONE, Event, EventParser

__all__ = ("Intake",)

# One event may be held up to this many bytes even where nothing is kept: cut in pieces it could
# carry no marks.
_LEAST_EVENT = 64 * 1024


class Intake:
    """The part of a `dialect.Recorder` that knows no dialect. Not thread-safe.

    A dialect's recorder says in `note` what an event means and sets `done` at the end mark,
    after which nothing is looked at any more, and `failed` for what cannot be kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.events: list[Event] = []
        self.oversized = False
        self.size = 0  # bytes so far
        self.done = False
        self.failed = False
        self._max_bytes = max_bytes
        self._parser = EventParser(max(max_bytes, _LEAST_EVENT))

    def feed(self, chunk: bytes) -> list[Event]:
        self.size += len(chunk)
        return self._took(self._parser.feed(chunk))

    def note(self, event: Event, data: bytes) -> None:
        """Look at an event that has data. Never raises."""
        raise NotImplementedError

    def rest(self) -> list[Event]:
        """What the stream ended in without a blank line, if whole: it is an event, and gets one.

        What was cut off in the middle is none, for clients as for the record.
        """
        return self._took([_closed(event) for event in self._parser.finish() if _is_whole(event)])

    def _took(self, events: list[Event]) -> list[Event]:
        for event in events:
            if event.data is not None and not self.done:
                self.note(event, event.data)
        self._keep(events)
        return events

    def _keep(self, events: list[Event]) -> None:
        if self.size > self._max_bytes or self._parser.oversized:
            self.oversized = True
            self.events = []
        else:
            self.events += events


def _is_whole(event: Event) -> bool:
    data = event.data
    if data is None or data == DONE:
        return data == DONE
    try:
        parse_chunk(data)
    except (ValueError, RecursionError):
        return False
    return True


def _closed(event: Event) -> Event:
    return Event(event.raw.rstrip(b"\n") + b"\n\n", event.data, event.name)
