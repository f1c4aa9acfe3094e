"""`POST /kv/explain`: what of a request would be loaded now, and why not more."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.serving.answer import Work

__all__ = ("asks_text", "explained")


class _Kind(msgspec.Struct, frozen=True):
    prompt: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()


def asks_text(body: bytes) -> bool:
    """Whether a body is one of `completions`. What is no JSON is told by whoever reads it all.

    Raises RequestError for one of `messages`: read as a chat's, its system text would be left out.
    """
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if kind.system:
        accepts = "nothing; bodies of `messages` are not explained, those of chat completions are"
        raise RequestError("system", "a text", accepts)
    return bool(kind.prompt)


def explained(engine: KvEngine, work: Work) -> dict[str, Any]:
    """One look-up a prompt; nothing is loaded, counted or kept longer for it."""
    looked = [engine.explain(prompt, work.owner, work.terms) for prompt in work.prompts]
    return {"policy": engine.policy, "prompts": [asdict(each) for each in looked]}
