"""The two dialects an answer is told in: chat completions and plain completions."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from thinkonce.kv.generation.generator import Token
from thinkonce.kv.serving.answers.answer import Begun, Ended, Event, Said, Spent
from thinkonce.kv.serving.answers.calls import CallReader
from thinkonce.kv.serving.answers.transcript import Piece
from thinkonce.kv.weights.vocabulary import token_bytes
from thinkonce.web.exchange import HttpError, error_body

__all__ = ("ChatDialect", "Dialect", "TextDialect", "exactness", "told_of")

_encode = msgspec.json.encode


class Dialect(ABC):
    """Writes one answer's events as chunks, or collects them and writes the whole.

    `logprobs` says whether log-probabilities were asked for, `include_usage` whether a stream
    ends with a usage chunk. Not thread-safe: one answer, one dialect.
    """

    id_prefix: str
    whole_object: str
    chunk_object: str

    def __init__(
        self, model: str, tokenizer: Any, *, logprobs: bool = False, include_usage: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._head = {
            "id": f"{self.id_prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    ending: bytes | None = b"[DONE]"

    def frame(self, chunk: bytes) -> bytes:
        """A chunk as an event of the stream."""
        return b"data: " + chunk + b"\n\n"

    def failed(self, error: HttpError) -> bytes:
        """The stream's last chunk, where it breaks off."""
        return error_body(error)

    @abstractmethod
    def begun(self, event: Begun) -> dict[str, Any] | None:
        """The first chunk's choice, None where the dialect has none."""

    @abstractmethod
    def said(self, choice: int, piece: Piece) -> dict[str, Any] | None:
        """A chunk's choice with text, None where there is nothing to say yet."""

    @abstractmethod
    def ended(self, event: Ended) -> Iterator[dict[str, Any]]:
        """The last chunks' choices."""

    @abstractmethod
    def whole_choice(self, ended: Ended, piece: Piece) -> dict[str, Any]:
        """A complete choice."""

    def chunks(self, event: Event) -> Iterator[bytes]:
        """The stream's JSON objects for one event, without framing."""
        if isinstance(event, Spent):
            if self._include_usage:
                yield self._chunk([], _usage(event), told_of(event))
            return
        told = told_of(event) if isinstance(event, Begun) else None
        for choice in self._choices(event):
            if choice is not None:
                yield self._chunk([choice], None, told)

    def whole(self, events: Sequence[Event]) -> bytes:
        """The answer in one piece, from all its events."""
        spent = next(event for event in events if isinstance(event, Spent))
        choices = [
            self.whole_choice(event, _joined(events, event.choice))
            for event in events
            if isinstance(event, Ended)
        ]
        head = {**self._head, "object": self.whole_object}
        return _encode({**head, "choices": choices, "usage": _usage(spent), **told_of(spent)})

    def _choices(self, event: Begun | Said | Ended) -> Iterator[dict[str, Any] | None]:
        if isinstance(event, Begun):
            yield self.begun(event)
        elif isinstance(event, Said):
            yield self.said(event.choice, event.piece)
        else:
            yield from self.ended(event)

    def _chunk(
        self,
        choices: list[dict[str, Any]],
        usage: dict[str, Any] | None,
        told: dict[str, Any] | None = None,
    ) -> bytes:
        chunk = {**self._head, "object": self.chunk_object, "choices": choices, **(told or {})}
        # With include_usage every chunk has the member, null but in the last one.
        return _encode({**chunk, "usage": usage} if self._include_usage else chunk)

    def _text(self, token: int) -> str:
        return token_bytes(self._tokenizer, token).decode("utf-8", errors="replace")


class ChatDialect(Dialect):
    """`chat/completions`. `tools` are the names whose calls are told as calls, not as text."""

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        *,
        tools: Collection[str] = (),
        logprobs: bool = False,
        include_usage: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, logprobs=logprobs, include_usage=include_usage)
        self._readers = defaultdict[int, CallReader](partial(CallReader, tools)) if tools else None

    def begun(self, event: Begun) -> dict[str, Any]:
        return self._delta(event.choice, {"role": "assistant", "content": ""})

    def said(self, choice: int, piece: Piece) -> dict[str, Any] | None:
        text = piece.text if self._readers is None else self._readers[choice].push(piece.text)
        if not text and not self._logprobs:
            return None
        return self._delta(choice, {"content": text}, logprobs=self._logs(piece.tokens))

    def ended(self, event: Ended) -> Iterator[dict[str, Any]]:
        text, calls = self._rest(event.choice)
        if text:
            yield self._delta(event.choice, {"content": text})
        if calls:
            told = [{"index": place, **call} for place, call in enumerate(calls)]
            yield self._delta(event.choice, {"tool_calls": told})
        yield self._delta(event.choice, {}, reason=_reason(event, calls))

    def whole_choice(self, ended: Ended, piece: Piece) -> dict[str, Any]:
        text = piece.text if self._readers is None else self._readers[ended.choice].push(piece.text)
        rest, calls = self._rest(ended.choice)
        message: dict[str, Any] = {"role": "assistant", "content": text + rest, "refusal": None}
        if calls:
            message |= {"content": text.strip() or None, "tool_calls": calls}
        return {
            "index": ended.choice,
            "message": message,
            "logprobs": self._logs(piece.tokens),
            "finish_reason": _reason(ended, calls),
        }

    def _rest(self, choice: int) -> tuple[str, list[dict[str, Any]]]:
        return ("", []) if self._readers is None else self._readers[choice].finish()

    def _delta(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        return {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {"content": [self._log(token) for token in tokens], "refusal": None}

    def _log(self, token: Token) -> dict[str, Any]:
        top = [self._entry(number, logprob) for number, logprob in token.top]
        return {**self._entry(token.id, token.logprob or 0.0), "top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(self._tokenizer, token)
        text = raw.decode("utf-8", errors="replace")
        return {"token": text, "logprob": logprob, "bytes": list(raw)}


class TextDialect(Dialect):
    """`completions`. `echoes` is what to say before each choice: its prompt, or nothing."""

    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        *,
        echoes: Sequence[str] = (),
        logprobs: bool = False,
        include_usage: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, logprobs=logprobs, include_usage=include_usage)
        self._echoes = echoes
        self._offsets: dict[int, int] = {}

    def begun(self, event: Begun) -> dict[str, Any] | None:
        echo = self._echo(event.choice)
        return self._part(event.choice, echo) if echo else None

    def said(self, choice: int, piece: Piece) -> dict[str, Any]:
        return self._part(choice, piece.text, logprobs=self._logs(choice, piece.tokens))

    def ended(self, event: Ended) -> Iterator[dict[str, Any]]:
        yield self._part(event.choice, "", reason=event.reason)

    def whole_choice(self, ended: Ended, piece: Piece) -> dict[str, Any]:
        text = self._echo(ended.choice) + piece.text
        logs = self._logs(ended.choice, piece.tokens)
        return self._part(ended.choice, text, logprobs=logs, reason=ended.reason)

    def _echo(self, choice: int) -> str:
        return self._echoes[choice] if self._echoes else ""

    def _part(
        self,
        choice: int,
        text: str,
        logprobs: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        return {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logs(self, choice: int, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """The older form: parallel lists, and offsets counted over the whole choice."""
        if not self._logprobs:
            return None
        texts = [self._text(token.id) for token in tokens]
        offset = self._offsets.get(choice, 0)
        offsets = [offset + sum(map(len, texts[:place])) for place in range(len(texts))]
        self._offsets[choice] = offset + sum(map(len, texts))
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {self._text(number): logprob for number, logprob in token.top} for token in tokens
            ],
            "text_offset": offsets,
        }


def _joined(events: Sequence[Event], choice: int) -> Piece:
    pieces = [e.piece for e in events if isinstance(e, Said) and e.choice == choice]
    text = "".join(piece.text for piece in pieces)
    return Piece(text, tuple(token for piece in pieces for token in piece.tokens))


def _reason(ended: Ended, calls: Collection[Any]) -> str:
    return "tool_calls" if calls and ended.reason == "stop" else ended.reason


def told_of(told: Begun | Spent) -> dict[str, Any]:
    """The answer's `kv_cache`, where parts of prompts are marked or something is not exact: by
    which methods tokens were reused, and whether that is exact.
    """
    if told.reused is None:
        return {}
    kv_cache = {
        "exact": told.reused.is_exact,
        "tokens": told.reused.by_method,
        "recomputed_tokens": told.reused.recomputed,
    }
    return {"kv_cache": kv_cache}


def exactness(told: Begun | Spent) -> dict[str, Any]:
    """The same in its usage, in a word: a gateway in front has a `kv_cache` of its own."""
    return {} if told.reused is None else {"kv_exact": told.reused.is_exact}


def _usage(spent: Spent) -> dict[str, Any]:
    """`prompt_tokens` is the full count; what was known of it is told as OpenAI's and DeepSeek's
    clients read it.
    """
    details = {"cached_tokens": spent.cached_tokens}
    if spent.reused is not None:
        details |= {f"{name}_tokens": count for name, count in spent.reused.by_method.items()}
    usage = {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "prompt_tokens_details": details,
        "prompt_cache_hit_tokens": spent.cached_tokens,
        "prompt_cache_miss_tokens": spent.prompt_tokens - spent.cached_tokens,
    }
    usage |= exactness(spent)
    return {**usage, "kv_explain": spent.explanations} if spent.explanations else usage
