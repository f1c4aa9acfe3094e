"""Generation that reads each prefix once, and gives the bits that reading it anew would give.

    prompt   |  chunk 0  |  chunk 1  |  chunk 2  | tail |     chunks are cut at 0, C, 2C, ...
    known    |===========|===========|
             load         load        forward     forward      the last piece is always computed

Every piece is one forward pass over the same tokens behind the same bytes, whoever computed
those: so a warm request runs the calls that a cold one runs, less the first ones. What a tail or
an answer wrote is never kept: computed in other company, its last bits would be others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thinkonce.kv.generation.decode import decoded, forward
from thinkonce.kv.generation.generator import Prefilled, Sampling, Token
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.index import Hold, PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner

__all__ = ("ExactGenerator", "Reading", "ReadingStats")

_logger = logging.getLogger("thinkonce.kv")


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt that has been read: the fp32 logits after it, and what of it was known."""

    logits: torch.Tensor
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class ReadingStats:
    """Since the start: prompts begun, their tokens, and those of them that were loaded.

    `not_kept` counts blocks that could not be stored because memory ran out.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    not_kept: int = 0


class ExactGenerator:
    """A `Generator` over a model of `support.FAMILIES`.

    `kept` None reads every prompt anew, with the same bits as result. `fingerprint` is that of
    the model and `chunk_tokens`. Not thread-safe, and one answer at a time: beginning the next
    one ends an iterator that is still open. The index may be shared and looked at meanwhile.
    """

    def __init__(
        self,
        network: Any,
        end_ids: frozenset[int],
        *,
        chunk_tokens: int,
        fingerprint: bytes,
        kept: PrefixIndex[torch.Tensor] | None,
    ) -> None:
        self._network, self._end_ids = network, end_ids
        self.chunk_tokens, self.fingerprint, self._kept = chunk_tokens, fingerprint, kept
        self.slab = Slab(shape_of(network))
        self.stats = ReadingStats()
        self._answers = 0

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        cancelled: Callable[[], bool],
        owner: Owner = NOBODY,
    ) -> Iterator[Prefilled | Token]:
        reading = self.read(prompt, cancelled, owner)
        if reading is None:
            return
        answer = self._answers
        yield Prefilled(len(prompt), reading.cached_tokens)

        def step(token: int, position: int) -> torch.Tensor:
            if answer != self._answers:
                raise RuntimeError("another answer was begun before this one had ended")
            return self._forward([token], position)

        yield from decoded(reading.logits, len(prompt), sampling, self._end_ids, step, cancelled)

    def read(
        self, prompt: Sequence[int], cancelled: Callable[[], bool], owner: Owner = NOBODY
    ) -> Reading | None:
        """Fill the slab with the prompt's keys and values; None where the caller left meanwhile.

        Full chunks are kept as they are computed, so a reading that is given up helps the next.
        """
        self._answers += 1
        if self._kept is None:
            return self._read(prompt, cancelled, [], None)
        blocks = list(blocks_of(prompt, self.chunk_tokens, self.fingerprint, owner))
        # The last token is always computed, together with what is in a piece with it.
        usable = blocks[: (len(prompt) - 1) // self.chunk_tokens]
        with self._kept.hold(usable) as hold:
            return self._read(prompt, cancelled, blocks, hold)

    def _read(
        self,
        prompt: Sequence[int],
        cancelled: Callable[[], bool],
        blocks: Sequence[Block],
        hold: Hold[torch.Tensor] | None,
    ) -> Reading | None:
        known = hold.nodes if hold is not None else []
        cached = len(known) * self.chunk_tokens
        self._count(prompts=1, prompt_tokens=len(prompt), cached_tokens=cached)
        with torch.inference_mode():
            self.slab.begin()
            self.slab.reserve(len(prompt))
            for node in known:
                self.slab.load(node.state)
        logits = None
        for start in range(cached, len(prompt), self.chunk_tokens):
            if cancelled():
                return None
            logits = self._forward(prompt[start : start + self.chunk_tokens], start)
            place = start // self.chunk_tokens
            # Without the block before it, a block could never be found.
            if hold is not None and place == len(hold.nodes) < len(blocks):
                self._keep(hold, blocks[place], start)
        assert logits is not None, "a prompt has a token, and its last piece is never loaded"
        return Reading(logits, cached)

    def _forward(self, tokens: Sequence[int], position: int) -> torch.Tensor:
        with torch.inference_mode():
            self.slab.reserve(position + len(tokens))
        return forward(self._network, tokens, position, self.slab.cache)

    def _keep(self, hold: Hold[torch.Tensor], block: Block, start: int) -> None:
        """Store one chunk's keys and values; memory that is not there costs the answer nothing."""
        try:
            with torch.inference_mode():
                state = self.slab.copy(start, start + self.chunk_tokens)
        except (MemoryError, RuntimeError) as failed:  # torch has both for memory that ran out
            _logger.warning("attention state is not kept: %s", failed)
            self._count(not_kept=1)
            return
        hold.extend(block, state, state.nbytes)

    def _count(
        self, prompts: int = 0, prompt_tokens: int = 0, cached_tokens: int = 0, not_kept: int = 0
    ) -> None:
        was = self.stats
        self.stats = ReadingStats(
            was.prompts + prompts,
            was.prompt_tokens + prompt_tokens,
            was.cached_tokens + cached_tokens,
            was.not_kept + not_kept,
        )
