"""Tool calls in a model's text, where its chat template says how the model writes them.

The one form read here is that of templates which mention `<tool_call>`: JSON between that and
`</tool_call>`, an object with `name` and `arguments`, or a list of such objects.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from typing import Any

import msgspec

from thinkonce.kv.serving.answers.transcript import overlap
from thinkonce.kv.serving.requests.prompt import CLOSE, OPEN

__all__ = ("CallReader",)

_BLOCKS = re.compile(rf"(?:\s*{OPEN}(.*?){CLOSE})+\s*", re.S)
_BLOCK = re.compile(rf"{OPEN}(.*?){CLOSE}", re.S)


class _Call(msgspec.Struct):
    name: str
    arguments: dict[str, Any] = {}


_read = msgspec.json.Decoder(_Call | list[_Call]).decode


class CallReader:
    """Takes one choice's text as it comes, and gives on what is no call.

    From the first `<tool_call>` on, text is held back until the choice is complete: only then is
    it known whether all of it is calls. Not thread-safe: one choice, one reader.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._begun = False

    def push(self, text: str) -> str:
        """What of the text so far may go out now."""
        self._held += text
        if self._begun:
            return ""
        at = self._held.find(OPEN)
        self._begun = at >= 0
        end = at if self._begun else len(self._held) - overlap(self._held, OPEN)
        given, self._held = self._held[:end], self._held[end:]
        return given

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """The calls, in OpenAI's form; or, where the rest is not calls of known tools, its text."""
        calls = self._calls() if _BLOCKS.fullmatch(self._held) else None
        return ("", calls) if calls else (self._held, [])

    def _calls(self) -> list[dict[str, Any]] | None:
        calls: list[_Call] = []
        for block in _BLOCK.findall(self._held):
            try:
                found = _read(block.strip())
            except msgspec.DecodeError:
                return None
            calls += found if isinstance(found, list) else [found]
        if not all(call.name in self._names for call in calls):
            return None
        return [_told(call) for call in calls]


def _told(call: _Call) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.arguments).decode()
    return {
        "id": f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
