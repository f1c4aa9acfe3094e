"""Answers as Anthropic's `messages` tells them, in one piece and as a stream."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from thinkonce.kv.serving.answers.answer import Begun, Ended, Event, Said, Spent
from thinkonce.kv.serving.answers.calls import CallReader
from thinkonce.kv.serving.answers.explanation import Explanation
from thinkonce.kv.serving.answers.reply import exactness, told_of
from thinkonce.web.exchange import HttpError

__all__ = ("MessagesDialect", "messages_error")

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class MessagesDialect:
    """Writes one answer, of one choice. Not thread-safe.

    `life`: seconds that what is kept of the prompt lives, None without end. `tools` are the names
    whose calls are told as calls. `input_tokens` in `usage` are those that were neither read from
    the cache nor written to it, as Anthropic counts them.
    """

    ending: bytes | None = None  # the stream ends with `message_stop`

    def __init__(self, model: str, life: float | None, tools: Collection[str] = ()) -> None:
        self._life = life
        self._reader = CallReader(tools) if tools else None
        self._head = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._blocks = 0
        self._is_open = False
        self._ended: dict[str, Any] = {}

    def frame(self, chunk: bytes) -> bytes:
        """`type` comes first in every chunk and is the event's name."""
        name = chunk.split(b'"', 4)[3]
        return b"event: %b\ndata: %b\n\n" % (name, chunk)

    def failed(self, error: HttpError) -> bytes:
        return messages_error(error)

    def whole(self, events: Sequence[Event]) -> bytes:
        """The answer in one piece, from all its events."""
        text = "".join(event.piece.text for event in events if isinstance(event, Said))
        ended = next(event for event in events if isinstance(event, Ended))
        spent = next(event for event in events if isinstance(event, Spent))
        begun = self._reader.push(text) if self._reader is not None else text
        rest, calls = self._rest()
        said: list[dict[str, Any]] = [_text(begun + rest)] if begun + rest else []
        usage = self._usage(spent, spent.completion_tokens)
        usage |= _explained(*spent.explanations) | exactness(spent)
        content = said + [_call(call) for call in calls]
        told = {**self._head, "content": content, **_end(ended, calls), "usage": usage}
        return _encode({**told, **told_of(spent)})

    def chunks(self, event: Event) -> Iterator[bytes]:
        """The stream's JSON objects for one event."""
        if isinstance(event, Begun):
            yield self._start(event)
        elif isinstance(event, Said):
            text = event.piece.text
            yield from self._say(text if self._reader is None else self._reader.push(text))
        elif isinstance(event, Ended):
            yield from self._finish(event)
        else:
            usage = {"output_tokens": event.completion_tokens}
            yield _event("message_delta", delta=self._ended, usage=usage)
            yield _event("message_stop")

    def _start(self, event: Begun) -> bytes:
        end = {"stop_reason": None, "stop_sequence": None}
        usage = self._usage(event, 0)
        usage |= _explained(event.explanation) if event.explanation is not None else {}
        usage |= exactness(event)
        message: dict[str, Any] = {**self._head, "content": [], **end, "usage": usage}
        return _event("message_start", message={**message, **told_of(event)})

    def _say(self, text: str) -> Iterator[bytes]:
        if not text:
            return
        if not self._is_open:
            self._is_open = True
            yield self._open(_text(""))
        yield self._delta({"type": "text_delta", "text": text})

    def _finish(self, ended: Ended) -> Iterator[bytes]:
        rest, calls = self._rest()
        yield from self._say(rest)
        if self._is_open:
            yield self._close()
        for call in calls:
            told = _call(call)
            yield self._open({**told, "input": {}})
            whole = msgspec.json.encode(told["input"]).decode()
            yield self._delta({"type": "input_json_delta", "partial_json": whole})
            yield self._close()
        self._ended = _end(ended, calls)

    def _open(self, block: dict[str, Any]) -> bytes:
        return _event("content_block_start", index=self._blocks, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _close(self) -> bytes:
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)

    def _rest(self) -> tuple[str, list[dict[str, Any]]]:
        return ("", []) if self._reader is None else self._reader.finish()

    def _usage(self, known: Begun | Spent, made: int) -> dict[str, Any]:
        cached, written = known.cached_tokens, known.written_tokens
        # Whatever lives longer than Anthropic's five minutes counts as its hour.
        short = written if self._life is not None and self._life <= 300 else 0
        return {
            "input_tokens": known.prompt_tokens - cached - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": short,
                "ephemeral_1h_input_tokens": written - short,
            },
            "output_tokens": made,
        }


def messages_error(error: HttpError) -> bytes:
    """`{"type": "error", "error": {"type", "message"}}`; the type is chosen by the status."""
    other = "invalid_request_error" if error.status < 500 else "api_error"
    message = error.message.encode("utf-8", "backslashreplace").decode()
    told = {"type": _ERROR_TYPES.get(error.status, other), "message": message}
    return _encode({"type": "error", "error": told})


def _explained(*explanations: Explanation) -> dict[str, Any]:
    return {"kv_explain": explanations} if explanations else {}


def _end(ended: Ended, calls: Collection[Any]) -> dict[str, Any]:
    if calls and ended.reason == "stop":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if ended.stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": ended.stop}
    reason = "max_tokens" if ended.reason == "length" else "end_turn"
    return {"stop_reason": reason, "stop_sequence": None}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    given = msgspec.json.decode(function["arguments"])
    ident = "toolu_" + call["id"].removeprefix("call_")
    return {"type": "tool_use", "id": ident, "name": function["name"], "input": given}


def _event(kind: str, **fields: Any) -> bytes:
    return _encode({"type": kind, **fields})


_encode = msgspec.json.encode
