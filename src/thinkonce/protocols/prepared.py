"""An answer made ready for hits: one template for each form it can be handed out in."""

from __future__ import annotations

from collections.abc import Callable

from thinkonce.protocols.dialect import Asked, Stamp
from thinkonce.protocols.reply import Reply
from thinkonce.protocols.template import Template, TemplateMaker

__all__ = ("JSON", "TemplatedReply", "json_template")

JSON = "json"  # the form that is a whole body


class TemplatedReply:
    """See `dialect.Prepared`. Two threads may make a template twice; both are the same.

    A dialect says with `form` which form is asked for, and with `make` what it is made of.
    Where `again` can give the reply another time, it is let go once a template is made of it.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply: Reply | None = reply
        self.again: Callable[[], Reply] | None = None
        self.size = 0  # bytes held besides the reply's own
        self._templates: dict[str, Template | None] = {}

    @property
    def reply(self) -> Reply:
        if self._reply is not None:
            return self._reply
        assert self.again is not None
        return self.again()

    def form(self, asked: Asked) -> str:
        raise NotImplementedError

    def make(self, form: str) -> Template | None:
        """None where the answer cannot take this form without loss."""
        raise NotImplementedError

    def template(self, asked: Asked) -> Template | None:
        return self._template(self.form(asked))

    def serves(self, asked: Asked) -> bool:
        return self._template(self.form(asked)) is not None

    def render(self, asked: Asked, stamp: Stamp | None, annotation: bytes = b"") -> bytes:
        form = self.form(asked)
        if stamp is None and not annotation and form is JSON and self.reply.body:
            return self.reply.body
        template = self._template(form)
        if template is None:
            raise ValueError(f"this answer has no {form} shape; ask `serves` first")
        if annotation:
            annotation = b"," + annotation
        if stamp is None:
            return template.fill(None, b"", annotation)
        return template.fill(b'"%b"' % stamp.id.encode(), b"%d" % stamp.created, annotation)

    def render_events(
        self, asked: Asked, stamp: Stamp | None, annotation: bytes = b""
    ) -> list[bytes]:
        text = self.render(asked, stamp, annotation)
        return [event + b"\n\n" for event in text.split(b"\n\n")[:-1]]

    def _template(self, form: str) -> Template | None:
        try:
            return self._templates[form]
        except KeyError:
            made = self._templates[form] = self.make(form)
            if made is not None:
                self.size += made.size
                if self.again is not None:
                    self._reply = None
            return made


def json_template(body: bytes) -> Template:
    """Of a whole body with its id, its time and its marks at the outermost level."""
    maker = TemplateMaker()
    maker.add(body, b"", b"", annotated=True)
    return maker.make()
