"""A Messages stream, taken in as it comes, and passed on to each client with its marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.bounds import encodable
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.intake import Intake
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.messages.reader import EventReader, counted, estimated_usage
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.splice import add
from thinkonce.protocols.sse import Event, frame
from thinkonce.protocols.usage import Usage, estimate_usage, usage_text

__all__ = ("MessagesRecorder", "MessagesRelay")

# Flags of an event, for relays and for what is kept.
_STOP = 1
_PING = 2


class MessagesRecorder(Intake):
    """See `dialect.Recorder`."""

    def __init__(self, asked: Asked, *, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._asked = asked
        self._reader = EventReader(keep_text=asked.wants_json)

    def note(self, event: Event, data: bytes) -> None:
        try:
            kind = self._reader.read(data)
        except (ValueError, OverflowError, RecursionError):
            self.failed = True
            return
        if kind == "error" or event.name == "error":
            self.failed = True
        elif kind == "message_stop":
            event.flags, self.done = _STOP, True
        elif kind == "ping":
            event.flags = _PING

    def gist(self) -> Gist:
        reader = self._reader
        return Gist(
            done=self.done,
            failed=self.failed,
            oversized=self.oversized,
            odd=reader.odd,
            finishes=(reader.finish,),
            empty=reader.empty,
            texts=reader.texts(),
            size=self.size,
        )

    def end(self) -> Reply | None:
        self.rest()
        if not self.done or self.failed or self.oversized:
            return None
        reader = self._reader
        usage = reader.usage
        try:
            tokens = self._estimated() if usage is None else counted(usage)
        except (ValueError, RecursionError):  # in a member that nobody has looked at so far
            self.failed = True
            return None
        return Reply(
            status=200,
            content_type="text/event-stream",
            shape=Shape.STREAM,
            # A line end inside JSON is white space: one line makes the event simple to frame.
            events=tuple(data.replace(b"\n", b" ") for data in self._data()),
            usage=estimated_usage(tokens) if usage is None else usage_text(usage),
            usage_asked=True,
            usage_estimated=usage is None,
            finishes=(encodable(reader.finish or ""),),
            model=encodable(reader.model),
            source_id=encodable(reader.id),
            prompt_tokens=tokens.prompt_tokens,
            completion_tokens=tokens.completion_tokens,
        )

    def _data(self) -> list[bytes]:
        data: list[bytes] = []
        for event in self.events:
            if event.data is not None and event.flags != _PING:
                data.append(event.data)
            if event.flags == _STOP:
                break
        return data

    def _estimated(self) -> Usage:
        deltas = [parse_chunk(data).get("delta") for data in self._data()]
        return estimate_usage(self._asked, deltas)


class MessagesRelay:
    """See `dialect.Relay`. An event is changed only to put the marks in."""

    def __init__(self, annotate: Callable[[], bytes] | None) -> None:
        self._annotate = annotate

    def pass_on(self, events: Sequence[Event]) -> bytes:
        return b"".join([self._passed(event) for event in events])

    def fail(self, error: bytes) -> bytes:
        return frame(error, "error")

    def _passed(self, event: Event) -> bytes:
        if event.flags != _STOP or self._annotate is None or event.data is None:
            return event.raw
        marked = add(unmarked(event.data), self._annotate())
        self._annotate = None
        if event.data in event.raw:
            return event.raw.replace(event.data, marked, 1)
        return frame(marked.replace(b"\n", b" "), "message_stop")  # its data took several lines
