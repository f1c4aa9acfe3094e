"""The last question of a request, and all else of it: what other words may ask, and what may not.

    identity ──► the last text of the last user turn compared by meaning
             └─► the identity with that text blank   equal byte for byte, or nothing is compared

Works on the identity as a dialect gives it, hence on kept requests as well.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("BLANK", "Question", "question_in")

# In place of the text; no text of a client can be equal to it, because it is none.
BLANK = {"thinkonce": "question"}
_TEXT_PARTS = ("text", "input_text")
_TOOL_ROLES = ("tool", "function")
_TOOL_TYPES = ("tool_result", "tool_use", "function_call", "function_call_output")


class Question(msgspec.Struct, frozen=True):
    """`rest`: the identity with a blank for the text. `turns`: how many user turns came before.

    `tools`: tools are offered, or were used.
    """

    text: str
    rest: dict[str, Any]
    turns: int = 0
    tools: bool = False


def question_in(identity: dict[str, Any]) -> Question | None:
    """None where the last turn is not a user's text: nothing of it is compared by meaning."""
    name = next((name for name in ("messages", "input", "prompt") if name in identity), "")
    asked = identity.get(name)
    if isinstance(asked, str):
        return Question(asked, {**identity, name: BLANK}, tools=_offers_tools(identity))
    if name == "prompt" or not isinstance(asked, list) or not asked:
        return None
    last = asked[-1]
    if not isinstance(last, dict) or last.get("role") != "user":
        return None
    found = _without_text(last.get("content"))
    if found is None:
        return None
    text, blank = found
    rest = {**identity, name: [*asked[:-1], {**last, "content": blank}]}
    turns = sum(_is_user(turn) for turn in asked[:-1])
    return Question(text, rest, turns, _offers_tools(identity) or any(map(_is_of_tool, asked)))


def _without_text(content: Any) -> tuple[str, Any] | None:
    """The text of one turn, and the turn's content with a blank in its place.

    Of several texts of a turn the last is the question. The others have to be equal and where they
    are: beside pictures, which text stands where decides what it says.
    """
    if isinstance(content, str):
        return content, BLANK
    if not isinstance(content, list) or any(map(_is_of_tool, content)):
        return None
    last = next((at for at in reversed(range(len(content))) if _is_text(content[at])), None)
    if last is None:
        return None
    part = content[last]
    return part["text"], [*content[:last], {**part, "text": BLANK}, *content[last + 1 :]]


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") in _TEXT_PARTS
        and isinstance(part.get("text"), str)
    )


def _is_user(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "user"


def _offers_tools(identity: dict[str, Any]) -> bool:
    return bool(identity.get("tools") or identity.get("functions"))


def _is_of_tool(turn: Any) -> bool:
    """A turn, or a part of one, in which a tool is called or answers."""
    if not isinstance(turn, dict):
        return False
    if turn.get("role") in _TOOL_ROLES or turn.get("type") in _TOOL_TYPES:
        return True
    if turn.get("tool_calls") or turn.get("function_call"):
        return True
    content = turn.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") in _TOOL_TYPES for part in content
    )
