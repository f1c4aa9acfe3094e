"""A stream of the Responses API, taken in as it comes, and passed on to each client, marked.

response.created ... response.output_text.delta ... response.completed
                                                    ^ the whole object, and the end
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.intake import Intake
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.responses.answer import Response, described, gist_of, read_response
from thinkonce.protocols.responses.events import (
    END,
    brief,
    cut_for_marks,
    number_after,
    response_in,
)
from thinkonce.protocols.sse import DONE, Event, frame

__all__ = ("ResponsesRecorder", "ResponsesRelay")

_ENDED = 1  # flag of the event that holds the whole answer
_THOUGHT = "response.reasoning"  # how the types of events begin that bring no answer yet

_encode = msgspec.json.Encoder().encode


class ResponsesRecorder(Intake):
    """See `dialect.Recorder`."""

    def __init__(self, asked: Asked, *, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._asked = asked
        self._response: Response | None = None
        self._spoken = False
        self._named = False

    def note(self, event: Event, data: bytes) -> None:
        if data == DONE:  # some servers send it, after the real end
            return
        self._named = self._named or bool(event.name)
        try:
            self._read(event, data)
        except (ValueError, OverflowError, RecursionError):
            self.failed = True

    def _read(self, event: Event, data: bytes) -> None:
        read = brief(data)
        if read.type == "error" or event.name == "error" or (read.error and not read.type):
            self.failed = True
        elif read.type in END:
            self._response = _ended_as(read.type, read_response(response_in(data)))
            event.flags = _ENDED
            self.done = True
        elif read.delta and not read.type.startswith(_THOUGHT):
            self._spoken = True

    def gist(self) -> Gist:
        response = self._response
        if response is None:
            return Gist(failed=self.failed, oversized=self.oversized, size=self.size)
        known = gist_of(response, self._asked, self.size)
        return msgspec.structs.replace(
            known,
            failed=known.failed or self.failed,
            oversized=self.oversized,
            # Some servers leave the output out of the last event: it was said before.
            empty=known.empty and not self._spoken,
        )

    def end(self) -> Reply | None:
        self.rest()
        response = self._response
        if response is None or response.failed or self.failed or self.oversized:
            return None
        reply = Reply(
            status=200,
            content_type="text/event-stream",
            shape=Shape.STREAM,
            # A line end inside JSON is white space: one line makes the event simple to frame.
            events=tuple(data.replace(b"\n", b" ") for data in self._data()),
            unnamed=not self._named,
        )
        return described(reply, response, self._asked)

    def _data(self) -> Iterator[bytes]:
        """Up to the answer, and the mark that some servers send after it."""
        ended = False
        for event in self.events:
            if event.data is not None and (not ended or event.data == DONE):
                yield event.data
            ended = ended or bool(event.flags & _ENDED)


def _ended_as(kind: str, response: Response) -> Response:
    """Where the type of the event and the object in it disagree, the worse end counts."""
    status = kind.removeprefix("response.")
    if status == "failed" or response.status == "completed":
        response.status = status
    return response


class ResponsesRelay:
    """See `dialect.Relay`. Only the event with the whole answer is changed."""

    def __init__(self, annotate: Callable[[], bytes] | None) -> None:
        self._annotate = annotate
        self._last = b""  # data of the last event

    def fail(self, error: bytes) -> bytes:
        """With the members the reference names, and the object that servers and clients use."""
        told = msgspec.json.decode(error)["error"]
        named = {name: told.get(name) for name in ("code", "message", "param")}
        number = number_after(self._last)
        event = {"type": "error", **named, "error": told, "sequence_number": number}
        return frame(_encode(event), "error")

    def pass_on(self, events: Sequence[Event]) -> bytes:
        for event in events:
            self._last = event.data or self._last
        if self._annotate is None:
            return b"".join([event.raw for event in events])
        return b"".join([self._passed(event) for event in events])

    def _passed(self, event: Event) -> bytes:
        data = event.data
        if self._annotate is None or data is None or not event.flags & _ENDED:
            return event.raw
        note, self._annotate = self._annotate(), None
        changed = (b"," + note).join(cut_for_marks(data))
        if data in event.raw:
            return event.raw.replace(data, changed, 1)
        return frame(changed.replace(b"\n", b" "), event.name)  # its data took several lines
