"""A chunk's state, encoded on its own or behind something else, and put where it is wanted.

    solo      | chunk |                    its first token takes the attention that needs a sink
    dummies   | x x x x | chunk |          the dummies take it, and are dropped
    behind    | system  | chunk |          so does what always stands in front, which stays known

What a chunk was encoded behind is part of what it is: the same text behind something else has
other keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.reuse.layout import Layout
from thinkonce.kv.reuse.rotation import Rotation

__all__ = ("Encoded", "assembled", "encoded", "encoded_behind", "prefilled")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk's keys and values as they were computed, its first token at position `was`.

    `state`: [layers, 2, kv_heads, tokens, head_dim], in main memory.
    """

    state: torch.Tensor
    was: int

    @property
    def tokens(self) -> int:
        return self.state.shape[3]


def encoded(network: Any, chunk: Sequence[int], behind: Sequence[int] = ()) -> Encoded:
    """The state of a chunk's tokens, computed behind others; one forward pass over all of them."""
    slab = prefilled(network, [*behind, *chunk])
    return Encoded(slab.copy(len(behind), len(behind) + len(chunk)), len(behind))


def encoded_behind(network: Any, chunk: Sequence[int], front: torch.Tensor) -> Encoded:
    """The same behind tokens whose state, `front`, is known: [layers, 2, kv_heads, tokens, dim]."""
    was = front.shape[3]
    with torch.inference_mode():
        slab = Slab(shape_of(network))
        slab.reserve(was + len(chunk))
        slab.load(front)
        forward(network, chunk, was, slab.cache)
        return Encoded(slab.copy(was, was + len(chunk)), was)


def prefilled(network: Any, tokens: Sequence[int]) -> Slab:
    """A slab of its own that holds these tokens, and the model's whole state of them."""
    with torch.inference_mode():
        slab = Slab(shape_of(network))
        slab.reserve(len(tokens))
        forward(network, tokens, 0, slab.cache)
    return slab


def assembled(
    slab: Slab,
    rotation: Rotation,
    layout: Layout,
    exact: torch.Tensor | None,
    chunks: Sequence[Encoded],
) -> None:
    """Fill a slab with a layout's state: what is exact, chunks turned to their places, blanks.

    `exact`: the state of the first `layout.exact` tokens. Call it in inference mode.
    """
    slab.begin()
    slab.reserve(layout.length)
    if exact is not None:
        slab.load(exact)
    for place, chunk in zip(layout.chunks, chunks, strict=True):
        slab.blank(place.start - slab.length)
        slab.load(rotation.turned(chunk.state.to(slab.shape.device), chunk.was, place.start))
    slab.blank(layout.length - slab.length)
