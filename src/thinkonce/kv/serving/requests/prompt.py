"""From messages or text to the token ids the model reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from math import inf
from typing import Any, NamedTuple

import msgspec
from jinja2 import TemplateError

from thinkonce.errors import RequestError
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.prefix.prompt import Method, Prompt
from thinkonce.kv.serving.requests.ask import ChatAsk
from thinkonce.kv.serving.requests.controls import marked
from thinkonce.kv.serving.requests.marks import Marks
from thinkonce.kv.serving.requests.veil import Veil

__all__ = (
    *("CLOSE", "OPEN", "callable_names", "called_tools", "chat_tokens", "check_length"),
    *("contents", "longest_piece", "plain_messages", "text_tokens"),
)

# Around a tool call, in the one form of templates that is read.
OPEN, CLOSE = "<tool_call>", "</tool_call>"
_ROLES = ("system", "developer", "user", "assistant", "tool")


def longest_piece(tokenizer: Any) -> int:
    """Characters that one token may stand for, at most."""
    return max(map(len, tokenizer.get_vocab()))


def chat_tokens(tokenizer: Any, ask: ChatAsk, most: float = inf, usual: Method = "exact") -> Prompt:
    """The prompt the model's own chat template makes of the messages, and where marked parts of
    them lie in it; `usual`: how these are reused where nobody says.

    Special tokens are the template's: one that a client typed is read as the text it is. Raises
    RequestError for what the messages or the template do not allow, and TooLong for a text of
    more than `most` characters: to tokenise megabytes takes up to a minute.
    """
    veil = Veil(tokenizer)
    marks = Marks(veil)
    text = _rendered(tokenizer, ask, veil, _Marking(marks, ask.attention.reuse, usual))
    if not marks.are_in(text):  # a template that leaves a part out, or changes its words
        marks = Marks(veil)
        text = _rendered(tokenizer, ask, veil)
    check_length(marks.typed(text), most)
    return marks.prompt(text)


class _Marking(NamedTuple):
    """`asked`: how the request wants marked parts to be reused; `usual`: where nobody says."""

    marks: Marks
    asked: Method | None
    usual: Method


def _rendered(tokenizer: Any, ask: ChatAsk, veil: Veil, marking: _Marking | None = None) -> str:
    """What the template makes, with what stands for special tokens and for marked parts."""
    template = _template(tokenizer)
    extra = ask.chat_template_kwargs or {}
    _check_extra(tokenizer, extra)
    tools = _tools(ask)
    if tools and not re.search(r"\btools\b", template):
        raise RequestError("tools", f"{len(tools)} tools", "none: this model knows no tools")
    messages = [_message(number, written, marking) for number, written in enumerate(ask.messages)]
    messages, tools, extra = veil.over([messages, tools, extra])
    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            add_generation_prompt=True,
            tokenize=False,
            **extra,
        )
    except (TemplateError, TypeError, ValueError, KeyError) as refused:
        accepts = f"messages this model's chat template takes ({refused})"
        raise RequestError("messages", f"{len(messages)} messages", accepts) from refused
    return text


def plain_messages(ask: ChatAsk) -> list[dict[str, Any]]:
    """The messages as templates get them. Raises RequestError."""
    return [_message(number, written) for number, written in enumerate(ask.messages)]


def contents(ask: ChatAsk) -> tuple[str, ...]:
    """Their texts. Raises RequestError."""
    return tuple(str(message["content"]) for message in plain_messages(ask))


def called_tools(tokenizer: Any, ask: ChatAsk) -> frozenset[str]:
    """The tools whose calls can be told from text in this model's answer."""
    tools = _tools(ask)
    return callable_names(_template(tokenizer), tools) if tools else frozenset()


def callable_names(template: str, tools: Collection[Any]) -> frozenset[str]:
    """The tools whose calls can be read from what a model with this template writes."""
    if OPEN not in template or CLOSE not in template:
        return frozenset()
    functions = (tool.get("function") for tool in tools if isinstance(tool, dict))
    named = (function.get("name") for function in functions if isinstance(function, dict))
    return frozenset(name for name in named if isinstance(name, str))


def _tools(ask: ChatAsk) -> list[dict[str, Any]]:
    """Without what is said to the cache: the template would write it into the prompt."""
    if ask.tool_choice == "none":
        return []
    return [{k: v for k, v in tool.items() if k != "cache_control"} for tool in ask.tools or []]


def text_tokens(
    tokenizer: Any, prompt: str | list[int], vocabulary: int, most: float = inf
) -> Prompt:
    """The tokens of a plain prompt; an empty one begins where a text begins. Raises RequestError,
    and TooLong for a text of more than `most` characters.
    """
    if isinstance(prompt, str):
        check_length(prompt, most)
    tokens = prompt if isinstance(prompt, list) else tokenizer(prompt)["input_ids"]
    if any(token >= vocabulary for token in tokens):
        raise RequestError("prompt", max(tokens), f"token ids below {vocabulary}")
    if not tokens and tokenizer.bos_token_id is not None:
        tokens = [tokenizer.bos_token_id]
    if not tokens:
        raise RequestError("prompt", prompt, "text; this model has no token to begin one with")
    return Prompt(tokens)


def check_length(text: str, most: float) -> None:
    """Raises TooLong."""
    if len(text) > most:
        raise TooLong(
            f"the prompt has {len(text)} characters; more than {most:.0f} never fit this model's "
            "context, whatever they say"
        )


def _template(tokenizer: Any) -> str:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as none:
        raise RequestError(
            "messages", "a chat", "nothing: this model has no chat template; use completions"
        ) from none


def _check_extra(tokenizer: Any, extra: dict[str, Any]) -> None:
    """Variables for the template are welcome; another template, or how to apply it, is not."""
    ours = inspect.signature(tokenizer.apply_chat_template).parameters
    if refused := sorted(set(extra) & set(ours)):
        raise RequestError("chat_template_kwargs", refused[0], "the template's own variables")


def _message(
    number: int, written: dict[str, Any], marking: _Marking | None = None
) -> dict[str, Any]:
    """One message in the plain form chat templates read."""
    at = f"messages[{number}]"
    role = written.get("role")
    if role not in _ROLES:
        raise RequestError(f"{at}.role", role, ", ".join(_ROLES))
    message = {key: written[key] for key in ("name", "tool_call_id") if written.get(key)}
    # `developer` is what OpenAI calls the system message of its newer models.
    message["role"] = "system" if role == "developer" else role
    calls = written.get("tool_calls")
    if calls is not None and role == "assistant":
        message["tool_calls"] = _tool_calls(f"{at}.tool_calls", calls)
    content = written.get("content")
    message["content"] = _content(f"{at}.content", content, marking, optional=bool(calls))
    return message


def _content(at: str, content: object, marking: _Marking | None, *, optional: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    if not isinstance(content, list):
        raise RequestError(at, content, "text, or a list of parts of type text")
    parts = (_part(f"{at}[{place}]", part, marking) for place, part in enumerate(content))
    return "\n".join(parts)


def _part(at: str, part: object, marking: _Marking | None) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind != "text":
        raise RequestError(f"{at}.type", kind, "'text'; this model reads text only")
    if not isinstance(text := part.get("text"), str):
        raise RequestError(f"{at}.text", text, "text")
    mark = marked(at, part, *((None, "exact") if marking is None else marking[1:]))
    return text if marking is None or mark is None else marking.marks.stand_in(text, *mark)


def _tool_calls(at: str, calls: object) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise RequestError(at, calls, "a list of tool calls")
    return [_tool_call(f"{at}[{place}]", call) for place, call in enumerate(calls)]


def _tool_call(at: str, call: object) -> dict[str, Any]:
    """Templates read the arguments as an object, clients send them as JSON text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise RequestError(f"{at}.function", function, "an object with name and arguments")
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except (msgspec.DecodeError, TypeError) as broken:
        raise RequestError(f"{at}.function.arguments", str(broken), "JSON text") from broken
    return {**call, "function": {**function, "arguments": arguments}}
