"""`POST /kv/explain`: what of a request would be loaded now, and why not more."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from thinkonce.kv.engine import KvEngine
from thinkonce.kv.serving.answers.answer import Work
from thinkonce.kv.serving.answers.explanation import Explanation, explanation

__all__ = ("DialectName", "Told", "dialect_of", "explained", "without_texts")

DialectName = Literal["chat", "text", "messages"]


class _Kind(msgspec.Struct, frozen=True):
    """Members that bodies of one dialect alone have."""

    prompt: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    stop_sequences: msgspec.Raw = msgspec.Raw()
    messages: list[Any] = []
    tools: list[Any] | None = None

    @property
    def is_anthropic(self) -> bool:
        """Blocks and tools of Anthropic's are no parts and tools of a chat completion."""
        tools = [tool for tool in self.tools or () if isinstance(tool, dict)]
        contents = [m.get("content") for m in self.messages if isinstance(m, dict)]
        blocks = [block for content in contents if isinstance(content, list) for block in content]
        kinds = {block.get("type") for block in blocks if isinstance(block, dict)}
        return (
            bool(self.system or self.stop_sequences)
            or any("input_schema" in tool for tool in tools)
            or bool(kinds & {"tool_use", "tool_result"})
        )


def dialect_of(body: bytes) -> DialectName:
    """Whose body it is: by its members, as the same text may be sent to three paths.

    What both `messages` and `chat/completions` take is read alike by both. What is no JSON is
    told by whoever reads it all.
    """
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "chat"
    if kind.prompt:
        return "text"
    return "messages" if kind.is_anthropic else "chat"


class Told(msgspec.Struct, frozen=True):
    """The answer: `policy` is what decides which blocks memory gives up."""

    policy: str
    prompts: tuple[Explanation, ...]


def explained(engine: KvEngine, tokenizer: Any, work: Work) -> Told:
    """One look-up a prompt; nothing is loaded, counted or kept longer for it."""
    looked = [(asking.prompt, engine.explain(asking, is_admin=True)) for asking in work.askings]
    told = [explanation(tokenizer, prompt, each, work.contents) for prompt, each in looked]
    return Told(engine.policy, tuple(told))


def without_texts(told: Told) -> Told:
    """The same, less where it departs from which other text: whoever may ask as often as they
    like could guess that text a token at a time.
    """
    replace = msgspec.structs.replace
    return replace(told, prompts=tuple(replace(each, difference=None) for each in told.prompts))
