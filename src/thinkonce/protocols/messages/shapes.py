"""A message in its two shapes: one JSON object, or events. Either is made from the other.

    events                                            object
    message_start.message                        <->  all members but content
    content_block_start[i] + deltas              <->  content[i]
      text_delta, thinking_delta, signature_delta       joined
      input_json_delta   "{" "}"                        input: {}
      citations_delta    x  y                           citations: [x, y]
    message_delta.delta, .usage                  <->  stop_reason, ..., usage

Values nobody needs to look into keep their very bytes. What cannot be merged without loss, such
as a delta of a kind that is not known, has no other shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from thinkonce.protocols.merging import Unmergeable, pieces_of

__all__ = ("assemble", "split")

Members = dict[str, msgspec.Raw]

_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
# Of a message, what is only known at its end.
_AT_END = ("stop_reason", "stop_sequence", "stop_details", "container")
_COUNTED_AT_END = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)
_NULL = msgspec.Raw(b"null")
_NO_INPUT = (b"{}", b'""', b"null")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_number = msgspec.json.Decoder(int).decode
_members = msgspec.json.Decoder(Members).decode
_text = msgspec.json.Decoder(str | None).decode
_list = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_blocks = msgspec.json.Decoder(list[Members]).decode


# -- events to object ------------------------------------------------------------------------


def assemble(events: Sequence[bytes]) -> bytes | None:
    """The object the events amount to; None if it cannot be told without loss."""
    message = _Message()
    try:
        for data in events:
            message.take(_members(data))
        return message.whole()
    except (Unmergeable, msgspec.DecodeError, UnicodeError, KeyError):
        return None


class _Message:
    def __init__(self) -> None:
        self._begun = False
        self._members: dict[str, Any] = {}
        self._usage: Members = {}
        self._content: dict[int, _Block] = {}

    def take(self, event: Members) -> None:
        kind = _text(event.pop("type"))
        if kind == "content_block_delta":
            self._content[_index(event)].grow(_members(event.pop("delta")))
        elif kind == "content_block_start":
            index = _index(event)
            if index in self._content:
                raise Unmergeable
            self._content[index] = _Block(_members(event.pop("content_block")))
        elif kind == "content_block_stop":
            _index(event)
        elif kind == "message_start":
            self._begin(_members(event.pop("message")))
        elif kind == "message_delta":
            self._say(_members(event.pop("delta")))
            self._count(event)
            self._say(event)
            return
        elif kind == "message_stop":
            self._say(event)
            return
        else:
            raise Unmergeable
        _nothing_left(event)

    def _begin(self, message: Members) -> None:
        if self._begun or _blocks(message.get("content", b"[]")):
            raise Unmergeable
        self._begun = True
        self._say(message)
        self._count(message)

    def _say(self, members: Members) -> None:
        """Later events know better, unless they know nothing."""
        for name, value in members.items():
            if value != _NULL or name not in self._members:
                self._members[name] = value

    def _count(self, members: Members) -> None:
        for name, value in _members(members.pop("usage", b"{}")).items():
            if value != _NULL or name not in self._usage:
                self._usage[name] = value

    def whole(self) -> bytes:
        if not self._begun:
            raise Unmergeable
        whole = self._members
        whole["content"] = [self._content[index].whole() for index in sorted(self._content)]
        if self._usage:
            whole["usage"] = self._usage
        return _encode(whole)


class _Block:
    """`start` is the block as it began."""

    def __init__(self, start: Members) -> None:
        self._start = start
        self._grown: dict[str, list[str]] = {}
        self._citations: list[msgspec.Raw] = []

    def grow(self, delta: Members) -> None:
        kind = _text(delta.pop("type"))
        if kind == "citations_delta":
            self._citations.append(delta.pop("citation"))
        elif kind == "input_json_delta":
            self._add("input", delta.pop("partial_json"))
        elif kind in _TEXTS:
            self._add(_TEXTS[kind], delta.pop(_TEXTS[kind]))
        else:
            raise Unmergeable
        _nothing_left(delta)

    def _add(self, field: str, text: msgspec.Raw) -> None:
        grown = self._grown.setdefault(field, [])
        if field == "signature" and any(grown):  # two signatures are not one longer one
            raise Unmergeable
        grown.append(_text(text) or "")

    def whole(self) -> dict[str, Any]:
        block: dict[str, Any] = {**self._start}
        for field, texts in self._grown.items():
            if field == "input":
                block[field] = _input(self._start.get(field, _NULL), "".join(texts).encode())
            else:
                block[field] = (_text(block.get(field, _NULL)) or "") + "".join(texts)
        if self._citations:
            block["citations"] = [*(_list(block.get("citations", _NULL)) or ()), *self._citations]
        return block


def _input(start: msgspec.Raw, grown: bytes) -> msgspec.Raw:
    """What a tool is called with, number for number as the model wrote it."""
    if not grown.strip():
        return msgspec.Raw(b"{}") if start == _NULL else start
    if bytes(start) not in _NO_INPUT:
        raise Unmergeable
    _decode(grown)
    return msgspec.Raw(grown)


def _index(event: Members) -> int:
    return _number(event.pop("index"))


def _nothing_left(members: Members) -> None:
    """What has no place in the object must not be lost."""
    if any(value != _NULL for value in members.values()):
        raise Unmergeable


# -- object to events ------------------------------------------------------------------------


def split(body: bytes) -> list[bytes] | None:
    """Events that assemble to `body`; None if it is not a message."""
    try:
        events = list(_events(_members(body)))
    except (msgspec.DecodeError, UnicodeError, KeyError):
        return None
    # A line end inside JSON is white space; in an event it would end a line.
    return [_encode(event).replace(b"\n", b" ").replace(b"\r", b" ") for event in events]


def _events(message: Members) -> Iterator[dict[str, Any]]:
    content = _blocks(message["content"])
    usage = _members(message.get("usage", b"{}"))
    ends = {name: message[name] for name in _AT_END if name in message}
    head: dict[str, Any] = {**message, "content": [], **dict.fromkeys(ends)}
    if usage:
        head["usage"] = {**usage, "output_tokens": 0}
    yield {"type": "message_start", "message": head}
    for index, block in enumerate(content):
        yield from _block_events(index, block)
    counts = {name: usage[name] for name in _COUNTED_AT_END if name in usage}
    yield {"type": "message_delta", "delta": ends, "usage": counts}
    yield {"type": "message_stop"}


def _block_events(index: int, block: Members) -> Iterator[dict[str, Any]]:
    kind = _text(block["type"]) or ""
    start: dict[str, Any] = {**block}
    deltas: list[dict[str, Any]] = []
    if kind == "text":
        deltas = [*_text_deltas(start, "text_delta"), *_citation_deltas(start)]
    elif kind == "thinking":
        deltas = [*_text_deltas(start, "thinking_delta"), *_text_deltas(start, "signature_delta")]
    elif kind.endswith("tool_use"):
        deltas = [*_input_deltas(start)]
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _text_deltas(start: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Takes the text out of `start`."""
    field = _TEXTS[kind]
    text = _text(start.get(field, _NULL))
    if not text:
        return
    start[field] = ""
    for piece in [text] if kind == "signature_delta" else pieces_of(text):
        yield {"type": kind, field: piece}


def _citation_deltas(start: dict[str, Any]) -> Iterator[dict[str, Any]]:
    citations = _list(start.get("citations", _NULL))
    if citations:
        start["citations"] = []
        for citation in citations:
            yield {"type": "citations_delta", "citation": citation}


def _input_deltas(start: dict[str, Any]) -> Iterator[dict[str, Any]]:
    given = start.get("input", _NULL)
    if given == _NULL:
        return
    start["input"] = {}
    for piece in [""] if bytes(given) == b"{}" else pieces_of(bytes(given).decode()):
        yield {"type": "input_json_delta", "partial_json": piece}
