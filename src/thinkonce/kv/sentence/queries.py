"""Queries of attention as a model makes them, taken while it runs, and only then.

    hidden state ──► q_proj ──► (norm) ──► turned to its place ──► attention
                        └── a hook copies what comes out, and does the same with it

No family's code is replaced: a hook on the module that holds the layer's attention knows the
rotary embedding of its places, a hook on its projection what it projected. Both go with the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ("Heard", "attention_of", "listening")

Heard = Callable[[int, torch.Tensor], None]
"""Told the layer's number and its queries, [heads, tokens, head_dim], turned, not scaled."""


def attention_of(network: Any, layer: int) -> Any:
    """The module that computes one layer's attention."""
    return network.model.layers[layer].self_attn


@contextmanager
def listening(network: Any, layers: Sequence[int], heard: Heard) -> Iterator[None]:
    """Tell `heard` of every pass through these layers while this is entered."""
    handles = []
    try:
        for layer in layers:
            module = attention_of(network, layer)
            ear = _Ear(module, layer, heard)
            handles.append(module.register_forward_pre_hook(ear.places, with_kwargs=True))
            handles.append(module.q_proj.register_forward_hook(ear.projected))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Ear:
    """One layer's, for one pass or several."""

    def __init__(self, module: Any, layer: int, heard: Heard) -> None:
        self._module, self._layer, self._heard = module, layer, heard

    def places(self, module: Any, given: Any, named: Any) -> None:
        self._turn = named["position_embeddings"]

    def projected(self, projection: Any, given: Any, queries: torch.Tensor) -> None:
        heads = queries[0].view(queries.shape[1], -1, self._module.head_dim)
        if (norm := getattr(self._module, "q_norm", None)) is not None:
            heads = norm(heads)
        cosine, sine = (each[0] for each in self._turn)
        self._heard(self._layer, _turned(heads.transpose(0, 1), cosine, sine))


def _turned(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """As Llama pairs the halves of a head (RoFormer, arXiv 2104.09864)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine
