"""A conversation without its earlier turns: what `context_aware: false` leaves of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ("is_user", "without_context")

_TOLD = ("system", "developer")  # what the model is told to be


def is_user(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def without_context(messages: Any, is_question: Callable[[Any], bool] = is_user) -> Any:
    """What the model is told to be, and the last question with all that follows it.

    What follows (calls, results of tools) stays: without it a tool loop would be answered with
    its own previous turn. Unchanged where there is no question.
    """
    if not isinstance(messages, list):
        return messages
    last = max((place for place, each in enumerate(messages) if is_question(each)), default=None)
    if last is None:
        return messages
    return [each for place, each in enumerate(messages) if place >= last or _is_told(each)]


def _is_told(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _TOLD
