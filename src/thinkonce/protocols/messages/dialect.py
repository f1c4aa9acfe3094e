"""Anthropic's Messages, and what speaks like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import getrandbits
from types import MappingProxyType
from typing import Any

import msgspec

from thinkonce.outcome import Reason
from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.bounds import all_keepable
from thinkonce.protocols.context import without_context
from thinkonce.protocols.dialect import Asked, Received
from thinkonce.protocols.facts import ANTHROPIC_VERSION, HELLO, OBJECTS, Facts, Schema
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.messages.prepared import MessagesPrepared
from thinkonce.protocols.messages.reader import (
    counted,
    estimated_usage,
    said_in,
    says_something,
)
from thinkonce.protocols.messages.recorder import MessagesRecorder, MessagesRelay
from thinkonce.protocols.messages.request import (
    has_remote_media,
    is_question,
    stateful_field,
    wants_json,
)
from thinkonce.protocols.openai_request import number_or_none
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.splice import add
from thinkonce.protocols.usage import estimate_usage, usage_text

__all__ = ("AnthropicMessages",)

_NOT_IDENTITY = ("stream", "kv_cache", "cache")
_ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_encode = msgspec.json.Encoder().encode


class _Whole(msgspec.Struct):
    content: list[dict[str, Any]]
    type: str = "message"
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class AnthropicMessages:
    """See `dialect.Dialect`."""

    name = "messages"
    facts = Facts(
        schema=Schema(
            "MessagesRequest",
            "Anthropic's Messages",
            {"messages": OBJECTS, "max_tokens": {"type": "integer"}, "tools": OBJECTS},
            ("model", "messages", "max_tokens"),
            {"messages": HELLO, "max_tokens": 100},
            error="AnthropicError",
        ),
        operation="chat",
        provider="anthropic",
        field="messages",
        header_prefix=b"anthropic-",
        key_header=b"x-api-key",
        sent=(ANTHROPIC_VERSION,),
        adds_version=True,
        at_root=True,  # `POST /v1/threads/ID/messages` is another thing
        can_be_strict=True,
        below=MappingProxyType({"count_tokens": "Count the tokens of a message"}),
    )
    finish_reasons: Mapping[str, Reason | None] = MappingProxyType(
        {
            "end_turn": None,
            "stop_sequence": None,
            "tool_use": None,
            "max_tokens": Reason.LENGTH,
            "model_context_window_exceeded": Reason.LENGTH,
            "refusal": Reason.CONTENT_FILTER,
            "pause_turn": Reason.INCOMPLETE,
        }
    )

    # -- request -----------------------------------------------------------------------------

    def asks(self, body: dict[str, Any]) -> Asked:
        model = body.get("model")
        return Asked(
            model=model if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            include_usage=True,
            wants_json=wants_json(body),
            temperature=number_or_none(body.get("temperature")),
            stateful=stateful_field(body),
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
        identity = body.copy()
        for name in (*_NOT_IDENTITY, *ignore):
            identity.pop(name, None)
        if not context_aware and "messages" in identity:
            identity["messages"] = without_context(identity["messages"], is_question)
        return identity

    def ask_usage(self, raw: bytes, body: dict[str, Any]) -> bytes:
        return raw  # it comes without being asked for

    # -- answer ------------------------------------------------------------------------------

    def receive(self, asked: Asked, status: int, content_type: str, body: bytes) -> Received:
        reply = Reply(status=status, content_type=content_type, shape=Shape.JSON, body=body)
        whole = _read(body) if status == 200 else None
        if whole is None or whole.type == "error" or whole.error is not None or _is_odd(whole):
            return Received(reply, Gist(status=status, done=True, failed=True, size=len(body)))
        gist = Gist(
            status=status,
            done=True,
            finishes=(whole.stop_reason,),
            empty=not any(map(says_something, whole.content)),
            texts=said_in(whole.content) if asked.wants_json else (),
            size=len(body),
        )
        return Received(_described(reply, whole, asked), gist)

    def recorder(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> MessagesRecorder:
        return MessagesRecorder(asked, max_bytes=max_bytes)

    def relay(
        self, asked: Asked, annotate: Callable[[], bytes] | None, *, strip_usage: bool = False
    ) -> MessagesRelay:
        return MessagesRelay(annotate)

    def annotate(self, body: bytes, annotation: bytes) -> bytes:
        return add(unmarked(body), annotation)

    # -- hit ---------------------------------------------------------------------------------

    def prepare(self, reply: Reply) -> MessagesPrepared:
        return MessagesPrepared(reply)

    def fresh_id(self) -> str:
        return f"msg_{getrandbits(120).to_bytes(15).hex()}"

    # -- errors ------------------------------------------------------------------------------

    def error(
        self, status: int, message: str, *, type: str = "", code: str = "", param: str = ""
    ) -> bytes:
        """`code` and `param` have no member here: the message says them.

        `type` is always chosen by `status`, because other protocols' words mean nothing here.
        """
        other = "invalid_request_error" if status < 500 else "api_error"
        details = [param] if param and param not in message else []
        details += [code] if code else []
        if details:
            message = f"{message} ({', '.join(details)})"
        # What a client sent is in it, half a surrogate pair perhaps: an error is always told.
        message = message.encode("utf-8", "backslashreplace").decode()
        error = {"type": _ERROR_TYPES.get(status, other), "message": message}
        return _encode({"type": "error", "error": error})


def _read(body: bytes) -> _Whole | None:
    try:
        return msgspec.json.decode(body, type=_Whole)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.convert(parse_chunk(body), _Whole)
    except (ValueError, RecursionError, OverflowError):
        return None


def _is_odd(whole: _Whole) -> bool:
    """Whether something in it has no place in a record."""
    return not all_keepable((whole.id, whole.model, whole.usage, whole.stop_reason))


def _described(reply: Reply, whole: _Whole, asked: Asked) -> Reply:
    if whole.usage is not None:
        tokens, usage = counted(whole.usage), usage_text(whole.usage)
    else:
        tokens = estimate_usage(asked, whole.content)
        usage = estimated_usage(tokens)
    return msgspec.structs.replace(
        reply,
        usage=usage,
        usage_asked=True,
        usage_estimated=whole.usage is None,
        finishes=(whole.stop_reason or "",),
        model=whole.model,
        source_id=whole.id,
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
    )
