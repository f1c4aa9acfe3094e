"""What the end of a prompt asks for: its queries, and which tokens they look at.

The last 32 tokens are run once more over the prompt's own state, which stays as it is. What they
look at is summed and smoothed (SentenceKV, arXiv 2504.00970, section 3; the smoothing is SnapKV's,
arXiv 2404.14469).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import max_pool1d
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from thinkonce.kv.generation.masks import for_model, masks
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.sentence.queries import attention_of, listening

__all__ = ("WINDOW", "asked", "importance")

WINDOW = 32
"""Tokens: so many at a prompt's end ask, and so many of the latest are always attended to."""
_POOLED = 7


def asked(
    network: Any, slab: Slab, tokens: Sequence[int], layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """By layer, the queries of the prompt's last 32 tokens: [heads, 32, head_dim]."""
    found: dict[int, torch.Tensor] = {}
    places = torch.arange(len(tokens) - WINDOW, len(tokens), device=network.device)
    with torch.inference_mode(), listening(network, layers, found.__setitem__):
        network(
            input_ids=torch.tensor([list(tokens[-WINDOW:])], device=network.device),
            position_ids=places[None],
            attention_mask=for_model(network.config, masks(network, places, slab.length)),
            past_key_values=Cache(
                layers=[_ReadLayer(slab, number) for number in range(slab.shape.layers)]
            ),
            use_cache=True,
            logits_to_keep=1,
        )
    return found


def importance(network: Any, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[kv_heads, tokens - 32] in fp32: the attention that the queries pay to each earlier token.

    `queries`: [heads, 32, head_dim] of the last tokens; `keys`: [kv_heads, tokens, head_dim].
    """
    module, length = attention_of(network, layer), keys.shape[1]
    cap = getattr(module, "attn_logit_softcapping", None)
    places = torch.arange(length, device=keys.device)
    hidden = places > places[-WINDOW:, None]
    rows = []
    # A head at a time: all at once would take more memory than a long prompt's state.
    for group, each in zip(queries.chunk(keys.shape[0]), keys, strict=True):
        scores = group.float() @ each.float().T * module.scaling
        if cap:
            scores = torch.tanh(scores / cap) * cap
        rows.append(scores.masked_fill(hidden, float("-inf")).softmax(-1).sum((0, 1)))
    paid = torch.stack(rows)[:, : length - WINDOW]
    return max_pool1d(paid[None], _POOLED, stride=1, padding=_POOLED // 2)[0]


class _ReadLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """Gives what a slab's layer holds, and writes nothing: its tokens are there."""

    def __init__(self, slab: Slab, number: int) -> None:
        super().__init__()
        self._state, self._length = slab.tensor[number], slab.length
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the slab is there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._state[0:1, :, : self._length], self._state[1:2, :, : self._length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length, 0

    def get_seq_length(self) -> int:
        return self._length

    def get_max_length(self) -> int:
        return -1
