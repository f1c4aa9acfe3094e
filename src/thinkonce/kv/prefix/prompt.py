"""A prompt as generators take it: its tokens, and which of them are documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

from thinkonce.settings.kv import KvMethod

__all__ = ("METHODS", "Method", "Prompt", "Span")

Method = KvMethod
METHODS: tuple[Method, ...] = get_args(Method)


class Span(NamedTuple):
    """The tokens [start, end) of a prompt, which somebody marked and which were cut on their own.

    `method`: how their attention state may be reused. `document`: the client's name for them, by
    which they are purged; "" for none.
    """

    start: int
    end: int
    method: Method = "exact"
    document: str = ""


class Prompt(tuple[int, ...]):
    """Token ids, with `spans` in their order, none within another. A slice of it is bare ids."""

    spans: tuple[Span, ...]

    def __new__(cls, tokens: Iterable[int], spans: Iterable[Span] = ()) -> Prompt:
        made = super().__new__(cls, tokens)
        made.spans = tuple(spans)
        return made

    @classmethod
    def of(cls, tokens: Sequence[int]) -> Prompt:
        """The same where it is one, else bare ids without spans."""
        return tokens if isinstance(tokens, Prompt) else cls(tokens)

    def until(self, end: int) -> Prompt:
        """The first `end` tokens, and what of the spans lies in them: a document that goes on
        behind them marks what there is of it.
        """
        spans = (span for span in self.spans if span.start < end)
        return Prompt(self[:end], (span._replace(end=min(span.end, end)) for span in spans))

    @property
    def is_plain(self) -> bool:
        """Whether its answer goes on as behind any text: only then may a decoder take it."""
        return True

    @property
    def end(self) -> int:
        """The position behind its last token."""
        return len(self)

    def room_ahead(self, keepable: int) -> int:
        """Rows that reading it ahead takes, of which so many are kept: parts that are read on
        their own may leave tokens between them.
        """
        return len(self) if self.spans else keepable

    @property
    def documents(self) -> tuple[str, ...]:
        """Names of marked parts, sorted, each once."""
        return tuple(sorted({span.document for span in self.spans if span.document}))
