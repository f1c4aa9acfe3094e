"""How far a method's answer is from full recompute, on the same ids.

Truth is one pass over the whole prompt and the 16 tokens it then prefers. A method is shown those
tokens one after the other: at each place, KL(truth || method) of the next token, and whether both
prefer the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from reuse.looks import looked_at
from reuse.prompts import Prompt

from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.reuse.encoding import Encoded, assembled, encoded, prefilled
from thinkonce.kv.reuse.layout import Choice, Layout, Plan
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.selective import recomputed

__all__ = ("PLACES", "Bench", "Looked", "Method", "layout_of")

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


@dataclass(frozen=True)
class Looked:
    """The share `ratio` of chunks' tokens that the question looks at most, from layer `start`.

    `link` tokens at each chunk's beginning are among them.
    """

    ratio: float = 0.15
    start: int = 0
    link: int = 0

    @property
    def name(self) -> str:
        linked = f" + link {self.link}" if self.link else ""
        return f"looked {self.ratio:g} from {self.start}{linked}"

    def plan(self, layout: Layout, layers: int) -> Plan:
        raise NotImplementedError("chosen from attention: `chosen`")

    def chosen(self, layout: Layout, looks: torch.Tensor) -> Plan:
        moved = layout.moved
        pinned = {place for chunk in layout.chunks for place in chunk[: self.link]}
        paid = looks[self.start :].mean(0)
        free = sorted((each for each in moved if each not in pinned), key=lambda at: -paid[at])
        best = free[: max(0, round(self.ratio * len(moved)) - len(pinned))]
        return Plan(sorted([*best, *pinned]))


def layout_of(prompt: Prompt) -> Layout:
    at, chunks = len(prompt.head), []
    for chunk in prompt.chunks:
        chunks.append(range(at, at + len(chunk)))
        at += len(chunk)
    return Layout(at + len(prompt.asked), tuple(chunks), exact=len(prompt.head))


class Bench:
    """One model. `dummies`: ids that may stand in front of a chunk, by name."""

    def __init__(self, network: Any, dummies: Mapping[str, Sequence[int]]) -> None:
        self._network, self._dummies = network, dummies
        self._rotation = Rotation(network)
        self._slab = Slab(shape_of(network))
        self._last: dict[str, Prompt] = {}
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
            self._last[prompt.kind] = prompt

    def encoded(self, prompt: Prompt, behind: str) -> list[Encoded]:
        """Chunks behind nothing (`solo`), dummies, the `head`, or the head and `another` chunk.

        The other chunk is of the same kind of prompt and not of this one.
        """
        if behind == "head":
            front = list(prompt.head)
        elif behind == "another":
            other = self._last.get(prompt.kind, prompt)
            front = [*prompt.head, *other.chunks[0]]
        else:
            front = [] if behind == "solo" else list(self._dummies[behind])
        return [encoded(self._network, chunk, front) for chunk in prompt.chunks]

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
        if isinstance(method.choice, Looked):
            looks = looked_at(self._network, self._slab, tokens, layout)
            plan = method.choice.chosen(layout, looks)
            extra = len(layout.unknown)
        else:
            plan, extra = method.choice.plan(layout, self._layers), 0
        found = recomputed(self._network, self._slab, tokens, layout, plan)
        return found.rows + extra, found.logits


Say = Callable[[str], None]
