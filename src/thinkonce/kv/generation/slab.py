"""Keys and values of one sequence under way, in one preallocated tensor.

    slab    [layers, 2, kv_heads, capacity, head_dim]      0: keys, 1: values
    block   [layers, 2, kv_heads, chunk,    head_dim]      what is kept of it, contiguous

The slab is on the model's device, blocks are in main memory.

A forward pass writes its tokens behind those that are there and attends to a view of all of
them; a block goes in, and out, with one strided copy. Nothing is ever concatenated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

__all__ = ("KvShape", "ScatterLayer", "Slab", "SlabLayer", "in_steps")

# Capacity comes in steps of so many tokens, so that every head's first value is aligned alike:
# matrix kernels may choose their path, hence their last bits, by alignment.
_STEP_TOKENS = 256
_MAIN_MEMORY = torch.device("cpu")


def in_steps(tokens: int) -> int:
    """The capacity that holds so many tokens."""
    return -(-tokens // _STEP_TOKENS) * _STEP_TOKENS


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one token's keys and values take: `layers` layers of `kv_heads` heads of `head_dim`."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_a_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize

    def empty(self, tokens: int, device: torch.device | None = None) -> torch.Tensor:
        """Room for so many tokens, not cleared; on the model's device where none is named."""
        size = (self.layers, 2, self.kv_heads, tokens, self.head_dim)
        return torch.empty(size, dtype=self.dtype, device=device or self.device)


class Slab:
    """Holds one sequence at a time; `cache` is what a transformers model takes for it.

    Not thread-safe. Call its methods in inference mode: what is made there cannot be written
    elsewhere.
    """

    def __init__(self, shape: KvShape) -> None:
        self.shape = shape
        self.tensor = shape.empty(0)
        self._layers = [SlabLayer(self, number) for number in range(shape.layers)]
        self.cache = Cache(layers=list(self._layers))

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self.tensor.shape[3]

    @property
    def bytes(self) -> int:
        return self.capacity * self.shape.bytes_a_token

    @property
    def length(self) -> int:
        """Tokens of the sequence so far."""
        return self._layers[0].length

    def begin(self) -> None:
        """Forget the sequence; what lies there is written over."""
        self._set_length(0)

    def reserve(self, tokens: int) -> None:
        """Make room for a sequence of so many tokens; it keeps what it has."""
        if tokens <= self.capacity:
            return
        grown = self.shape.empty(in_steps(max(tokens, 2 * self.capacity)))
        kept = self.length
        grown[:, :, :, :kept] = self.tensor[:, :, :, :kept]
        self.tensor = grown

    def load(self, block: torch.Tensor) -> None:
        """Append a block's keys and values. There is room for them."""
        start = self.length
        end = start + block.shape[3]
        self.tensor[:, :, :, start:end] = block
        self._set_length(end)

    def put(self, block: torch.Tensor, start: int) -> None:
        """Write a block's keys and values at a place where there is room; the sequence is as long
        as it was.
        """
        self.tensor[:, :, :, start : start + block.shape[3]] = block

    def resume(self, tokens: int) -> None:
        """The sequence has so many tokens now, which lie there."""
        self._set_length(tokens)

    def blank(self, tokens: int) -> None:
        """Append so many tokens that are computed later. There is room for them.

        All zero: what lies there may be no number, and stays none where a mask hides it.
        """
        start, end = self.length, self.length + tokens
        self.tensor[:, :, :, start:end] = 0
        self._set_length(end)

    def copy(self, start: int, end: int) -> torch.Tensor:
        """The block of the tokens [start, end), contiguous, on its own, in main memory."""
        block = self.shape.empty(end - start, _MAIN_MEMORY)
        block.copy_(self.tensor[:, :, :, start:end])
        return block

    def scattered(self, slots: torch.Tensor) -> Cache:
        """A cache through which a forward pass writes its tokens over those at `slots`.

        `slots`: their places in the sequence, int64, on the slab's device. Give the model
        `position_ids` of the same places and a mask [1, 1, slots, length], true where a token
        may look: transformers would make both from the sequence's end. That is for models whose
        layers all look alike far; those with sliding windows take a mask for each kind of layer.
        """
        return Cache(layers=[ScatterLayer(layer, slots) for layer in self._layers])

    def _set_length(self, tokens: int) -> None:
        for layer in self._layers:
            layer.length = tokens


class SlabLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """What one layer of a model sees of a slab: it appends, as causal attention wants it.

    `length` is where the next write begins.
    """

    def __init__(self, slab: Slab, number: int) -> None:
        super().__init__()
        self._slab, self._number = slab, number
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the slab is there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write behind what is there; views of all of it. The slab has room (`reserve`)."""
        keys, values = self.rooms(key_states)
        start, end = self.length, self.length + key_states.shape[2]
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def rooms(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """This layer's keys and values, over the whole capacity, as [1, heads, capacity, dim].

        Raises TypeError for `like` of another number type, or of more than one sequence.
        """
        layer = self._slab.tensor[self._number]
        if like.dtype != layer.dtype or like.shape[0] != 1:
            found = f"{like.dtype} of shape {tuple(like.shape)}"
            raise TypeError(f"this slab holds one sequence of {layer.dtype}, not {found}")
        return layer[0:1], layer[1:2]


class ScatterLayer(CacheLayerMixin):  # type: ignore[misc]  # the same
    """Writes over chosen tokens of a sequence that is there, and leaves its length alone."""

    def __init__(self, layer: SlabLayer, slots: torch.Tensor) -> None:
        super().__init__()
        self._layer, self._slots = layer, slots
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the slab is there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write at the slots; views of the whole sequence."""
        keys, values = self._layer.rooms(key_states)
        keys[:, :, self._slots] = key_states
        values[:, :, self._slots] = value_states
        return keys[:, :, : self._layer.length], values[:, :, : self._layer.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._layer.length, 0

    def get_seq_length(self) -> int:
        return self._layer.length

    def get_max_length(self) -> int:
        return -1
