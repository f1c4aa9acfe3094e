"""Follows the events of a Messages stream one by one and keeps what they amount to.

message_start         id, model, usage so far
content_block_start   a block of some type, mostly empty
content_block_delta   ... which grows
content_block_stop
message_delta         the reason for the end, usage in all
message_stop          the end mark; `ping` may come anywhere, `error` ends it early
"""

from __future__ import annotations

from typing import Any

import msgspec

from thinkonce.protocols.bounds import all_keepable, bounded
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.usage import Usage

__all__ = ("EventReader", "counted", "estimated_usage", "kind_of", "said_in", "says_something")

# Blocks that are no answer by themselves.
_QUIET = frozenset({"thinking", "redacted_thinking"})
_PARTS_OF_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class _Head(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: dict[str, Any] | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: Any = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str
    message: _Head | None = None
    content_block: _Part | None = None
    delta: _Part | None = None
    usage: dict[str, Any] | None = None


class _Named(msgspec.Struct):
    type: str


_decode = msgspec.json.Decoder(_Event).decode
_decode_name = msgspec.json.Decoder(_Named).decode
_encode = msgspec.json.Encoder().encode


class EventReader:
    """`read` raises ValueError for data that is no event."""

    def __init__(self, *, keep_text: bool = False) -> None:
        self.id = self.model = ""
        self.usage: dict[str, Any] | None = None
        self.finish: str | None = None
        self.empty = True
        self._keep_text = keep_text
        self._texts: list[str] = []
        self._called = False

    def read(self, data: bytes) -> str:
        """The type of this event."""
        event = _parse(data)
        kind = event.type
        if kind == "content_block_delta":
            self._note_text(event.delta)
        elif kind == "content_block_start":
            self._note_block(event.content_block)
        elif kind == "message_start" and event.message is not None:
            self.id, self.model = event.message.id, event.message.model
            self._note_usage(event.message.usage)
        elif kind == "message_delta":
            self._note_usage(event.usage)
            if event.delta is not None and event.delta.stop_reason is not None:
                self.finish = event.delta.stop_reason
        return kind

    def _note_block(self, block: _Part | None) -> None:
        if block is None:
            return
        if block.type == "text":
            self._note_text(block)
        elif block.type not in _QUIET:
            self.empty = False
            self._called = self._called or block.type.endswith("tool_use")

    def _note_text(self, part: _Part | None) -> None:
        if part is None or not part.text:
            return
        self.empty = False
        if self._keep_text and isinstance(part.text, str):
            self._texts.append(part.text)

    def _note_usage(self, usage: dict[str, Any] | None) -> None:
        """Counts are totals so far: what is not said again stays."""
        if usage is not None:
            said = {name: value for name, value in usage.items() if value is not None}
            self.usage = {**usage, **(self.usage or {}), **said}

    @property
    def odd(self) -> bool:
        """Whether something in it has no place in a record."""
        return not all_keepable((self.id, self.model, self.usage, self.finish))

    def texts(self) -> tuple[str, ...]:
        """What must be JSON if JSON was asked for; nothing where a tool is called."""
        return () if self._called else ("".join(self._texts),)


def _parse(data: bytes) -> _Event:
    try:
        event = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        event = msgspec.convert(parse_chunk(data), _Event)
    if not event.type.isidentifier():
        raise ValueError("the type of an event is a name")
    return event


def kind_of(data: bytes) -> str:
    """The type of an event that was read before."""
    try:
        return _decode_name(data).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        return str(parse_chunk(data)["type"])


def says_something(block: dict[str, Any]) -> bool:
    """Whether a block is a text, a call or something unknown: more than thoughts."""
    kind = block.get("type")
    return bool(block.get("text")) if kind == "text" else kind not in _QUIET


def said_in(content: list[dict[str, Any]]) -> tuple[str, ...]:
    """As `EventReader.texts`, of whole blocks."""
    if any(str(block.get("type")).endswith("tool_use") for block in content):
        return ()
    texts = [block.get("text") for block in content if block.get("type") == "text"]
    return ("".join(text for text in texts if isinstance(text, str)),)


def counted(usage: dict[str, Any]) -> Usage:
    """All input counts, also what the provider wrote to its cache or read from there."""
    taken = sum(_number(usage.get(name)) for name in _PARTS_OF_INPUT)
    return Usage(bounded(taken), _number(usage.get("output_tokens")))


def _number(value: Any) -> int:
    return bounded(value) if type(value) in (int, float) else 0


def estimated_usage(tokens: Usage) -> bytes:
    """In the words of this dialect."""
    return _encode(
        {
            "input_tokens": tokens.prompt_tokens,
            "output_tokens": tokens.completion_tokens,
            "estimated": True,
        }
    )
