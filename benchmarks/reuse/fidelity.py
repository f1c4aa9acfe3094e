"""How far a method's answer is from full recompute, on the same ids.

Truth is one pass over the whole prompt and the 16 tokens it then prefers. A method is shown those
tokens one after the other: at each place, KL(truth || method) of the next token, and whether both
prefer the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from reuse.encoding import Encoded, assembled, encoded, encoded_behind, prefilled
from reuse.prompts import Prompt

from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.reuse.layout import Choice, Layout
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.selective import recomputed

__all__ = ("PLACES", "Bench", "Method", "layout_of")

PLACES = 16


@dataclass(frozen=True)
class Method:
    """A choice over chunks that were encoded behind `behind` (see `Bench.encoded`)."""

    choice: Choice
    behind: str = "solo"
    turned: bool = True

    @property
    def name(self) -> str:
        name = self.choice.name if self.turned else f"{self.choice.name}, not turned"
        return name if self.behind == "solo" else f"{name}, behind {self.behind}"


def layout_of(prompt: Prompt) -> Layout:
    at, chunks = len(prompt.head), []
    for chunk in prompt.chunks:
        chunks.append(range(at, at + len(chunk)))
        at += len(chunk)
    return Layout(at + len(prompt.asked), tuple(chunks), exact=len(prompt.head))


class Bench:
    """One model. `fronts`: ids that may stand in front of a chunk, by name."""

    def __init__(self, network: Any, fronts: Mapping[str, Sequence[int]]) -> None:
        self._network = network
        self._fronts = {
            name: prefilled(network, front).copy(0, len(front)) for name, front in fronts.items()
        }
        self._rotation = Rotation(network)
        self._slab = Slab(shape_of(network))
        self._layers = network.config.num_hidden_layers

    def measured(self, prompt: Prompt, methods: Sequence[Method]) -> Iterator[dict[str, Any]]:
        """A record for each method: KL, agreement, rows computed, and seconds of CPU."""
        with torch.inference_mode():
            head, truth, answer, seconds = self._truth(prompt)
            yield {"method": "full", "seconds": seconds, "rows": len(prompt.tokens)}
            known: dict[str, list[Encoded]] = {}
            for method in methods:
                if method.behind not in known:
                    known[method.behind] = self.encoded(prompt, method.behind)
                began = time.process_time()
                rows, first = self._read(prompt, method, known[method.behind], head)
                seconds = time.process_time() - began
                found = torch.cat((first[None], self._shown(answer))).log_softmax(-1)
                divergence = (truth.exp() * (truth - found)).sum(-1).clamp_min(0)
                agree = (found.argmax(-1) == truth.argmax(-1)).float()
                yield {
                    "method": method.name,
                    "kl": float(divergence.mean()),
                    "first_kl": float(divergence[0]),
                    "agree": float(agree.mean()),
                    "first_agree": float(agree[0]),
                    "rows": rows,
                    "seconds": seconds,
                }

    def answers(
        self, prompt: Prompt, methods: Sequence[Method], most: int
    ) -> Iterator[tuple[str, list[int]]]:
        """What full recompute and each method say by themselves, `most` tokens of it."""
        with torch.inference_mode():
            head, _, answer, _ = self._truth(prompt)
            yield "full", answer[:most]
            known: dict[str, list[Encoded]] = {}
            for method in methods:
                if method.behind not in known:
                    known[method.behind] = self.encoded(prompt, method.behind)
                _, logits = self._read(prompt, method, known[method.behind], head)
                said = [int(logits.argmax())]
                while len(said) < most:
                    said.append(int(self._next(self._slab, said[-1]).argmax()))
                yield method.name, said

    def encoded(self, prompt: Prompt, behind: str) -> list[Encoded]:
        """Each chunk behind nothing (`solo`), or one of the fronts."""
        if behind == "solo":
            return [encoded(self._network, chunk) for chunk in prompt.chunks]
        front = self._fronts[behind]
        return [encoded_behind(self._network, chunk, front) for chunk in prompt.chunks]

    def _truth(self, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor, list[int], float]:
        """The head's state, log-probabilities [PLACES, vocabulary], the answer, seconds of CPU."""
        began = time.process_time()
        slab = prefilled(self._network, prompt.tokens[:-1])
        slab.reserve(len(prompt.tokens) + PLACES)
        logits = [self._next(slab, prompt.tokens[-1])]
        seconds = time.process_time() - began
        answer = [int(logits[0].argmax())]
        while len(answer) < PLACES:
            logits.append(self._next(slab, answer[-1]))
            answer.append(int(logits[-1].argmax()))
        head = slab.copy(0, len(prompt.head))
        return head, torch.stack(logits).log_softmax(-1), answer, seconds

    def _next(self, slab: Slab, token: int) -> torch.Tensor:
        return self._ahead(slab, [token])[0]

    def _ahead(self, slab: Slab, tokens: Sequence[int]) -> torch.Tensor:
        """fp32 logits behind each of these tokens, which go on from the slab's end."""
        start = slab.length
        output = self._network(
            input_ids=torch.tensor([list(tokens)]),
            position_ids=torch.arange(start, start + len(tokens))[None],
            past_key_values=slab.cache,
            use_cache=True,
        )
        found: torch.Tensor = output.logits[0].float()
        return found

    def _shown(self, answer: Sequence[int]) -> torch.Tensor:
        return self._ahead(self._slab, answer[:-1])

    def _read(
        self, prompt: Prompt, method: Method, chunks: list[Encoded], head: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        layout, tokens = layout_of(prompt), prompt.tokens
        self._slab.reserve(layout.length + PLACES)
        if not method.turned:
            places = [each.start for each in layout.chunks]
            chunks = [Encoded(each.state, at) for each, at in zip(chunks, places, strict=True)]
        assembled(self._slab, self._rotation, layout, head, chunks)
        plan = method.choice.plan(layout, self._layers)
        found = recomputed(self._network, self._slab, tokens, layout, plan)
        return found.rows, found.logits
