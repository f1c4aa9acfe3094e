"""Keys and values in eight bits each: a half of what bf16 takes, a quarter of fp32. Not exact.

    kept   keys    int8  [layers, kv_heads, tokens, head_dim]     one after the other,
           values  int8  [layers, kv_heads, tokens, head_dim]     as bytes
           scales of keys    fp32  [layers, kv_heads, 1, head_dim]
           scales of values  fp32  [layers, kv_heads, tokens, 1]

Some channels of keys are large in every token, so keys have a scale a channel; values have no
such channels, and a scale a token (KIVI: Liu et al., ICML 2024, arXiv 2402.02750, section 3).
A scale is the largest magnitude over 127, so a number is off by half a scale at most.
"""

from __future__ import annotations

import torch

from thinkonce.kv.generation.slab import KvShape

__all__ = ("Int8",)

_LARGEST = 127.0
_SCALE_BYTES = 4


class Int8:
    """See `Codec`. What is kept is one row of bytes."""

    name = "int8"
    is_exact = False

    def __init__(self, shape: KvShape) -> None:
        self._shape = shape
        heads = shape.layers * shape.kv_heads
        self._a_token = 2 * heads * shape.head_dim + heads * _SCALE_BYTES
        self._a_block = heads * shape.head_dim * _SCALE_BYTES

    def encode(self, state: torch.Tensor) -> torch.Tensor:
        wide = state.float()
        keys, values = wide[:, 0], wide[:, 1]
        key_scales, value_scales = _scales(keys, dim=2), _scales(values, dim=3)
        parts = (_in_steps(keys, key_scales), _in_steps(values, value_scales))
        return torch.cat([_flat(part) for part in (*parts, key_scales, value_scales)])

    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        shape, tokens = self._shape, self._tokens(kept.numel())
        assert tokens is not None, "what is kept was encoded here, or passed `kept_of`"
        whole = (shape.layers, shape.kv_heads, tokens, shape.head_dim)
        numbers = shape.layers * shape.kv_heads * tokens * shape.head_dim
        keys, values, scales = kept[:numbers], kept[numbers : 2 * numbers], kept[2 * numbers :]
        key_scales, value_scales = scales[: self._a_block], scales[self._a_block :]
        state = torch.empty((shape.layers, 2, *whole[1:]), dtype=shape.dtype)
        for place, part, scale, dim in ((0, keys, key_scales, 2), (1, values, value_scales, 3)):
            size = [*whole[:dim], 1, *whole[dim + 1 :]]
            steps = part.view(torch.int8).view(whole)
            state[:, place] = steps * _numbers(scale).view(size)
        return state

    def kept_of(self, data: memoryview, tokens: int) -> torch.Tensor | None:
        if self._tokens(len(data)) != tokens:
            return None
        return torch.frombuffer(data, dtype=torch.uint8)

    def size(self, tokens: int) -> int:
        return self._a_block + self._a_token * tokens

    def _tokens(self, size: int) -> int | None:
        """How many tokens a block of `size` bytes has; None where no block has so many bytes."""
        tokens, rest = divmod(size - self._a_block, self._a_token)
        return tokens if tokens > 0 and not rest else None


def _scales(numbers: torch.Tensor, dim: int) -> torch.Tensor:
    return numbers.abs().amax(dim, keepdim=True) / _LARGEST


def _in_steps(numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    # Where all are 0 so is the scale: any divisor will do.
    steps = numbers / torch.where(scales == 0, 1.0, scales)
    return steps.round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8)


def _flat(part: torch.Tensor) -> torch.Tensor:
    return part.contiguous().view(-1).view(torch.uint8)


def _numbers(scales: torch.Tensor) -> torch.Tensor:
    # A row of bytes need not begin where a float may.
    return scales.clone().view(torch.float32)
