"""The seam behind which tokens are made.

Everything in front of it (server, line, transcript) sees token ids and nothing of attention.
An implementation that reuses attention state yields the same events with `cached_tokens` > 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from thinkonce.kv.sampling import Sampling

__all__ = ("Generator", "Prefilled", "Token")


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt has been read; `cached_tokens` of it were known already."""

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `ends` marks an end-of-answer token, which is no text.

    `logprob` and `top` (id and log-probability, likeliest first) are there when asked for.
    """

    id: int
    ends: bool
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Generator(Protocol):
    """Makes the tokens of one answer. Called from one thread at a time."""

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Prefilled | Token]:
        """One Prefilled, then at most `sampling.max_tokens` tokens, the last may be an end.

        `cancelled` is asked between steps; once true the iterator ends early. `prompt` is not
        empty and leaves room for the answer in the model's context.
        """
        ...
