"""Chooses one token from a row of logits, the way a request's settings say."""

from __future__ import annotations

import torch

from thinkonce.kv.generation.generator import Sampling

__all__ = ("Sampler",)


LEAST_TEMPERATURE = 1e-5
"""Below it the likeliest token is taken: logits divided by less are no numbers any more."""


class Sampler:
    """The choice of every token of one answer; it remembers what it chose, for the penalties.

    Order: bias, penalties, temperature, top_k, top_p. Log-probabilities are the model's own,
    before all of these. Not thread-safe: one answer, one sampler.
    """

    def __init__(self, sampling: Sampling, vocabulary: int) -> None:
        self._sampling = sampling
        self._counts = torch.zeros(vocabulary) if _penalises(sampling) else None
        self._bias = _bias_row(sampling, vocabulary)
        # A generator of its own: neighbours in the queue cannot disturb a seeded answer.
        self._random = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token's id. `logits` is one fp32 row over the vocabulary, left unchanged."""
        row = self._adjusted(logits)
        if self._sampling.temperature < LEAST_TEMPERATURE:
            token = int(row.argmax())
        else:
            token = self._drawn(row / self._sampling.temperature)
        if self._counts is not None:
            self._counts[token] += 1
        return token

    def _adjusted(self, row: torch.Tensor) -> torch.Tensor:
        if self._bias is not None:
            row = row + self._bias
        if self._counts is not None:
            seen = (self._counts > 0).float()
            row = row - self._sampling.frequency_penalty * self._counts
            row = row - self._sampling.presence_penalty * seen
        return row

    def _drawn(self, row: torch.Tensor) -> int:
        if 0 < self._sampling.top_k < row.numel():
            smallest = row.topk(self._sampling.top_k).values[-1]
            row = row.masked_fill(row < smallest, -torch.inf)
        probabilities = row.softmax(-1)
        if self._sampling.top_p < 1:
            probabilities = _nucleus(probabilities, self._sampling.top_p)
        return int(probabilities.multinomial(1, generator=self._random))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the likeliest tokens whose sum first reaches `top_p`; at least one stays.

    Holtzman et al., "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    sorted_down, order = probabilities.sort(descending=True)
    reached_before = sorted_down.cumsum(-1)[:-1]
    dropped = order[1:][reached_before >= top_p]
    return probabilities.index_fill(-1, dropped, 0.0)


def _penalises(sampling: Sampling) -> bool:
    return sampling.presence_penalty != 0 or sampling.frequency_penalty != 0


def _bias_row(sampling: Sampling, vocabulary: int) -> torch.Tensor | None:
    if not sampling.logit_bias:
        return None
    row = torch.zeros(vocabulary)
    for token, bias in sampling.logit_bias.items():
        row[token] = bias
    return row
