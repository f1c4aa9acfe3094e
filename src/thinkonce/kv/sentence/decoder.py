"""An answer to a long prompt, each token of which attends to a budget of tokens.

    read      exactly, all of it, by whichever reader
    choose    at a sentence's beginning and when it has 2, 4, 8, ... tokens: sentences to whose
              vectors the mean query of the one being written would attend, until the budget is full
    attend    first 32, chosen, latest 32
    end       of a sentence: its own vector joins the others

Until a sentence has queries the one before it chooses, and at first the prompt's last 32 tokens.
Published is: anew with each token, by the dot product with the vector, among the tokens alone that
the prompt's end looks at, and all of these while a sentence begins, which would break the budget.
`docs/sentence.md` says what the differences are worth.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import torch

from thinkonce.kv.generation.attending import Step
from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.masks import FULL, SLIDING, Masks, kind_of, masks
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.attended import Attended
from thinkonce.kv.sentence.arena import FIRST, Arena
from thinkonce.kv.sentence.ends import SentenceEnds
from thinkonce.kv.sentence.importance import WINDOW, asked, importance
from thinkonce.kv.sentence.queries import attention_of, listening
from thinkonce.kv.sentence.sentences import Keys, Score, Sentences, by_attention

_logger = logging.getLogger("thinkonce.kv")

__all__ = ("LEAST", "Choosing", "SentenceDecoder", "Written")

LEAST = 128
"""Tokens of the smallest budget: half of it is chosen."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """`factor`: budgets of tokens that are kept to be chosen from, those that the prompt's last
    tokens look at most; infinite: all. `score`: which sentences are better. `when`: each time a
    sentence has doubled, or with every token.
    """

    factor: float = inf
    score: Score = by_attention
    when: Literal["doubled", "always"] = "doubled"


class SentenceDecoder:
    """A `Decoder`: of prompts that are longer than `tokens`. Used by one thread."""

    def __init__(
        self, network: Any, ends: SentenceEnds, tokens: int, choosing: Choosing = Choosing()
    ) -> None:
        """`tokens`: attended to by each token of an answer, 128 or more."""
        config = network.config
        kinds = [kind_of(config, layer) for layer in range(config.num_hidden_layers)]
        self.layers = [layer for layer, kind in enumerate(kinds) if kind == FULL]
        self._network, self._ends, self._choosing = network, ends, choosing
        self.tokens, self._is_mixed = tokens, SLIDING in kinds
        self._scaling = attention_of(network, 0).scaling

    def room(self, tokens: int) -> int:
        return self.tokens if self.layers and tokens > self.tokens else 0

    def attended(self, prompt: Sequence[int]) -> Attended | None:
        if not self.room(len(prompt)):
            return None
        return Attended(self.tokens, len(prompt), len(self._ends.sentences(prompt)))

    def begun(self, prompt: Sequence[int], slab: Slab, memory: Slab) -> Written:
        """The state of an answer to a prompt that the slab holds."""
        with torch.inference_mode():
            arena = Arena(slab, memory, self.layers, self.tokens)
            queries = asked(self._network, slab, prompt, self.layers)
            keys = arena.keys(0, slab.length)
            kept = self._chosen(queries, keys)
            sentences = Sentences(kept, self._spans(prompt), keys)
            mean = torch.stack([queries[each].float().mean(1) for each in self.layers])
            return Written(self, arena, sentences, mean, prompt)

    def step(self, prompt: Sequence[int], slab: Slab, memory: Slab) -> Step:
        begun: list[Step] = []

        def step(token: int, place: int) -> torch.Tensor:
            if not begun:
                begun.append(self._begun_or_whole(prompt, slab, memory))
            return begun[0](token, place)

        return step

    def _begun_or_whole(self, prompt: Sequence[int], slab: Slab, memory: Slab) -> Step:
        """Attention to all of the prompt where the machine has no memory to choose in."""
        try:
            return self.begun(prompt, slab, memory).step
        except (MemoryError, RuntimeError) as failed:  # torch has both for memory that ran out
            _logger.warning("an answer attends to all of its prompt: %s", failed)
            return lambda token, place: forward(self._network, [token], place, slab.cache)

    def forward(self, arena: Arena, token: int, place: int, heard: _Mean) -> torch.Tensor:
        """The logits behind one more token, which attends to the arena."""
        with torch.inference_mode():
            arena.slab.reserve(place + 1)
            seen = self._masks(place) if self._is_mixed else None
        with listening(self._network, self.layers, heard.add):
            return forward(self._network, [token], place, arena.cache, seen)

    def best(self, sentences: Sentences, query: torch.Tensor, arena: Arena) -> torch.Tensor:
        scores = self._choosing.score(query * self._scaling, sentences.vectors)
        end = arena.slab.length + 1 - WINDOW
        return sentences.best(scores, end, arena.tokens - FIRST - WINDOW)

    def is_due(self, count: int) -> bool:
        """Whether to choose anew when the sentence being written has so many tokens."""
        return self._choosing.when == "always" or (count != 1 and count & (count - 1) == 0)

    def ended(self, before: Sequence[int], token: int) -> bool:
        return self._ends.between(before, token)

    def _spans(self, prompt: Sequence[int]) -> list[range]:
        """Its sentences, less the tokens that are attended to anyway."""
        spans = self._ends.sentences(prompt)
        return [range(max(FIRST, span.start), span.stop) for span in spans if span.stop > FIRST]

    def _chosen(self, queries: dict[int, torch.Tensor], keys: Keys) -> torch.Tensor:
        """Places behind the first 32: all, or those looked at most, and the last 32."""
        length, most = keys[0].shape[1], self._choosing.factor * self.tokens
        if most >= length:
            return torch.arange(FIRST, length, device=keys[0].device)[None, None]
        last = torch.arange(length - WINDOW, length, device=keys[0].device)
        rows = []
        for layer, state in zip(self.layers, keys, strict=True):
            paid = importance(self._network, layer, queries[layer], state)[:, FIRST:]
            best = paid.topk(round(most) - FIRST - WINDOW).indices.sort().values + FIRST
            rows.append(torch.cat((best, last.expand(len(best), -1)), -1))
        return torch.stack(rows)

    def _masks(self, place: int) -> Masks:
        """For models that take one for each kind of layer."""
        places = torch.tensor([place], device=self._network.device)
        found = masks(self._network, places, place + 1)
        return {**found, FULL: None}  # type: ignore[dict-item]  # nothing is hidden in the arena


class Written:
    """An answer under way."""

    def __init__(
        self,
        decoder: SentenceDecoder,
        arena: Arena,
        sentences: Sentences,
        query: torch.Tensor,
        prompt: Sequence[int],
    ) -> None:
        """`query`: [layers, heads, dim] in fp32, that chooses until the answer has its own."""
        self.arena, self.sentences = arena, sentences
        self._decoder, self._query = decoder, query
        self._start, self._mean = len(prompt), _Mean(decoder.layers, query)
        self._tail = list(prompt[-WINDOW:])

    def step(self, token: int, place: int) -> torch.Tensor:
        """The logits behind `token`, the next one of the answer."""
        count = place - self._start
        with torch.inference_mode():
            if count and (count == WINDOW or self._decoder.ended(self._tail, token)):
                self._end(place)
                count = 0
            if self._decoder.is_due(count):
                query = self._mean.value if count > 1 else self._query
                self.arena.gather(self._decoder.best(self.sentences, query, self.arena))
        self._tail = [*self._tail[1:], token]
        return self._decoder.forward(self.arena, token, place, self._mean)

    def _end(self, place: int) -> None:
        """The sentence being written ends before `place`."""
        span = range(self._start, place)
        self.sentences.add(span, self.arena.keys(span.start, span.stop))
        self._start, self._query = place, self._mean.value
        self._mean = _Mean(self._decoder.layers, self._query)


class _Mean:
    """Of the queries of the sentence being written, [layers, heads, dim] in fp32."""

    def __init__(self, layers: Sequence[int], like: torch.Tensor) -> None:
        self._numbers = {layer: number for number, layer in enumerate(layers)}
        self._sum, self._count = torch.zeros_like(like), 0

    @property
    def value(self) -> torch.Tensor:
        return self._sum / self._count

    def add(self, layer: int, queries: torch.Tensor) -> None:
        number = self._numbers[layer]
        self._sum[number] += queries[:, -1]
        self._count += number == 0
