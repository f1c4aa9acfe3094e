"""An answer of the Responses API made ready for hits.

Its id stays the upstream's: clients send it back as `previous_response_id`, or ask the upstream
for it. So does its time, which belongs to the same object there.
"""

from __future__ import annotations

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.prepared import JSON, TemplatedReply
from thinkonce.protocols.reply import Shape
from thinkonce.protocols.responses.events import END, brief, cut_for_marks
from thinkonce.protocols.responses.shapes import split, whole_of
from thinkonce.protocols.sse import frame
from thinkonce.protocols.template import Template, template_with_gaps

__all__ = ("ResponsesPrepared",)

_STREAM = "stream"


class ResponsesPrepared(TemplatedReply):
    """See `dialect.Prepared`. Its templates have no place for a stamp."""

    def form(self, asked: Asked) -> str:
        return _STREAM if asked.stream else JSON

    def make(self, form: str) -> Template | None:
        reply = self.reply
        if form is JSON:
            body = reply.body if reply.shape is Shape.JSON else whole_of(reply.events)
            return None if body is None else _json_template(unmarked(body))
        events = split(unmarked(reply.body)) if reply.shape is Shape.JSON else reply.events
        return None if events is None else _stream_template(list(events), named=not reply.unnamed)


def _json_template(body: bytes) -> Template:
    head = body.rstrip()[:-1].rstrip()
    return template_with_gaps([head, body[len(head) :]])


def _stream_template(events: list[bytes], *, named: bool) -> Template:
    pieces = [b""]
    for data in events:
        kind = brief(data).type if data.startswith(b"{") else ""
        parts = cut_for_marks(data) if kind in END else [data]
        before, after = _framing(kind if named else "")
        pieces[-1] += before + parts[0]
        pieces += parts[1:]
        pieces[-1] += after
    return template_with_gaps(pieces)


def _framing(name: str) -> tuple[bytes, bytes]:
    framed = frame(b"", name)
    return framed[:-2], framed[-2:]
