"""A chat or text completion made ready for hits, in whichever shape they ask for."""

from __future__ import annotations

import msgspec

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.chunks.reader import ENDED, USAGE, USAGE_ONLY, ChunkReader
from thinkonce.protocols.chunks.shapes import Shapes
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.prepared import JSON, TemplatedReply, json_template
from thinkonce.protocols.reply import Reply, Shape
from thinkonce.protocols.splice import add, without
from thinkonce.protocols.sse import DONE, frame
from thinkonce.protocols.template import Template, TemplateMaker

__all__ = ("ChunkPrepared",)

_STREAM = "stream"
_STREAM_WITH_USAGE = "stream with usage"

_encode = msgspec.json.Encoder().encode


class ChunkPrepared(TemplatedReply):
    """See `dialect.Prepared`."""

    def __init__(self, reply: Reply, shapes: Shapes) -> None:
        super().__init__(reply)
        self._shapes = shapes

    def form(self, asked: Asked) -> str:
        if not asked.stream:
            return JSON
        return _STREAM_WITH_USAGE if asked.include_usage else _STREAM

    def make(self, form: str) -> Template | None:
        if form is JSON:
            body = self._body()
            return None if body is None else json_template(body)
        events = self._events(with_usage=form is _STREAM_WITH_USAGE)
        if events is None:
            return None
        return _stream_template(events, form is _STREAM_WITH_USAGE)

    def _body(self) -> bytes | None:
        reply = self.reply
        if reply.shape is Shape.JSON:
            return unmarked(reply.body)
        whole = self._shapes.assemble(reply.events)
        if whole is None:
            return None
        if reply.usage:
            whole["usage"] = msgspec.Raw(reply.usage)
        try:
            return _encode(whole)
        except UnicodeEncodeError:  # half a surrogate pair: only the chunks can say it
            return None

    def _events(self, *, with_usage: bool) -> list[bytes] | None:
        reply = self.reply
        if reply.shape is Shape.JSON:
            chunks = self._shapes.split(parse_chunk(reply.body))
            if not chunks or not with_usage:
                return chunks
            return [*(add(chunk, b'"usage":null') for chunk in chunks), _usage_chunk(chunks, reply)]
        events = [unmarked(data) for data in reply.events]
        if not with_usage:
            return _stripped(events) if reply.usage_asked else events
        reported = reply.usage and not reply.usage_estimated
        return events if reported or not events else [*events, _usage_chunk(events, reply)]


def _usage_chunk(chunks: list[bytes], reply: Reply) -> bytes:
    like = without(chunks[-1], ("choices", "usage"))
    return add(like, b'"choices":[],"usage":' + (reply.usage or b"null"))


def _stripped(events: list[bytes]) -> list[bytes]:
    """Chunks as they would have come had nobody asked for usage."""
    reader = ChunkReader(0)
    return [
        without(data, ("usage",)) if b'"usage"' in data else data
        for data in events
        if not reader.read(data) & USAGE_ONLY
    ]


def _stream_template(events: list[bytes], with_usage: bool) -> Template:
    place = _place_of_marks(events, with_usage)
    maker = TemplateMaker()
    for number, data in enumerate(events):
        maker.add(data, b"data: ", b"\n\n", annotated=number == place)
    maker.add_fixed(frame(DONE))
    return maker.make()


def _place_of_marks(events: list[bytes], with_usage: bool) -> int:
    """The last chunk with usage if it is wanted, else the last one that ends a choice.

    Looked for from the end, where it is; -1 if there is none.
    """
    for number in range(len(events) - 1, -1, -1):
        reader = ChunkReader(1)
        flags = reader.read(events[number])
        if flags & (USAGE if with_usage else ENDED):
            return number
    return -1
