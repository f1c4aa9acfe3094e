"""Stored keys at other positions: rotary embeddings turned on, once, from what was stored.

A key at position p is R(p) k, and R(a) R(b) = R(a + b) (RoFormer, arXiv 2104.09864). So the key
of a token that was encoded at `was` and now stands at `now` is turned by the difference of the two
angles; values carry no position. Scalings that change the frequencies alone (linear, llama3, yarn)
turn alike, with the frequencies the model itself uses; those that change them with the length of
what was read ("dynamic", "longrope") cannot be turned afterwards, and are refused.
"""

from __future__ import annotations

from typing import Any

import torch

from thinkonce.errors import ThinkOnceError

__all__ = ("NotRelocatable", "Rotation")

_RELOCATABLE = ("default", "linear", "llama3", "yarn")


class NotRelocatable(ThinkOnceError):
    """A model whose keys cannot be moved to another position; says why."""


class Rotation:
    """How one model's keys turn with their position. Immutable; may be shared by threads."""

    def __init__(self, network: Any) -> None:
        """Raises NotRelocatable for a model of another kind of rotary embedding."""
        config, embedding = network.config, network.model.rotary_emb
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * _layers(config)
        tables = {kind: _table(embedding, kind) for kind in dict.fromkeys(kinds)}
        # Layers of one kind share their table: by kind, which layers, and their frequencies.
        self._parts = [
            (torch.tensor([n for n, its in enumerate(kinds) if its == kind]), frequencies)
            for kind, frequencies in tables.items()
        ]

    def turned(self, block: torch.Tensor, was: int, now: int) -> torch.Tensor:
        """The keys and values of tokens that stood at `was`, `was` + 1, ... as at `now`, ...

        `block`: [layers, 2, kv_heads, tokens, head_dim], left as it is; the result is on its
        device and of its type. Computed in fp32 and cast once. Always turn what was stored, never
        what was turned before: rounding would add up.
        """
        if was == now:
            return block.clone()
        found = block.clone()
        for layers, frequencies in self._parts:
            keys = block[layers.to(block.device), 0].float()
            found[layers.to(block.device), 0] = _turned(keys, frequencies, was, now).to(block.dtype)
        return found


def _turned(keys: torch.Tensor, frequencies: torch.Tensor, was: int, now: int) -> torch.Tensor:
    """`keys` [..., tokens, head_dim] in fp32, halves of a head paired as Llama pairs them."""
    half = keys.shape[-1] // 2
    if frequencies.numel() != half:
        raise NotRelocatable(
            f"the rotary embedding has {frequencies.numel()} frequencies for heads of "
            f"{keys.shape[-1]}; only those that turn whole heads can be moved"
        )
    angles = _angles(frequencies.to(keys.device), keys.shape[-2], was, now)
    cosine, sine = angles.cos().float(), angles.sin().float()
    first, second = keys[..., :half], keys[..., half:]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _angles(frequencies: torch.Tensor, tokens: int, was: int, now: int) -> torch.Tensor:
    """[tokens, half] in fp64: by how much more the model would turn each token at its new place.

    The model rounds position times frequency to fp32, which is coarse far from 0: the difference
    of the two rounded angles meets its own keys, where a rounded difference would not.
    """
    steps = torch.arange(tokens, device=frequencies.device, dtype=torch.float32)[:, None]
    new, old = (now + steps) * frequencies, (was + steps) * frequencies
    return new.double() - old.double()


def _table(embedding: Any, kind: str) -> torch.Tensor:
    """The frequencies of one kind of layer, as the model holds them: [head_dim / 2] in fp32."""
    own = hasattr(embedding, f"{kind}_inv_freq")
    rope_type = embedding.rope_type
    if isinstance(rope_type, dict):
        rope_type = rope_type.get(kind)
    if rope_type not in _RELOCATABLE:
        raise NotRelocatable(
            f"rotary embedding {rope_type!r} turns keys by the length of the prompt; "
            f"those that can be moved are {', '.join(_RELOCATABLE)}"
        )
    frequencies: torch.Tensor = getattr(embedding, f"{kind}_inv_freq" if own else "inv_freq")
    return frequencies.detach().float().clone()


def _layers(config: Any) -> int:
    count: int = config.num_hidden_layers
    return count
