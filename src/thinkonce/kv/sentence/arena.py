"""What attention reads of a long sequence: a small copy of chosen tokens, a ring of the latest.

    slab     |=========== all tokens ===========|         written to, and gathered from
    arena    | first 32 | chosen sentences | ring of 32 |   read by every step

Keys carry their position, so their order in the arena is free. Layers with sliding windows read
the slab as they always do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from thinkonce.kv.generation.slab import Slab, SlabLayer
from thinkonce.kv.sentence.importance import WINDOW
from thinkonce.kv.sentence.sentences import Keys

__all__ = ("FIRST", "Arena", "ArenaLayer")

FIRST = 32
"""Tokens at the beginning that are always attended to: attention rests there."""


class Arena:
    """`cache` is what a transformers model takes for it. `layers`: those that read the arena.

    `memory` is another slab, whose memory it takes as its own: it has room for `tokens` tokens.
    Not thread-safe. Call its methods in inference mode.
    """

    def __init__(self, slab: Slab, memory: Slab, layers: Sequence[int], tokens: int) -> None:
        self.slab, self.tokens, self._memory = slab, tokens, memory.tensor.view(-1)
        self.layers = torch.tensor(layers, device=slab.shape.device)
        numbers = {layer: number for number, layer in enumerate(layers)}
        own = list(slab.cache.layers)
        self.cache = Cache(
            layers=[
                ArenaLayer(self, each, numbers[number]) if number in numbers else each
                for number, each in enumerate(own)
            ]
        )
        self.state = self._view(0)

    @property
    def width(self) -> int:
        """Tokens that a step attends to, in each layer and head."""
        return self.state.shape[3]

    @property
    def bytes(self) -> int:
        """Of keys and values that a step reads here."""
        return self.state.nbytes

    def keys(self, start: int, end: int) -> Keys:
        """Of the tokens [start, end) in the layers that read the arena, where they lie."""
        return [self.slab.tensor[layer, 0, :, start:end] for layer in self.layers.tolist()]

    def gather(self, chosen: torch.Tensor) -> None:
        """Copy the first tokens, those at `chosen`, and the latest 31, behind which the next goes.

        `chosen`: [layers, kv_heads, n] places of tokens between the two.
        """
        slab, length = self.slab, self.slab.length
        latest = torch.arange(length + 1 - WINDOW, length + 1, device=chosen.device)
        ring = latest[(latest % WINDOW).argsort()]
        ring = ring.clamp_max(length - 1)  # the next token's room: it is written before it is read
        rows = chosen.shape[:2]
        first = torch.arange(FIRST, device=chosen.device)
        places = torch.cat((first.expand(*rows, -1), chosen, ring.expand(*rows, -1)), -1)
        self.state = self._view(places.shape[-1])
        heads, capacity = slab.shape.kv_heads, slab.capacity
        parts = torch.arange(2, device=chosen.device)[:, None]
        row = (2 * self.layers[:, None, None] + parts) * heads
        row = (row + torch.arange(heads, device=chosen.device)) * capacity
        flat = (row[..., None] + places[:, None]).view(-1)
        out = self.state.view(-1, slab.shape.head_dim)
        torch.index_select(slab.tensor.view(-1, slab.shape.head_dim), 0, flat, out=out)

    def _view(self, width: int) -> torch.Tensor:
        """[layers, 2, kv_heads, width, head_dim], contiguous, at the beginning of the memory."""
        shape = self.slab.shape
        size = (len(self.layers), 2, shape.kv_heads, width, shape.head_dim)
        return self._memory[: torch.Size(size).numel()].view(size)


class ArenaLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer's: a token goes behind what the slab has, and over the oldest in the ring."""

    def __init__(self, arena: Arena, layer: SlabLayer, number: int) -> None:
        super().__init__()
        self._arena, self._layer, self._number = arena, layer, number
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: both are there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one token; all that the arena holds of this layer. The slab has room."""
        state = self._arena.state[self._number]
        slot = state.shape[2] - WINDOW + self._layer.length % WINDOW
        self._layer.update(key_states, value_states)
        state[0, :, slot] = key_states[0, :, 0]
        state[1, :, slot] = value_states[0, :, 0]
        return state[0:1], state[1:2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As if what is there lay right before the next token: it may see all of it."""
        return self._arena.width, self._layer.length + query_length - self._arena.width

    def get_seq_length(self) -> int:
        return self._layer.length

    def get_max_length(self) -> int:
        return -1
