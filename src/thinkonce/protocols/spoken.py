"""The words of an answer, whichever protocol it is in: what two answers are compared by."""

from __future__ import annotations

from typing import Any

__all__ = ("spoken",)


def spoken(body: dict[str, Any]) -> str | None:
    """Of an answer as one JSON object. None where it is more, or other, than one text.

    Chat completions, completions, Anthropic's messages and OpenAI's responses. Reasoning is no
    part of it; a call of a tool is no text.
    """
    choices = body.get("choices")
    if isinstance(choices, list):
        return _of_choice(choices[0]) if len(choices) == 1 else None
    if isinstance(content := body.get("content"), list):
        return _of_parts(content, passed_over=("thinking", "redacted_thinking"))
    if isinstance(output := body.get("output"), list):
        return _of_output(output)
    return None


def _of_choice(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    if isinstance(text := choice.get("text"), str):
        return text
    message = choice.get("message")
    if not isinstance(message, dict) or message.get("tool_calls") or message.get("function_call"):
        return None
    content = message.get("content")
    return content if isinstance(content, str) else None


def _of_output(output: list[Any]) -> str | None:
    said = [item for item in output if not _is(item, ("reasoning",))]
    if len(said) != 1 or not _is(said[0], ("message",)):
        return None
    content = said[0].get("content")
    return _of_parts(content) if isinstance(content, list) else None


def _of_parts(parts: list[Any], passed_over: tuple[str, ...] = ()) -> str | None:
    texts = []
    for part in parts:
        if _is(part, passed_over):
            continue
        if not _is(part, ("text", "output_text")) or not isinstance(part.get("text"), str):
            return None
        texts.append(part["text"])
    return "".join(texts) if texts else None


def _is(part: Any, types: tuple[str, ...]) -> bool:
    return isinstance(part, dict) and part.get("type") in types
