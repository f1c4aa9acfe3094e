"""Bodies of Anthropic's `messages`, read as the chat they are.

Field names and shapes: Anthropic, "Messages" (https://docs.anthropic.com/en/api/messages).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.serving.requests.ask import ChatAsk, Defaults, read_chat
from thinkonce.kv.serving.requests.breakpoints import life_asked
from thinkonce.kv.serving.requests.controls import marked
from thinkonce.kv.serving.requests.wrong import object_in

__all__ = ("read_messages",)

_SAME = ("model", "messages", "max_tokens", "stream", "temperature", "top_p", "top_k")
_OURS = ("kv_cache", "prompt_cache_key")
_TO_THE_CACHE = ("kv_cache", "cache_control")


def read_messages(body: bytes, defaults: Defaults) -> tuple[ChatAsk, float | None]:
    """The chat that is asked for, and the life that its breakpoints ask for.

    Raises RequestError naming the field that is wrong.
    """
    raw = _object(body)
    for name in ("max_tokens", "messages"):
        if raw.get(name) is None:
            raise RequestError(name, None, "a value; it is required")
    if (raw.get("thinking") or {"type": "disabled"}).get("type") != "disabled":
        raise RequestError("thinking", raw["thinking"], "{'type': 'disabled'}; it cannot be told")
    chat = {name: raw[name] for name in (*_SAME, *_OURS) if raw.get(name) is not None}
    chat["messages"] = [*_system(raw.get("system")), *_turns(raw["messages"])]
    if raw.get("stop_sequences"):
        chat["stop"] = raw["stop_sequences"]
    if raw.get("tools"):
        chat["tools"] = [_tool(place, tool) for place, tool in enumerate(raw["tools"])]
    if raw.get("tool_choice") is not None:
        chat["tool_choice"] = _choice(raw["tool_choice"])
    life = life_asked(raw["messages"], raw.get("tools"), raw.get("system"))
    return read_chat(msgspec.json.encode(chat), defaults), life


def _object(body: bytes) -> dict[str, Any]:
    raw = object_in(body)
    for name, kind in (("messages", list), ("tools", list), ("thinking", dict)):
        if not isinstance(raw.get(name), kind | None):
            raise RequestError(name, raw[name], "a list" if kind is list else "an object")
    return raw


def _system(system: Any) -> Iterator[dict[str, Any]]:
    if system:
        yield {"role": "system", "content": system}


def _turns(messages: list[Any]) -> Iterator[dict[str, Any]]:
    for place, message in enumerate(messages):
        at = f"messages[{place}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise RequestError(f"{at}.role", role, "user, assistant")
        content = message.get("content")
        if not isinstance(content, list):
            yield {"role": role, "content": content}
        elif role == "user":
            yield from _said_by_user(at, content)
        else:
            yield _said_by_assistant(at, content)


def _said_by_user(at: str, content: list[Any]) -> Iterator[dict[str, Any]]:
    """Results of tools are messages of their own; they come first, as there."""
    rest = []
    for place, block in enumerate(content):
        if _kind(block) != "tool_result":
            rest.append(_text(f"{at}.content[{place}]", block))
            continue
        result = block.get("content")
        yield {
            "role": "tool",
            "tool_call_id": block.get("tool_use_id"),
            "content": result if result is not None else "",
        }
    if rest:
        yield {"role": "user", "content": rest}


def _said_by_assistant(at: str, content: list[Any]) -> dict[str, Any]:
    texts, calls = [], []
    for place, block in enumerate(content):
        if _kind(block) == "tool_use":
            arguments = msgspec.json.encode(block.get("input") or {}).decode()
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        else:
            texts.append(_text(f"{at}.content[{place}]", block))
    message: dict[str, Any] = {"role": "assistant", "content": texts}
    return {**message, "tool_calls": calls} if calls else message


def _text(at: str, block: Any) -> dict[str, Any]:
    if _kind(block) != "text" or not isinstance(block.get("text"), str):
        accepts = "text, tool_use of the assistant, tool_result of the user"
        raise RequestError(f"{at}.type", _kind(block), accepts)
    marked(at, block, None, "exact")  # its fields are named where the client wrote them
    said = {name: block[name] for name in _TO_THE_CACHE if block.get(name) is not None}
    return {"type": "text", "text": block["text"], **said}


def _kind(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None


def _tool(place: int, tool: Any) -> dict[str, Any]:
    name = tool.get("name") if isinstance(tool, dict) else None
    if not isinstance(name, str) or tool.get("type", "custom") != "custom":
        raise RequestError(f"tools[{place}]", tool, "a tool with name and input_schema")
    function = {"name": name, "parameters": tool.get("input_schema") or {}}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(choice: Any) -> str:
    kind = _kind(choice)
    if kind not in ("auto", "none"):
        raise RequestError("tool_choice.type", kind, "'auto' or 'none'; a call cannot be enforced")
    return str(kind)
