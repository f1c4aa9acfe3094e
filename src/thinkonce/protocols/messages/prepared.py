"""A message made ready for hits, as JSON or as a stream."""

from __future__ import annotations

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.messages.reader import kind_of
from thinkonce.protocols.messages.shapes import assemble, split
from thinkonce.protocols.prepared import JSON, TemplatedReply, json_template
from thinkonce.protocols.reply import Reply, Shape
from thinkonce.protocols.splice import add, members, without
from thinkonce.protocols.template import Template, TemplateMaker

__all__ = ("MessagesPrepared",)

_STREAM = "stream"


class MessagesPrepared(TemplatedReply):
    """See `dialect.Prepared`."""

    def form(self, asked: Asked) -> str:
        return _STREAM if asked.stream else JSON

    def make(self, form: str) -> Template | None:
        if form is JSON:
            body = _body_of(self.reply)
            return None if body is None else json_template(body)
        events = _events_of(self.reply)
        return None if events is None else _stream_template(events)


def _body_of(reply: Reply) -> bytes | None:
    if reply.shape is Shape.JSON:
        return unmarked(reply.body)
    body = assemble(reply.events)
    return body if body is None else _counted(unmarked(body), reply)


def _events_of(reply: Reply) -> tuple[bytes, ...] | list[bytes] | None:
    if reply.shape is Shape.STREAM:
        return reply.events
    return split(_counted(unmarked(reply.body), reply))


def _counted(body: bytes, reply: Reply) -> bytes:
    """Every client reads usage here: where none came, the estimate that says so stands in."""
    if not reply.usage_estimated:
        return body
    return add(without(body, ("usage",)), b'"usage":' + reply.usage)


def _stream_template(events: tuple[bytes, ...] | list[bytes]) -> Template:
    """The id is in the first event alone, the marks are in the last: all between is one piece."""
    maker = TemplateMaker()
    between: list[bytes] = []  # joined at once: added one by one, each would copy all before it
    for data in events:
        kind = kind_of(data)
        before = b"event: %b\ndata: " % kind.encode()
        if kind not in ("message_start", "message_stop"):
            between.append(before + data + b"\n\n")
            continue
        maker.add_fixed(b"".join(between))
        between.clear()
        if kind == "message_start":
            _add_start(maker, data, before)
        else:
            maker.add(unmarked(data), before, b"\n\n", annotated=True)
    return maker.make()


def _add_start(maker: TemplateMaker, data: bytes, before: bytes) -> None:
    message = next((each for each in members(data) if each.name == "message"), None)
    if message is None:
        maker.add_fixed(before + data + b"\n\n")
        return
    inner = data[message.value : message.end]
    before += data[: message.value]
    maker.add(inner, before, data[message.end :] + b"\n\n", annotated=False)
