"""OpenAI's Responses API, and what speaks like it: DeepSeek, Azure, OpenRouter, vLLM, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import getrandbits
from types import MappingProxyType
from typing import Any

from thinkonce.outcome import Reason
from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.context import without_context
from thinkonce.protocols.dialect import Asked, Received
from thinkonce.protocols.facts import NUMBER, OBJECTS, QUESTION, TEXTS, Facts, Schema
from thinkonce.protocols.openai_error import openai_error
from thinkonce.protocols.openai_request import (
    has_remote_media,
    identity_of,
    live_field,
    number_or_none,
    runs_elsewhere,
    wants_json,
)
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.responses.answer import described, gist_of, read_response
from thinkonce.protocols.responses.prepared import ResponsesPrepared
from thinkonce.protocols.responses.recorder import ResponsesRecorder, ResponsesRelay
from thinkonce.protocols.splice import add

__all__ = ("OpenAIResponses",)

# The client runs these; any other kind runs at the provider, where it meets live data or acts.
_PURE_TOOLS = ("function", "custom", "local_shell", "apply_patch")


class OpenAIResponses:
    """See `dialect.Dialect`. A hit keeps the upstream's id, as later calls refer to it."""

    name = "responses"
    facts = Facts(
        schema=Schema(
            "ResponsesRequest",
            "OpenAI's Responses",
            {"input": TEXTS, "tools": OBJECTS, "temperature": NUMBER},
            ("model", "input"),
            {"input": QUESTION},
        ),
        operation="chat",
        field="input",
    )
    finish_reasons: Mapping[str, Reason | None] = MappingProxyType(
        {
            "completed": None,
            "max_output_tokens": Reason.LENGTH,
            "content_filter": Reason.CONTENT_FILTER,
            "incomplete": Reason.INCOMPLETE,
            "failed": Reason.ERROR,
            "cancelled": Reason.ABORTED,
        }
    )

    # -- request -----------------------------------------------------------------------------

    def asks(self, body: dict[str, Any]) -> Asked:
        model, text = body.get("model"), body.get("text")
        return Asked(
            model=model if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            include_usage=True,
            wants_json=wants_json(text.get("format") if isinstance(text, dict) else None),
            temperature=number_or_none(body.get("temperature")),
            stateful=_stateful(body),
            remote_media=has_remote_media(body.get("input")),
            body=body,
        )

    def identity(
        self,
        body: dict[str, Any],
        *,
        context_aware: bool = True,
        ignore: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """`previous_response_id` counts, with and without context: it names one fixed past."""
        identity = identity_of(body, ignore)
        if not context_aware:
            identity["input"] = without_context(body.get("input"))
        return identity

    def ask_usage(self, raw: bytes, body: dict[str, Any]) -> bytes:
        return raw  # it always comes

    # -- answer ------------------------------------------------------------------------------

    def receive(self, asked: Asked, status: int, content_type: str, body: bytes) -> Received:
        reply = Reply(status=status, content_type=content_type, shape=Shape.JSON, body=body)
        failed = Gist(status=status, done=True, failed=True, size=len(body))
        if status != 200:
            return Received(reply, failed)
        try:
            response = read_response(body)
        except (ValueError, RecursionError):
            return Received(reply, failed)
        gist = gist_of(response, asked, len(body))
        if gist.failed or gist.odd:
            return Received(reply, failed)
        return Received(described(reply, response, asked), gist)

    def recorder(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> ResponsesRecorder:
        return ResponsesRecorder(asked, max_bytes=max_bytes)

    def relay(
        self, asked: Asked, annotate: Callable[[], bytes] | None, *, strip_usage: bool = False
    ) -> ResponsesRelay:
        return ResponsesRelay(annotate)

    def annotate(self, body: bytes, annotation: bytes) -> bytes:
        return add(unmarked(body), annotation)

    # -- hit ---------------------------------------------------------------------------------

    def prepare(self, reply: Reply) -> ResponsesPrepared:
        return ResponsesPrepared(reply)

    def fresh_id(self) -> str:
        return f"resp_{getrandbits(192).to_bytes(24).hex()}"  # for no hit: each keeps its own

    # -- errors ------------------------------------------------------------------------------

    def error(
        self, status: int, message: str, *, type: str = "", code: str = "", param: str = ""
    ) -> bytes:
        return openai_error(status, message, type, code, param)


def _stateful(body: dict[str, Any]) -> str:
    """The field that ties the answer to something that changes elsewhere, or changes it."""
    for name in ("background", "conversation"):
        if body.get(name):
            return name
    prompt = body.get("prompt")
    if prompt and not (isinstance(prompt, dict) and prompt.get("version")):
        return "prompt"  # whichever version is the current one
    if runs_elsewhere(body.get("tools"), _PURE_TOOLS):
        return "tools"
    return live_field(body)
