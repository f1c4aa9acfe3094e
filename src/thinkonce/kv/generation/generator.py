"""The seam behind which tokens are made.

Everything in front of it (server, line, transcript) sees token ids and nothing of attention.
An implementation that reuses attention state yields the same events with `cached_tokens` > 0.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from thinkonce.errors import ThinkOnceError
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Explained
from thinkonce.kv.prefix.reused import NOTHING, Reused

__all__ = ("Generator", "Kept", "Prefilled", "Read", "Sampling", "Steps", "Token", "TooLong")


class TooLong(ThinkOnceError):
    """A prompt and answer that `[kv] memory` can never hold; says what would fit."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: one request's settings, checked and with defaults filled in.

    `max_tokens` bounds the answer in tokens. `temperature` 0 takes the likeliest token.
    `top_k` 0 and `top_p` 1 switch those cuts off. `seed` makes an answer repeatable on the same
    machine and settings. `logprobs` is how many alternatives to report for each token, None for
    no log-probabilities at all. Penalties count the tokens of the answer, not of the prompt.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """So many tokens of the prompt were computed in one step; 0 while memory is waited for.

    `loaded`: tokens that were loaded before the first; told where a prompt is only read.
    """

    tokens: int
    loaded: int | None = None


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt has been read; `cached_tokens` of it were known already, `reused` by method, and
    `written_tokens` are kept that were not before.

    `explained`: why not more, where the terms asked for it and something is kept.
    """

    prompt_tokens: int
    cached_tokens: int
    explained: Explained | None = None
    reused: Reused = NOTHING
    written_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """Of a prompt's full blocks, `cached_tokens` were known and `kept_tokens` are kept now."""

    whole_tokens: int
    cached_tokens: int
    kept_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `ends` marks an end-of-answer token, which is no text.

    `logprob` and `top` (id and log-probability, likeliest first) are there when asked for.
    """

    id: int
    ends: bool
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


Steps = abc.Generator[Read | Prefilled | Token, None, None]
"""What a generator does and makes, step by step."""


class Generator(Protocol):
    """Makes the tokens of answers, several by turns. Called from one thread at a time."""

    def generate(self, asking: Asking, sampling: Sampling, cancelled: Callable[[], bool]) -> Steps:
        """Any number of Read, one Prefilled, then at most `sampling.max_tokens` tokens, the last
        may be an end.

        Between two of them lies one forward pass at most, so that answers can take turns; closing
        the iterator frees what it holds. `cancelled` is asked between steps; once true the
        iterator ends early. The prompt is not empty and leaves room for the answer in the model's
        context; TooLong is raised for what memory can never hold. State of an earlier prompt
        is used for this one only if both have one owner, and as far as its terms allow it.
        """
        ...
