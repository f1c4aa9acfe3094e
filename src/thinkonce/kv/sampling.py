"""How the next token is chosen: the settings of one request, without the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ("Sampling",)


@dataclass(frozen=True, slots=True)
class Sampling:
    """One request's settings, already validated and with the model's defaults filled in.

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
