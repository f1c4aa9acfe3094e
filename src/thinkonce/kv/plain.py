"""Plain generation on transformers: every prompt is read in full, nothing is kept afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from thinkonce.kv.generate import Prefilled, Sampling, Token
from thinkonce.kv.sampler import Sampler

__all__ = ("PlainGenerator",)

# A prompt is read in pieces, so that a client who left is noticed within one piece. At 512 the
# CPU attention kernel gives what reading in one piece gives (measured; see the log).
_PIECE_TOKENS = 512


class PlainGenerator:
    """A `Generator` whose KV cache lives as long as one answer.

    `end_ids` are the tokens that end an answer. Not thread-safe: one worker calls it.
    """

    def __init__(self, network: Any, end_ids: frozenset[int]) -> None:
        self._network = network
        self._end_ids = end_ids

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Prefilled | Token]:
        past = DynamicCache(config=self._network.config)
        logits = self._read(prompt, past, cancelled)
        if logits is None:
            return
        yield Prefilled(prompt_tokens=len(prompt), cached_tokens=0)
        sampler = Sampler(sampling, vocabulary=logits.numel())
        end = len(prompt) + sampling.max_tokens
        for position in range(len(prompt), end):
            token = self._chosen(sampler, sampling, logits)
            yield token
            if token.ends or position + 1 == end or cancelled():
                return
            logits = self._forward([token.id], position, past)

    def _read(
        self, prompt: Sequence[int], past: Any, cancelled: Callable[[], bool]
    ) -> torch.Tensor | None:
        """The logits after the prompt, None where the caller left meanwhile."""
        logits = None
        for start in range(0, len(prompt), _PIECE_TOKENS):
            if cancelled():
                return None
            logits = self._forward(prompt[start : start + _PIECE_TOKENS], start, past)
        return logits

    def _forward(self, tokens: Sequence[int], position: int, past: Any) -> torch.Tensor:
        """The fp32 logits after the last of `tokens`, the first being at `position`."""
        # Entered for each call: a generator that yields inside the mode leaks it to its caller.
        with torch.inference_mode():
            output = self._network(
                input_ids=torch.tensor([list(tokens)]),
                position_ids=torch.arange(position, position + len(tokens)).unsqueeze(0),
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            )
            row: torch.Tensor = output.logits[0, -1].float()
        return row

    def _chosen(self, sampler: Sampler, sampling: Sampling, logits: torch.Tensor) -> Token:
        with torch.inference_mode():
            token = sampler.choose(logits)
            ends = token in self._end_ids
            if sampling.logprobs is None:
                return Token(token, ends)
            row = logits.log_softmax(-1)
            values, ids = row.topk(min(sampling.logprobs, row.numel()))
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
            return Token(token, ends, float(row[token]), top)
