"""What chat and text completions have in common: chunks that end in `[DONE]`, usage if asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from thinkonce.outcome import Reason
from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.chunks.answer import ChunkAnswer, receive_answer
from thinkonce.protocols.chunks.prepared import ChunkPrepared
from thinkonce.protocols.chunks.recorder import ChunkRecorder
from thinkonce.protocols.chunks.relay import ChunkRelay
from thinkonce.protocols.chunks.shapes import Shapes
from thinkonce.protocols.dialect import Asked, Received
from thinkonce.protocols.openai_error import openai_error
from thinkonce.protocols.reply import Reply, Shape
from thinkonce.protocols.splice import add, without

__all__ = ("ChunkDialect",)

_USAGE = {"include_usage": True}

_encode = msgspec.json.Encoder().encode


class ChunkDialect:
    """All of `dialect.Dialect` but what is asked, what counts of it, and the ids."""

    finish_reasons: Mapping[str, Reason | None] = MappingProxyType(
        {
            "stop": None,
            "tool_calls": None,
            "function_call": None,
            "length": Reason.LENGTH,
            "content_filter": Reason.CONTENT_FILTER,
            "error": Reason.ERROR,
        }
    )
    _answer: type[ChunkAnswer]
    _shapes: Shapes

    def ask_usage(self, raw: bytes, body: dict[str, Any]) -> bytes:
        options = body.get("stream_options")
        wanted = {**options, "include_usage": True} if isinstance(options, dict) else _USAGE
        return add(without(raw, ("stream_options",)), b'"stream_options":' + _encode(wanted))

    # -- answer ------------------------------------------------------------------------------

    def receive(self, asked: Asked, status: int, content_type: str, body: bytes) -> Received:
        reply = Reply(status=status, content_type=content_type, shape=Shape.JSON, body=body)
        return receive_answer(asked, reply, self._answer)

    def recorder(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> ChunkRecorder:
        return ChunkRecorder(asked, usage_asked=usage_asked, max_bytes=max_bytes)

    def relay(
        self, asked: Asked, annotate: Callable[[], bytes] | None, *, strip_usage: bool = False
    ) -> ChunkRelay:
        return ChunkRelay(asked, annotate, strip_usage=strip_usage)

    def annotate(self, body: bytes, annotation: bytes) -> bytes:
        return add(unmarked(body), annotation)

    def prepare(self, reply: Reply) -> ChunkPrepared:
        return ChunkPrepared(reply, self._shapes)

    # -- errors ------------------------------------------------------------------------------

    def error(
        self, status: int, message: str, *, type: str = "", code: str = "", param: str = ""
    ) -> bytes:
        return openai_error(status, message, type, code, param)
