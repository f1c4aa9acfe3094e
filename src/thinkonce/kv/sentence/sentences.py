"""The sentences of one sequence as its layers and heads know them: kept tokens, one vector each.

    kept      [layers, kv_heads, tokens]             places, ascending, the same number in every row
    vectors   [layers, kv_heads, sentences, dim]     the mean of a sentence's kept keys, fp32

Rows are cut to what is wanted by numbers alone; keys and values stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

__all__ = ("Score", "Sentences", "by_attention", "by_dot")

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


def by_dot(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """As published: the dot product of a sentence's vector with a query, here the mean one of the
    heads that share it.
    """
    layers, kv_heads, _, dim = vectors.shape
    shared = queries.view(layers, kv_heads, -1, dim).mean(2)
    found: torch.Tensor = (vectors @ shared[..., None])[..., 0]
    return found


class Sentences:
    """Not thread-safe. Call it in inference mode."""

    def __init__(self, kept: torch.Tensor, spans: Sequence[range], keys: torch.Tensor) -> None:
        """`kept` int64, all in one of `spans`, which follow each other up to the prompt's end;
        `keys`: [layers, kv_heads, tokens, dim], of the whole prompt.
        """
        lengths = torch.tensor([len(span) for span in spans], device=keys.device)
        numbers = torch.arange(len(spans), device=keys.device).repeat_interleave(lengths)
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
        each = (self._places, self._of, self.vectors)
        return sum(part.untyped_storage().nbytes() for part in each)

    def add(self, span: range, keys: torch.Tensor) -> None:
        """A sentence that follows those known; `keys`: [layers, kv_heads, its tokens, dim]."""
        rows = (*self._places.shape[:2], len(span))
        places = torch.arange(span.start, span.stop, device=keys.device).expand(rows)
        numbers = torch.full((1, 1, 1), len(self), device=keys.device).expand(rows)
        self._places = torch.cat((self._places, places), -1)
        self._of = torch.cat((self._of, numbers), -1)
        self.vectors = torch.cat((self.vectors, keys.float().mean(2, keepdim=True)), 2)

    def best(self, scores: torch.Tensor, end: int, most: int) -> torch.Tensor:
        """[layers, kv_heads, most or all there are] places before `end`, ascending in a row.

        Sentences by score until `most` tokens are there; of the last one its first tokens. `end`:
        all rows have equally many kept tokens before it.
        """
        count = int((self._places[0, 0] < end).sum())
        places, of = self._places[..., :count], self._of[..., :count]
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
        return places[taken].view(*places.shape[:2], most)


def _means(places: torch.Tensor, of: torch.Tensor, count: int, keys: torch.Tensor) -> torch.Tensor:
    """Of each sentence's kept keys, a layer at a time; zero where none is kept."""
    kv_heads, dim = keys.shape[1], keys.shape[3]
    rows = []
    for layer, state in enumerate(keys):
        chosen = state.gather(1, places[layer, ..., None].expand(-1, -1, dim)).float()
        sums = torch.zeros(kv_heads, count, dim, device=keys.device)
        sums.scatter_add_(1, of[layer, ..., None].expand(-1, -1, dim), chosen)
        sizes = torch.zeros(kv_heads, count, device=keys.device)
        sizes.scatter_add_(1, of[layer], torch.ones_like(of[layer], dtype=torch.float32))
        rows.append(sums / sizes.clamp_min(1)[..., None])
    return torch.stack(rows)
