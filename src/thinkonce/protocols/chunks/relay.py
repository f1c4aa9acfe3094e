"""A stream of chunks, passed on to each client with its marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.chunks.reader import ENDED, USAGE, USAGE_ONLY
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.splice import add, without
from thinkonce.protocols.sse import DONE, Event, frame

__all__ = ("ChunkRelay",)


class ChunkRelay:
    """See `dialect.Relay`. An event is changed only to take usage out or to put the marks in."""

    def __init__(
        self, asked: Asked, annotate: Callable[[], bytes] | None, *, strip_usage: bool = False
    ) -> None:
        self._annotate = annotate
        self._wants_usage = asked.include_usage
        self._strip = strip_usage and not asked.include_usage
        self._last = b""  # data of the last chunk, to make another one like it

    def pass_on(self, events: Sequence[Event]) -> bytes:
        if self._annotate is None and not self._strip:
            return b"".join([event.raw for event in events])
        every = self._strip or self._wants_usage  # else the marks are all there is to put in
        return b"".join(
            [self._passed(event) if every or event.flags & ENDED else event.raw for event in events]
        )

    def fail(self, error: bytes) -> bytes:
        return frame(error)

    def _passed(self, event: Event) -> bytes:
        data = event.data
        if data is None:
            return event.raw
        if data == DONE:
            return self._missing_usage_chunk() + event.raw
        changed = self._without_usage(event, data) if self._strip else data
        if changed is None:
            return b""
        ready = USAGE | ENDED if self._wants_usage else ENDED
        if self._annotate is not None and event.flags & ready == ready:
            changed = add(unmarked(changed), self._annotate())
            self._annotate = None
        if self._wants_usage:
            self._last = data
        return event.raw if changed is data else event.raw.replace(data, changed, 1)

    def _without_usage(self, event: Event, data: bytes) -> bytes | None:
        if event.flags & USAGE_ONLY:
            return None
        return without(data, ("usage",)) if b'"usage"' in data else data

    def _missing_usage_chunk(self) -> bytes:
        """For an upstream that ignores `include_usage`: the client waits for one more chunk."""
        if self._annotate is None or not self._wants_usage or not self._last:
            return b""
        rest = unmarked(without(self._last, ("choices", "usage")))
        marks, self._annotate = self._annotate(), None
        return frame(add(rest, b'"choices":[],"usage":null,' + marks))
