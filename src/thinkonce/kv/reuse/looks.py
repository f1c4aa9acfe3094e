"""Where the question looks: attention from what is always computed to the tokens of chunks.

What a chunk's token has wrong matters as far as somebody reads it. The question is computed once
over the chunks as they are; the tokens it looks at most, over the deeper layers, are those worth
computing again. SnapKV (arXiv 2404.14469) chooses what to keep by the same observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from thinkonce.kv.generation.masks import kind_of, masks
from thinkonce.kv.generation.slab import Slab

__all__ = ("Looks", "watched")

# Of a long question its end says what is wanted, and scores of all rows would take much memory.
_LAST_ROWS = 64


class Looks:
    """Attention paid to each token of a slab, summed over layers from `start` on: [length]."""

    def __init__(self, slab: Slab, rows: Sequence[int], start: int) -> None:
        self.paid = torch.zeros(slab.length, device=slab.tensor.device)
        self.start, self._slab = start, slab
        self._rows = torch.tensor(rows[-_LAST_ROWS:], device=slab.tensor.device)

    def most(self, places: Sequence[int], count: int) -> list[int]:
        """Of `places`, as many that are looked at most, sorted."""
        paid = self.paid.tolist()
        return sorted(sorted(places, key=lambda place: -paid[place])[:count])

    def add(self, network: Any, layer: int, module: Any, kwargs: dict[str, Any]) -> None:
        """One layer's attention has run over the rows; the slab holds their keys."""
        keys = self._slab.tensor[layer, 0, :, : self._slab.length].float()
        queries = _queries(module, kwargs, len(self._rows))
        grouped = queries.view(len(keys), -1, *queries.shape[1:])
        scores = grouped @ keys.transpose(1, 2)[:, None]
        if cap := getattr(module, "attn_logit_softcapping", None):
            scores = torch.tanh(scores / cap) * cap
        seen = self._seen(network, layer)
        self.paid += scores.masked_fill(~seen, float("-inf")).softmax(-1).mean((0, 1, 2))

    def _seen(self, network: Any, layer: int) -> torch.Tensor:
        found = masks(network, self._rows, self._slab.length)[kind_of(network.config, layer)]
        return found[0, 0] if found.dtype == torch.bool else found[0, 0] == 0


@contextmanager
def watched(network: Any, looks: Looks) -> Iterator[None]:
    """Adds to `looks` what the model's forward passes over its rows attend to."""
    handles = []
    for number, layer in enumerate(network.model.layers):
        if number < looks.start:
            continue

        def watch(module: Any, _: Any, kwargs: Any, output: Any, number: int = number) -> None:
            looks.add(network, number, module, kwargs)

        handles.append(layer.self_attn.register_forward_hook(watch, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _queries(module: Any, kwargs: dict[str, Any], rows: int) -> torch.Tensor:
    """[heads, rows, dim] in fp32 of the last rows, turned to their places and scaled."""
    states = kwargs["hidden_states"][:, -rows:]
    queries = module.q_proj(states).unflatten(-1, (-1, module.head_dim))
    if hasattr(module, "q_norm"):
        queries = module.q_norm(queries)
    queries = queries[0].transpose(0, 1).float()
    cosine, sine = (each[0, -rows:].float() for each in kwargs["position_embeddings"])
    half = module.head_dim // 2
    turned = torch.cat((-queries[..., half:], queries[..., :half]), dim=-1)
    found: torch.Tensor = (queries * cosine + turned * sine) * module.scaling
    return found
