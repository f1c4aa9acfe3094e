"""What a Messages request asks for beyond words: state elsewhere, media elsewhere, the question."""

from __future__ import annotations

import re
from typing import Any

from thinkonce.protocols.openai_request import is_live

__all__ = ("has_remote_media", "is_question", "stateful_field", "wants_json")

# Fields that tie the answer to something kept by the provider or by others.
_STATE_FIELDS = ("container", "mcp_servers", "thread")
# The client runs these itself, or they look into the request's own tools only. Any other type may
# bring in what changes: web_search_..., web_fetch_..., code_execution_..., computer_...
_PURE_TOOL = re.compile(
    r"custom|(bash|text_editor|memory)_\d+|tool_search_tool_(bm25|regex)(_\d+)?"
)


def stateful_field(body: dict[str, Any]) -> str:
    """The field that ties the answer to something that changes elsewhere; "" for none."""
    for name in _STATE_FIELDS:
        if body.get(name):
            return name
    tools = body.get("tools")
    if tools and not (isinstance(tools, list) and all(map(_is_the_clients, tools))):
        return "tools"
    return "model" if is_live(body.get("model")) else ""


def _is_the_clients(tool: Any) -> bool:
    """Whatever has a shape that is not known here may be run anywhere."""
    if not isinstance(tool, dict):
        return False
    kind = tool.get("type")
    if kind is None:
        return "input_schema" in tool
    return _PURE_TOOL.fullmatch(str(kind)) is not None


def wants_json(body: dict[str, Any]) -> bool:
    config = body.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else body.get("output_format")
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"


def has_remote_media(messages: Any) -> bool:
    """Whether a URL stands for a picture or a document, in a message or in a tool's result.

    A file named by its id does not change: the id is identity enough.
    """
    stack = [messages]
    while stack:
        item = stack.pop()
        if type(item) is list:
            stack += item
        elif type(item) is dict:
            source = item.get("source")
            if isinstance(source, dict) and source.get("type") == "url":
                return True
            stack += [item.get("content"), source]
    return False


def is_question(message: Any) -> bool:
    """A user's turn that is not the result of a tool the model called."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return False
    content = message.get("content")
    return not (isinstance(content, list) and any(map(_is_result, content)))


def _is_result(block: Any) -> bool:
    return isinstance(block, dict) and str(block.get("type")).endswith("tool_result")
