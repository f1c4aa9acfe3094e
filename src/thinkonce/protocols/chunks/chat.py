"""OpenAI's chat completions, and what speaks like it: DeepSeek, Mistral, OpenRouter, vLLM, ..."""

from __future__ import annotations

from collections.abc import Sequence
from random import getrandbits
from typing import Any

from thinkonce.protocols.chunks.answer import Choice, ChunkAnswer
from thinkonce.protocols.chunks.chat_shapes import CHAT_SHAPES
from thinkonce.protocols.chunks.dialect import ChunkDialect
from thinkonce.protocols.chunks.reader import says_something
from thinkonce.protocols.context import without_context
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.facts import HELLO, NUMBER, OBJECTS, Facts, Schema
from thinkonce.protocols.openai_request import (
    has_remote_media,
    identity_of,
    live_field,
    number_or_none,
    runs_elsewhere,
    wants_json,
    wants_usage,
)

__all__ = ("OpenAIChat",)

_PURE_TOOLS = ("function", "custom")  # the client runs them; any other kind runs at the provider


class _Choice(Choice, kw_only=True):
    message: dict[str, Any]

    @property
    def says_something(self) -> bool:
        return says_something(self.message)

    @property
    def words(self) -> str:
        message = self.message
        if message.get("tool_calls") or message.get("function_call") or message.get("refusal"):
            return ""
        content = message.get("content")
        return content if isinstance(content, str) else ""

    @property
    def said(self) -> Any:
        return self.message


class _Answer(ChunkAnswer, kw_only=True):
    choices: list[_Choice]

    @property
    def all_choices(self) -> Sequence[Choice]:
        return self.choices


class OpenAIChat(ChunkDialect):
    """See `dialect.Dialect`."""

    name = "chat/completions"
    facts = Facts(
        schema=Schema(
            "ChatRequest",
            "OpenAI's chat completions",
            {"messages": OBJECTS, "tools": OBJECTS, "temperature": NUMBER},
            ("model", "messages"),
            {"messages": HELLO},
        ),
        operation="chat",
        field="messages",
        can_be_strict=True,
    )
    _answer = _Answer
    _shapes = CHAT_SHAPES

    def asks(self, body: dict[str, Any]) -> Asked:
        answers = body.get("n")
        model = body.get("model")
        return Asked(
            model=model if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            include_usage=wants_usage(body),
            answers=answers if type(answers) is int and answers > 0 else 1,
            wants_json=wants_json(body.get("response_format")),
            temperature=number_or_none(body.get("temperature")),
            stateful=live_field(body)
            or ("tools" if runs_elsewhere(body.get("tools"), _PURE_TOOLS) else ""),
            remote_media=has_remote_media(body.get("messages")),
            body=body,
        )

    def identity(
        self,
        body: dict[str, Any],
        *,
        context_aware: bool = True,
        ignore: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        identity = identity_of(body, ignore)
        if not context_aware:
            identity["messages"] = without_context(body.get("messages"))
        return identity

    def fresh_id(self) -> str:
        return f"chatcmpl-{getrandbits(120).to_bytes(15).hex()}"
