"""What of a long prompt the tokens of its answer attend to, where that is not all of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Attended",)


@dataclass(frozen=True, slots=True)
class Attended:
    """Each token of an answer attends to `tokens` instead of all `prompt_tokens`.

    They are chosen in each layer and head, by sentence, of which the prompt has `sentences`.
    """

    tokens: int
    prompt_tokens: int
    sentences: int
