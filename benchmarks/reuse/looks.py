"""Tokens chosen by where the question looks: attention from what is asked to chunks' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.reuse.layout import Layout
from thinkonce.kv.reuse.selective import computed

__all__ = ("looked_at",)


def looked_at(network: Any, slab: Slab, tokens: Sequence[int], layout: Layout) -> torch.Tensor:
    """[layers, length]: the attention that the unknown tokens pay to each, a mean over heads.

    `slab` holds the layout's state; the unknown tokens are computed over it. Llama's attention.
    """
    rows, layers = layout.unknown, network.model.layers
    seen: dict[int, torch.Tensor] = {}

    def hook(number: int) -> Any:
        def watch(module: Any, args: Any, kwargs: Any) -> None:
            seen[number] = _queries(module, kwargs)

        return layers[number].self_attn.register_forward_pre_hook(watch, with_kwargs=True)

    handles = [hook(number) for number in range(len(layers))]
    try:
        computed(network, slab, tokens, rows)
    finally:
        for handle in handles:
            handle.remove()
    places = torch.tensor(rows)
    hidden = torch.arange(layout.length) > places[:, None]
    return torch.stack([_paid(seen[each], slab, each, hidden) for each in range(len(layers))])


def _queries(module: Any, kwargs: Any) -> torch.Tensor:
    """[heads, rows, dim], turned to their places."""
    states = kwargs["hidden_states"]
    queries = module.q_proj(states).view(*states.shape[:-1], -1, module.head_dim).transpose(1, 2)
    cosine, sine = (each[:, None] for each in kwargs["position_embeddings"])
    half = module.head_dim // 2
    turned = torch.cat((-queries[..., half:], queries[..., :half]), dim=-1)
    return (queries * cosine + turned * sine)[0] * module.scaling


def _paid(queries: torch.Tensor, slab: Slab, layer: int, hidden: torch.Tensor) -> torch.Tensor:
    keys = slab.tensor[layer, 0, :, : slab.length]
    keys = keys.repeat_interleave(queries.shape[0] // keys.shape[0], dim=0)
    scores = (queries @ keys.transpose(1, 2)).masked_fill(hidden, float("-inf"))
    return scores.softmax(-1).mean((0, 1))
