"""Chunks of a chat or text completion, followed one by one."""

from __future__ import annotations

from typing import Any

import msgspec

from thinkonce.protocols.bounds import all_keepable
from thinkonce.protocols.chunks.chat_shapes import REASONING
from thinkonce.protocols.estimate import Said
from thinkonce.protocols.merging import parse_chunk

__all__ = ("ENDED", "USAGE", "USAGE_ONLY", "ChunkReader", "says_something")

# Flags of an event, for relays.
ENDED = 1  # every choice has its finish reason, with this event or before it
USAGE = 2  # it carries usage
USAGE_ONLY = 4  # ... and no choice

_NOT_SAID = frozenset({"role", "annotations", "reasoning_details", *REASONING})


class _Choice(msgspec.Struct):
    index: int = 0
    delta: dict[str, Any] | None = None
    text: Any = None  # what text completions have for a delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: Any = None  # see `chunk_answer.ChunkAnswer`
    created: Any = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


def _parse(data: bytes) -> _Chunk:
    """Raises ValueError for what is no chunk."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.convert(parse_chunk(data), _Chunk)


class ChunkReader:
    """Follows chunks one by one and keeps what they amount to, without assembling them.

    `read` raises ValueError for data that is no chunk.
    """

    def __init__(self, answers: int, *, keep_text: bool = False) -> None:
        self.id = self.model = ""
        self.created: float = 0
        self.usage: dict[str, Any] | None = None
        self.failed = False
        self.finishes: dict[int, str | None] = {}
        self._flags = 0 if answers else ENDED
        self._answers = answers
        self._keep_text = keep_text
        self._spoken: set[int] = set()
        self._texts: dict[int, list[str]] = {}
        self.said = Said()  # for as long as nobody has counted
        self._called: set[int] = set()
        self._went_on = False  # a choice said more behind its end, or ended otherwise

    def read(self, data: bytes) -> int:
        """The flags of this chunk."""
        chunk = _parse(data)
        if chunk.error is not None:
            self.failed = True
        if not self.id:
            self.id = chunk.id if isinstance(chunk.id, str) else ""
            self.model = chunk.model or ""
            self.created = chunk.created if isinstance(chunk.created, int | float) else 0
        for choice in chunk.choices or ():
            if choice.finish_reason is None and self._only_says(choice):
                continue
            ended = self.finishes.get(choice.index)
            if ended is not None and _goes_on(choice, ended):
                self._went_on = True
            if choice.delta:
                self._note_delta(choice.index, choice.delta)
            elif choice.text:
                self._note_delta(choice.index, {"content": choice.text})
            if choice.finish_reason is not None or choice.index not in self.finishes:
                self._note_finish(choice.index, choice.finish_reason)
        if chunk.usage is None:
            return self._flags
        self.usage = chunk.usage
        return self._flags | (USAGE if chunk.choices else USAGE | USAGE_ONLY)

    def _only_says(self, choice: _Choice) -> bool:
        """By far the most frequent case: one more piece of a text that is being said."""
        index, delta = choice.index, choice.delta
        if not delta or len(delta) > 1 or self._keep_text or self.usage is not None:
            return False
        text = delta.get("content")
        known = index in self._spoken and self.finishes.get(index, "") is None
        if not known or type(text) is not str or text.startswith("data:"):
            return False
        self.said.add(text)
        return True

    def _note_finish(self, index: int, finish: str | None) -> None:
        self.finishes[index] = finish
        ended = [finish for finish in self.finishes.values() if finish is not None]
        if len(ended) >= self._answers:
            self._flags = ENDED

    def _note_delta(self, index: int, delta: dict[str, Any]) -> None:
        if index not in self._spoken and says_something(delta):
            self._spoken.add(index)
        if self.usage is None:
            self.said.add_texts(delta)
        if self._keep_text:
            self._note_text(index, delta)

    def _note_text(self, index: int, delta: dict[str, Any]) -> None:
        text = delta.get("content")
        if isinstance(text, str):
            self._texts.setdefault(index, []).append(text)
        if delta.get("tool_calls") or delta.get("function_call") or delta.get("refusal"):
            self._called.add(index)

    @property
    def empty(self) -> bool:
        return len(self._spoken) < len(self.finishes)

    @property
    def odd(self) -> bool:
        """Whether something in it has no place in a record."""
        return self._went_on or not all_keepable(
            (self.id, self.model, self.created, self.usage, list(self.finishes.values()))
        )

    def ordered_finishes(self) -> tuple[str | None, ...]:
        return tuple(self.finishes[index] for index in sorted(self.finishes))

    def texts(self) -> tuple[str, ...]:
        """Of the choices that answered in words."""
        return tuple(
            "".join(pieces) for index, pieces in self._texts.items() if index not in self._called
        )


def _goes_on(choice: _Choice, ended: str) -> bool:
    """Whether a choice that has ended says more, or ends otherwise.

    Some servers repeat its role, empty content and its end beside usage: that says nothing.
    """
    said = any(value and name != "role" for name, value in (choice.delta or {}).items())
    return said or bool(choice.text) or choice.finish_reason not in (None, ended)


def says_something(message: dict[str, Any]) -> bool:
    """Whether a message or a piece of one has content, a call or a refusal."""
    return any(value and name not in _NOT_SAID for name, value in message.items())
