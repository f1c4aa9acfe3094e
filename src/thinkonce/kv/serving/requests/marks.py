"""Marked parts of messages: cut out while a template is applied, tokenised on their own.

    content      Read these.  | (part marked as doc-7)
    template     Read these.\\n mark3f9c0e                   what the template gets
    pieces       <|im_start|>user\\nRead these.\\n | doc-7 | <|im_end|>\\n
    tokens       as the rest is cut              | alone | as the rest is cut

So a document has the same tokens wherever it stands. The model sees seams that one text would not
have; what is compared with what is always the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.prompt import Method, Prompt, Span
from thinkonce.kv.serving.requests.veil import MARK, Veil

__all__ = ("Marks",)

_MOST_PARTS = 1024


class _Marked(NamedTuple):
    text: str
    method: Method
    document: str


class Marks:
    """Of one request. Not thread-safe."""

    def __init__(self, veil: Veil) -> None:
        self._veil = veil
        self._parts: dict[str, _Marked] = {}  # by what stands for them

    def stand_in(self, text: str, method: Method, document: str) -> str:
        """What the template gets in place of this part. Raises RequestError for too many."""
        if len(self._parts) >= _MOST_PARTS:
            raise RequestError("messages", "more marked parts", f"up to {_MOST_PARTS} of them")
        mark = self._veil.mark()
        self._parts[mark] = _Marked(text, method, document)
        return mark

    def are_in(self, rendered: str) -> bool:
        """Whether the template has written every one of them as it was."""
        return self._parts.keys() <= set(MARK.findall(rendered))

    def typed(self, rendered: str) -> str:
        """The text that the model gets."""
        pieces = self._pieces(rendered)
        return "".join(p.text if isinstance(p, _Marked) else self._veil.typed(p) for p in pieces)

    def prompt(self, rendered: str) -> Prompt:
        """Raises RequestError as `Veil.tokens`."""
        tokens, spans = list[int](), list[Span]()
        for piece in self._pieces(rendered):
            if not isinstance(piece, _Marked):
                tokens += self._veil.tokens(piece)
                continue
            start = len(tokens)
            tokens += self._veil.text_tokens(piece.text)
            if len(tokens) > start:
                spans.append(Span(start, len(tokens), piece.method, piece.document))
        return Prompt(tokens, spans)

    def _pieces(self, rendered: str) -> Iterator[str | _Marked]:
        start = 0
        for found in MARK.finditer(rendered) if self._parts else ():
            if (part := self._parts.get(found[0])) is not None:
                if found.start() > start:
                    yield rendered[start : found.start()]
                yield part
                start = found.end()
        if start < len(rendered):
            yield rendered[start:]
