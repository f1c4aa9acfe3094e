"""A whole chat or text completion, read for what is to be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from thinkonce.protocols.bounds import all_keepable, bounded
from thinkonce.protocols.dialect import Asked, Received
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.reply import Gist, Reply
from thinkonce.protocols.usage import counted, estimate_usage, estimated_usage, usage_text

__all__ = ("Choice", "ChunkAnswer", "receive_answer")


class Choice(msgspec.Struct):
    """One of the answers; each dialect says what is inside."""

    index: int = 0
    finish_reason: str | None = None

    @property
    def says_something(self) -> bool:
        raise NotImplementedError

    @property
    def words(self) -> str:
        """What must be JSON if JSON was asked for; "" for a call or a refusal."""
        raise NotImplementedError

    @property
    def said(self) -> Any:
        """All of it, for an estimate of its tokens."""
        raise NotImplementedError


class ChunkAnswer(msgspec.Struct, kw_only=True):
    """What both have around their choices.

    Some servers write null or a number for the id, and the time as text: a hit has new ones.
    """

    id: Any = ""
    created: Any = 0
    model: str | None = ""
    usage: dict[str, Any] | None = None
    error: Any = None

    @property
    def all_choices(self) -> Sequence[Choice]:
        raise NotImplementedError


_AnyAnswer = TypeVar("_AnyAnswer", bound=ChunkAnswer)


def receive_answer(asked: Asked, reply: Reply, kind: type[ChunkAnswer]) -> Received:
    """`reply` read as `kind`, and described. Never fails: what is none is `gist.failed`."""
    size = len(reply.body)
    whole = _read(reply.body, kind) if reply.status == 200 else None
    if whole is None or whole.error is not None or _is_odd(whole):
        return Received(reply, Gist(status=reply.status, done=True, failed=True, size=size))
    choices = sorted(whole.all_choices, key=lambda choice: choice.index)
    gist = Gist(
        status=reply.status,
        done=True,
        finishes=tuple(choice.finish_reason for choice in choices),
        empty=not all(choice.says_something for choice in choices),
        texts=tuple(choice.words for choice in choices if choice.words) if asked.wants_json else (),
        size=size,
    )
    return Received(_described(reply, whole, asked, gist), gist)


def _read(body: bytes, kind: type[_AnyAnswer]) -> _AnyAnswer | None:
    try:
        read: _AnyAnswer = _decoder(kind).decode(body)
        return read
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_slowly(body, kind)


@cache
def _decoder(kind: type[ChunkAnswer]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _read_slowly(body: bytes, kind: type[_AnyAnswer]) -> _AnyAnswer | None:
    try:
        return msgspec.convert(parse_chunk(body), kind)
    except (ValueError, RecursionError):
        return None


def _is_odd(whole: ChunkAnswer) -> bool:
    """Whether something in it has no place in a record."""
    finishes = [choice.finish_reason for choice in whole.all_choices]
    return not all_keepable((whole.id, whole.model, whole.created, whole.usage, finishes))


def _described(reply: Reply, whole: ChunkAnswer, asked: Asked, gist: Gist) -> Reply:
    if whole.usage is not None:
        tokens, usage = counted(whole.usage), usage_text(whole.usage)
    else:
        tokens = estimate_usage(asked, [choice.said for choice in whole.all_choices])
        usage = estimated_usage(tokens)
    return msgspec.structs.replace(
        reply,
        usage=usage,
        usage_estimated=whole.usage is None,
        finishes=tuple(finish or "" for finish in gist.finishes),
        model=whole.model or "",
        source_id=whole.id if isinstance(whole.id, str) else "",
        created=bounded(whole.created) if isinstance(whole.created, int | float) else 0,
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
    )
