"""Plain generation on transformers: every prompt is read in full, nothing is kept afterwards."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from thinkonce.kv.generation.decode import decoded, forward
from thinkonce.kv.generation.generator import Prefilled, Read, Sampling, Steps
from thinkonce.kv.prefix.asking import Asking

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

    def generate(self, asking: Asking, sampling: Sampling, cancelled: Callable[[], bool]) -> Steps:
        prompt, past = asking.prompt, DynamicCache(config=self._network.config)
        logits = yield from self._read(prompt, past, cancelled)
        if logits is None:
            return
        yield Prefilled(prompt_tokens=len(prompt), cached_tokens=0)

        def step(token: int, position: int) -> torch.Tensor:
            return forward(self._network, [token], position, past)

        yield from decoded(logits, len(prompt), sampling, self._end_ids, step, cancelled)

    def _read(
        self, prompt: Sequence[int], past: Any, cancelled: Callable[[], bool]
    ) -> Generator[Read, None, torch.Tensor | None]:
        """The logits after the prompt, None where the caller left meanwhile."""
        logits = None
        for start in range(0, len(prompt), _PIECE_TOKENS):
            if cancelled():
                return None
            piece = prompt[start : start + _PIECE_TOKENS]
            logits = forward(self._network, piece, start, past)
            yield Read(len(piece))
        return logits
