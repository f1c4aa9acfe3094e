"""A chat stream, taken in as it comes, and passed on to each client with its marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from thinkonce.protocols.bounds import all_keepable, bounded, encodable
from thinkonce.protocols.chat_shapes import REASONING, parse_chunk
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.estimate import estimate_tokens, texts_of
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.splice import add, without
from thinkonce.protocols.sse import DONE, Event, EventParser, frame

__all__ = (
    "ENDED",
    "USAGE",
    "USAGE_ONLY",
    "ChatRecorder",
    "ChatRelay",
    "ChunkReader",
    "Usage",
    "counted",
    "estimate_usage",
    "estimated_usage",
    "says_something",
    "unmarked",
    "usage_text",
)

# Flags of an event, for relays.
ENDED = 1  # every choice has its finish reason, with this event or before it
USAGE = 2  # it carries usage
USAGE_ONLY = 4  # ... and no choice

_MARKS = ("cache_hit", "kv_cache")
_NOT_SAID = frozenset({"role", "annotations", "reasoning_details", *REASONING})


class Usage(msgspec.Struct, frozen=True):
    """Of the usage object, the two numbers that are counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Choice(msgspec.Struct):
    index: int = 0
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    created: float | int | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


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
        self._called: set[int] = set()

    def read(self, data: bytes) -> int:
        """The flags of this chunk."""
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            chunk = msgspec.convert(parse_chunk(data), _Chunk)
        if chunk.error is not None:
            self.failed = True
        if not self.id:
            self.id, self.model = chunk.id or "", chunk.model or ""
            self.created = chunk.created or 0
        for choice in chunk.choices or ():
            if choice.delta:
                self._note_delta(choice.index, choice.delta)
            if choice.finish_reason is not None or choice.index not in self.finishes:
                self._note_finish(choice.index, choice.finish_reason)
        if chunk.usage is None:
            return self._flags
        self.usage = chunk.usage
        return self._flags | (USAGE if chunk.choices else USAGE | USAGE_ONLY)

    def _note_finish(self, index: int, finish: str | None) -> None:
        self.finishes[index] = finish
        ended = [finish for finish in self.finishes.values() if finish is not None]
        if len(ended) >= self._answers:
            self._flags = ENDED

    def _note_delta(self, index: int, delta: dict[str, Any]) -> None:
        if index not in self._spoken and says_something(delta):
            self._spoken.add(index)
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
        return not all_keepable(
            (self.id, self.model, self.created, self.usage, list(self.finishes.values()))
        )

    def ordered_finishes(self) -> tuple[str | None, ...]:
        return tuple(self.finishes[index] for index in sorted(self.finishes))

    def texts(self) -> tuple[str, ...]:
        """Of the choices that answered in words."""
        return tuple(
            "".join(pieces) for index, pieces in self._texts.items() if index not in self._called
        )


class ChatRecorder:
    """See `dialect.Recorder`."""

    def __init__(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> None:
        self.events: list[Event] = []
        self.oversized = False
        self._asked = asked
        self._usage_asked = usage_asked
        self._max_bytes = max_bytes
        self._parser = EventParser(max_bytes)
        self._reader = ChunkReader(asked.answers, keep_text=asked.wants_json)
        self._size = 0
        self._done = False
        self._failed = False

    def feed(self, chunk: bytes) -> list[Event]:
        self._size += len(chunk)
        events = self._parser.feed(chunk)
        for event in events:
            if event.data is not None and not self._done:
                self._note(event, event.data)
        self._keep(events)
        return events

    def _note(self, event: Event, data: bytes) -> None:
        if data == DONE:
            self._done = True
            return
        try:
            event.flags = self._reader.read(data)
        except (ValueError, OverflowError, RecursionError):
            self._failed = True
        if event.name == "error":
            self._failed = True

    def _keep(self, events: list[Event]) -> None:
        if self._size > self._max_bytes or self._parser.oversized:
            self.oversized = True
            self.events = []
        else:
            self.events += events

    def gist(self) -> Gist:
        return Gist(
            done=self._done,
            failed=self._failed or self._reader.failed,
            oversized=self.oversized,
            odd=self._reader.odd,
            finishes=self._reader.ordered_finishes(),
            empty=self._reader.empty,
            texts=self._reader.texts(),
            size=self._size,
        )

    def end(self) -> Reply | None:
        # Some servers end without the blank line after the mark; anything else is cut off.
        self._done = self._done or any(event.data == DONE for event in self._parser.finish())
        if not self._done or self._failed or self._reader.failed or self.oversized:
            return None
        reader = self._reader
        usage = reader.usage
        tokens = counted(usage) if usage is not None else self._estimated()
        return Reply(
            status=200,
            content_type="text/event-stream",
            shape=Shape.STREAM,
            # A line end inside JSON is white space: one line makes the event simple to frame.
            events=tuple(data.replace(b"\n", b" ") for data in self._data()),
            usage=usage_text(usage) if usage is not None else estimated_usage(tokens),
            usage_asked=self._usage_asked,
            usage_estimated=usage is None,
            finishes=tuple(encodable(finish or "") for finish in reader.ordered_finishes()),
            model=encodable(reader.model),
            source_id=encodable(reader.id),
            created=bounded(reader.created),
            prompt_tokens=tokens.prompt_tokens,
            completion_tokens=tokens.completion_tokens,
        )

    def _data(self) -> list[bytes]:
        data: list[bytes] = []
        for event in self.events:
            if event.data == DONE:
                break
            if event.data is not None:
                data.append(event.data)
        return data

    def _estimated(self) -> Usage:
        deltas = [
            choice["delta"]
            for data in self._data()
            for choice in parse_chunk(data).get("choices") or ()
            if choice.get("delta")
        ]
        return estimate_usage(self._asked, deltas)


class ChatRelay:
    """See `dialect.Relay`. An event is changed only to take usage out or to put the marks in."""

    def __init__(
        self, asked: Asked, annotate: Callable[[], bytes] | None, *, strip_usage: bool = False
    ) -> None:
        self._annotate = annotate
        self._wants_usage = asked.include_usage
        self._strip = strip_usage and not asked.include_usage
        self._last = b""  # data of the last chunk, to make another one like it

    def pass_on(self, events: Sequence[Event]) -> bytes:
        if self._annotate is None and not self._strip:
            return b"".join([event.raw for event in events])
        return b"".join([self._passed(event) for event in events])

    def _passed(self, event: Event) -> bytes:
        data = event.data
        if data is None:
            return event.raw
        if data == DONE:
            return self._missing_usage_chunk() + event.raw
        changed = self._without_usage(event, data) if self._strip else data
        if changed is None:
            return b""
        ready = USAGE | ENDED if self._wants_usage else ENDED
        if self._annotate is not None and event.flags & ready == ready:
            changed = add(unmarked(changed), self._annotate())
            self._annotate = None
        if self._wants_usage:
            self._last = data
        return event.raw if changed is data else event.raw.replace(data, changed, 1)

    def _without_usage(self, event: Event, data: bytes) -> bytes | None:
        if event.flags & USAGE_ONLY:
            return None
        return without(data, ("usage",)) if b'"usage"' in data else data

    def _missing_usage_chunk(self) -> bytes:
        """For an upstream that ignores `include_usage`: the client waits for one more chunk."""
        if self._annotate is None or not self._wants_usage or not self._last:
            return b""
        rest = unmarked(without(self._last, ("choices", "usage")))
        marks, self._annotate = self._annotate(), None
        return frame(add(rest, b'"choices":[],"usage":null,' + marks))


def unmarked(body: bytes) -> bytes:
    """`body` without marks of another cache on the way."""
    if b'"cache_hit"' in body or b'"kv_cache"' in body:
        return without(body, _MARKS)
    return body


def says_something(message: dict[str, Any]) -> bool:
    """Whether a message or a piece of one has content, a call or a refusal."""
    return any(value and name not in _NOT_SAID for name, value in message.items())


_encode = msgspec.json.Encoder().encode


def counted(usage: dict[str, Any]) -> Usage:
    """The numbers of a usage object, 0 where there is none."""
    try:
        said = msgspec.convert(usage, Usage)
    except msgspec.ValidationError:
        return Usage()
    return Usage(bounded(said.prompt_tokens), bounded(said.completion_tokens))


def usage_text(usage: dict[str, Any]) -> bytes:
    """As JSON; b"" where it cannot be written."""
    try:
        return _encode(usage)
    except (ValueError, OverflowError, RecursionError):
        return b""


def estimate_usage(asked: Asked, answer: Any) -> Usage:
    """For an upstream that does not count: from the texts of the request and of the answer."""
    said = "".join(texts_of(asked.body.get("messages"))) + "".join(
        texts_of(asked.body.get("tools"))
    )
    return Usage(estimate_tokens(said), estimate_tokens("".join(texts_of(answer))))


def estimated_usage(tokens: Usage) -> bytes:
    total = tokens.prompt_tokens + tokens.completion_tokens
    return _encode(
        {
            "prompt_tokens": tokens.prompt_tokens,
            "completion_tokens": tokens.completion_tokens,
            "total_tokens": total,
            "estimated": True,
        }
    )
