"""The sentences of one sequence as its layers and heads know them: kept tokens, one vector each.

    kept      [layers, kv_heads, tokens]            places, ascending, equally many in every row
              [1, 1, tokens]                        where they are the same in all
    vectors   [layers, kv_heads, sentences, dim]    the mean of a sentence's kept keys, fp32

Rows are cut to what is wanted by numbers alone; keys and values stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

__all__ = ("Keys", "Score", "Sentences", "by_attention")

Keys = Sequence[torch.Tensor]
"""Of tokens that follow each other, a layer each: [kv_heads, tokens, dim]."""
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From queries [layers, heads, dim], scaled as for attention, and vectors: a number for each of
[layers, kv_heads, sentences], more is better.
"""


def by_attention(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The attention that each head's query would pay, were sentences tokens with these vectors as
    keys, summed over the heads that share them.
    """
    layers, kv_heads, _, dim = vectors.shape
    shared = queries.view(layers, kv_heads, -1, dim)
    return (shared @ vectors.transpose(2, 3)).softmax(-1).sum(2)


class Sentences:
    """Not thread-safe. Call it in inference mode."""

    def __init__(self, kept: torch.Tensor, spans: Sequence[range], keys: Keys) -> None:
        """`kept` int64, all in one of `spans`, which follow each other up to the prompt's end;
        `keys`: of the whole prompt.
        """
        lengths = torch.tensor([len(span) for span in spans], device=kept.device)
        numbers = torch.arange(len(spans), device=kept.device).repeat_interleave(lengths)
        self._places, self._of = kept, numbers[kept - spans[0].start]
        self.vectors = _means(kept, self._of, len(spans), keys)

    @property
    def kept(self) -> int:
        """Tokens of one layer and head that may be attended to."""
        return self._places.shape[-1]

    def __len__(self) -> int:
        return self.vectors.shape[2]

    @property
    def bytes(self) -> int:
        """What is held besides keys and values."""
        return self._places.nbytes + self._of.nbytes + self.vectors.nbytes

    def add(self, span: range, keys: Keys) -> None:
        """A sentence that follows those known; `keys`: of its tokens."""
        rows, device = (*self._places.shape[:2], len(span)), self._places.device
        places = torch.arange(span.start, span.stop, device=device).expand(rows)
        numbers = torch.full((1, 1, 1), len(self), device=device).expand(rows)
        mean = torch.stack([state.float().mean(1, keepdim=True) for state in keys])
        self._places = torch.cat((self._places, places), -1)
        self._of = torch.cat((self._of, numbers), -1)
        self.vectors = torch.cat((self.vectors, mean), 2)

    def best(self, scores: torch.Tensor, end: int, most: int) -> torch.Tensor:
        """[layers, kv_heads, most or all there are] places before `end`, ascending in a row.

        Sentences by score until `most` tokens are there; of the last one its first tokens. `end`:
        all rows have equally many kept tokens before it.
        """
        count = int((self._places[0, 0] < end).sum())
        rows = (*scores.shape[:2], count)
        places, of = (each[..., :count].expand(rows) for each in (self._places, self._of))
        if count <= most:
            return places
        tokens = torch.zeros(scores.shape, dtype=torch.int64, device=scores.device)
        tokens.scatter_add_(2, of, torch.ones_like(of))
        order = scores.argsort(-1, descending=True)
        sizes = tokens.gather(2, order)
        before_it = torch.empty_like(tokens).scatter_(2, order, sizes.cumsum(-1) - sizes)
        first = tokens.cumsum(-1) - tokens  # where in the row a sentence's tokens begin
        nth = torch.arange(count, device=scores.device) - first.gather(2, of)
        taken = before_it.gather(2, of) + nth < most
        return places[taken].view(*rows[:2], most)


def _means(places: torch.Tensor, of: torch.Tensor, count: int, keys: Keys) -> torch.Tensor:
    """Of each sentence's kept keys, a layer at a time; zero where none is kept."""
    kv_heads, _, dim = keys[0].shape
    places, of = (each.expand(len(keys), kv_heads, -1) for each in (places, of))
    rows = []
    for layer, state in enumerate(keys):
        chosen = state.gather(1, places[layer, ..., None].expand(-1, -1, dim)).float()
        sums = torch.zeros(kv_heads, count, dim, device=state.device)
        sums.scatter_add_(1, of[layer, ..., None].expand(-1, -1, dim), chosen)
        sizes = torch.zeros(kv_heads, count, device=state.device)
        sizes.scatter_add_(1, of[layer], torch.ones_like(of[layer], dtype=torch.float32))
        rows.append(sums / sizes.clamp_min(1)[..., None])
    return torch.stack(rows)
