"""OpenAI's chat completions, and what speaks like it: DeepSeek, Mistral, OpenRouter, vLLM, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import getrandbits
from types import MappingProxyType
from typing import Any

import msgspec

from thinkonce.outcome import Reason
from thinkonce.protocols.bounds import all_keepable, bounded
from thinkonce.protocols.chat_prepared import ChatPrepared
from thinkonce.protocols.chat_recorder import (
    ChatRecorder,
    ChatRelay,
    counted,
    estimate_usage,
    estimated_usage,
    says_something,
    unmarked,
    usage_text,
)
from thinkonce.protocols.chat_shapes import parse_chunk
from thinkonce.protocols.dialect import Asked, Received
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.splice import add, without
from thinkonce.protocols.sse import frame

__all__ = ("OpenAIChat",)

_NOT_IDENTITY = ("stream", "kv_cache", "cache")
_JSON_FORMATS = ("json_object", "json_schema")
_PURE_TOOLS = ("function", "custom")  # the client runs them; any other kind runs at the provider
# Fields that let live data in (web search of OpenAI, xAI, OpenRouter, Qwen).
_LIVE_FIELDS = ("web_search_options", "search_parameters", "plugins", "enable_search")
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_encode = msgspec.json.Encoder().encode


class _Choice(msgspec.Struct):
    message: dict[str, Any]
    index: int = 0
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    choices: list[_Choice]
    id: str = ""
    created: float | int = 0
    model: str = ""
    usage: dict[str, Any] | None = None
    error: Any = None


class OpenAIChat:
    """See `dialect.Dialect`."""

    name = "chat/completions"
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

    # -- request -----------------------------------------------------------------------------

    def asks(self, body: dict[str, Any]) -> Asked:
        options = body.get("stream_options")
        answers = body.get("n")
        form = body.get("response_format")
        temperature = body.get("temperature")
        model = body.get("model")
        return Asked(
            model=model if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            answers=answers if type(answers) is int and answers > 0 else 1,
            wants_json=isinstance(form, dict) and form.get("type") in _JSON_FORMATS,
            temperature=temperature if type(temperature) in (int, float) else None,
            stateful=_stateful(body),
            remote_media=_has_remote_media(body.get("messages")),
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
        options = identity.get("stream_options")
        if isinstance(options, dict):
            rest = {name: value for name, value in options.items() if name != "include_usage"}
            if rest:
                identity["stream_options"] = rest
            else:
                del identity["stream_options"]
        if not context_aware:
            identity["messages"] = _without_context(body.get("messages"))
        return identity

    def ask_usage(self, raw: bytes, body: dict[str, Any]) -> bytes:
        options = body.get("stream_options")
        wanted = {**options, "include_usage": True} if isinstance(options, dict) else _USAGE
        return add(without(raw, ("stream_options",)), b'"stream_options":' + _encode(wanted))

    # -- answer ------------------------------------------------------------------------------

    def receive(self, asked: Asked, status: int, content_type: str, body: bytes) -> Received:
        reply = Reply(status=status, content_type=content_type, shape=Shape.JSON, body=body)
        whole = _read(body) if status == 200 else None
        if whole is None or whole.error is not None or _is_odd(whole):
            return Received(reply, Gist(status=status, done=True, failed=True, size=len(body)))
        choices = sorted(whole.choices, key=lambda choice: choice.index)
        gist = Gist(
            status=status,
            done=True,
            finishes=tuple(choice.finish_reason for choice in choices),
            empty=not all(says_something(choice.message) for choice in choices),
            texts=tuple(filter(None, map(_text, choices))) if asked.wants_json else (),
            size=len(body),
        )
        return Received(_described(reply, whole, asked, gist), gist)

    def recorder(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> ChatRecorder:
        return ChatRecorder(asked, usage_asked=usage_asked, max_bytes=max_bytes)

    def relay(
        self, asked: Asked, annotate: Callable[[], bytes] | None, *, strip_usage: bool = False
    ) -> ChatRelay:
        return ChatRelay(asked, annotate, strip_usage=strip_usage)

    def annotate(self, body: bytes, annotation: bytes) -> bytes:
        return add(unmarked(body), annotation)

    # -- hit ---------------------------------------------------------------------------------

    def prepare(self, reply: Reply) -> ChatPrepared:
        return ChatPrepared(reply)

    def fresh_id(self) -> str:
        return f"chatcmpl-{getrandbits(120):030x}"

    # -- errors ------------------------------------------------------------------------------

    def error(
        self, status: int, message: str, *, type: str = "", code: str = "", param: str = ""
    ) -> bytes:
        if not type:
            other = "invalid_request_error" if status < 500 else "server_error"
            type = _ERROR_TYPES.get(status, other)
        # What a client sent is in both, half a surrogate pair perhaps: an error is always told.
        message, param = (
            text.encode("utf-8", "backslashreplace").decode() for text in (message, param)
        )
        error = {"message": message, "type": type, "param": param or None, "code": code or None}
        return _encode({"error": error})

    def error_event(self, error: bytes) -> bytes:
        return frame(error)


_USAGE = {"include_usage": True}


def _stateful(body: dict[str, Any]) -> str:
    """The field that ties the answer to something that changes elsewhere."""
    for name in _LIVE_FIELDS:
        if body.get(name):
            return name
    tools = body.get("tools")
    if isinstance(tools, list):
        for tool in tools:
            if isinstance(tool, dict) and tool.get("type", "function") not in _PURE_TOOLS:
                return "tools"
    return ""


def _has_remote_media(messages: Any) -> bool:
    if not isinstance(messages, list):
        return False
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if type(content) is list and any(map(_is_remote, content)):
            return True
    return False


def _is_remote(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    for name in ("image_url", "video_url", "audio_url", "file_url"):
        media = part.get(name)
        url = media.get("url") if isinstance(media, dict) else media
        if isinstance(url, str) and not url.startswith("data:"):
            return True
    return False


def _without_context(messages: Any) -> Any:
    """What the model is told to be, and the last question with all that follows it.

    What follows (calls, results of tools) stays: without it a tool loop would be answered with
    its own previous turn.
    """
    if not isinstance(messages, list):
        return messages
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if "user" not in roles:
        return messages
    last = len(roles) - 1 - roles[::-1].index("user")
    return [
        message
        for place, message in enumerate(messages)
        if place >= last or roles[place] in ("system", "developer")
    ]


def _read(body: bytes) -> _Whole | None:
    try:
        return msgspec.json.decode(body, type=_Whole)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_slowly(body)


def _read_slowly(body: bytes) -> _Whole | None:
    try:
        return msgspec.convert(parse_chunk(body), _Whole)
    except (ValueError, RecursionError):
        return None


def _is_odd(whole: _Whole) -> bool:
    """Whether something in it has no place in a record."""
    finishes = [choice.finish_reason for choice in whole.choices]
    return not all_keepable((whole.id, whole.model, whole.created, whole.usage, finishes))


def _text(choice: _Choice) -> str:
    """What must be JSON if JSON was asked for; "" for a call or a refusal."""
    message = choice.message
    if message.get("tool_calls") or message.get("function_call") or message.get("refusal"):
        return ""
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _described(reply: Reply, whole: _Whole, asked: Asked, gist: Gist) -> Reply:
    if whole.usage is not None:
        tokens, usage = counted(whole.usage), usage_text(whole.usage)
    else:
        tokens = estimate_usage(asked, [choice.message for choice in whole.choices])
        usage = estimated_usage(tokens)
    return msgspec.structs.replace(
        reply,
        usage=usage,
        usage_estimated=whole.usage is None,
        finishes=tuple(finish or "" for finish in gist.finishes),
        model=whole.model,
        source_id=whole.id,
        created=bounded(whole.created),
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
    )
