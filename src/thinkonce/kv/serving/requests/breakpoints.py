"""Breakpoints in a prompt: `cache_control` on content parts, tools and system blocks.

What is kept does not depend on them: every full block is, and found again without being marked.
They say how long (Anthropic, "Prompt caching": `ephemeral`, `ttl` 5m or 1h; 24h is ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.terms import CLASSES

__all__ = ("life_asked",)


def life_asked(
    messages: list[dict[str, Any]], tools: Any = None, system: Any = None
) -> float | None:
    """The longest life, in seconds, that a breakpoint asks for; None where there is none.

    Raises RequestError that names the breakpoint.
    """
    lives = [
        _life(at, part["cache_control"])
        for at, part in _parts(messages, tools, system)
        if part.get("cache_control") is not None
    ]
    return max(lives, default=None)


def _parts(messages: Any, tools: Any, system: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from _dicts("tools", tools)
    yield from _dicts("system", system)
    for at, message in _dicts("messages", messages):
        yield at, message
        yield from _dicts(f"{at}.content", message.get("content"))


def _dicts(at: str, values: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, dict):
            yield f"{at}[{place}]", value


def _life(at: str, control: Any) -> float:
    kind = control.get("type") if isinstance(control, dict) else control
    if not isinstance(control, dict) or kind != "ephemeral":
        raise RequestError(f"{at}.cache_control.type", kind, "'ephemeral'")
    ttl = control.get("ttl") or "5m"
    if not isinstance(ttl, str) or ttl not in CLASSES:
        raise RequestError(f"{at}.cache_control.ttl", ttl, ", ".join(CLASSES))
    return CLASSES[ttl]
