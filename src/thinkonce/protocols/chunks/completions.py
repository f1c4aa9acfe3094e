"""OpenAI's older text completions, which local servers and base models still speak."""

from __future__ import annotations

from collections.abc import Sequence
from random import getrandbits
from typing import Any

from thinkonce.protocols.chunks.answer import Choice, ChunkAnswer
from thinkonce.protocols.chunks.completions_shapes import COMPLETIONS_SHAPES
from thinkonce.protocols.chunks.dialect import ChunkDialect
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.facts import NUMBER, QUESTION, TEXTS, Facts, Schema
from thinkonce.protocols.openai_request import (
    identity_of,
    live_field,
    number_or_none,
    wants_json,
    wants_usage,
)

__all__ = ("OpenAICompletions",)


class _Choice(Choice, kw_only=True):
    text: str

    @property
    def says_something(self) -> bool:
        return bool(self.text)

    @property
    def words(self) -> str:
        return self.text

    @property
    def said(self) -> Any:
        return self.text


class _Answer(ChunkAnswer, kw_only=True):
    choices: list[_Choice]

    @property
    def all_choices(self) -> Sequence[Choice]:
        return self.choices


class OpenAICompletions(ChunkDialect):
    """See `dialect.Dialect`."""

    name = "completions"
    facts = Facts(
        schema=Schema(
            "CompletionRequest",
            "OpenAI's text completions",
            {"prompt": TEXTS, "temperature": NUMBER},
            ("model", "prompt"),
            {"prompt": QUESTION, "max_tokens": 40},
        ),
        operation="text_completion",
        field="prompt",
        can_be_strict=True,
    )
    _answer = _Answer
    _shapes = COMPLETIONS_SHAPES

    def asks(self, body: dict[str, Any]) -> Asked:
        model, each = body.get("model"), body.get("n")
        each = each if type(each) is int and each > 0 else 1
        return Asked(
            model=model if isinstance(model, str) else "",
            stream=body.get("stream") is True,
            include_usage=wants_usage(body),
            answers=_prompts(body.get("prompt")) * each,
            wants_json=wants_json(body.get("response_format")),
            temperature=number_or_none(body.get("temperature")),
            stateful=live_field(body),
            body=body,
        )

    def identity(
        self,
        body: dict[str, Any],
        *,
        context_aware: bool = True,
        ignore: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """A prompt has no earlier turns: `context_aware` takes nothing out."""
        return identity_of(body, ignore)

    def fresh_id(self) -> str:
        return f"cmpl-{getrandbits(120).to_bytes(15).hex()}"


def _prompts(prompt: Any) -> int:
    """How many there are: text, token ids, or a list of either. `best_of` is not among them."""
    if not isinstance(prompt, list) or not prompt or type(prompt[0]) is int:
        return 1
    return len(prompt)
