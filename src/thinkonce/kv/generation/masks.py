"""Who sees whom when only some tokens of a sequence are computed.

    columns   0 1 2 3 4 5 6 7        row of token 2    x x x . . . . .
    rows      2, 6                   row of token 6    x x x x x x x .
                                     with a window of 3      . . . . x x x .

Row i sees exactly the columns up to its own place, and of those the last `window` on sliding
layers. A triangle aligned to the bottom right, as causal attention has it, is wrong for rows
with gaps between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ("FULL", "SLIDING", "Masks", "for_model", "kind_of", "masks", "masks_at")

FULL, SLIDING = "full_attention", "sliding_attention"

Masks = Mapping[str, torch.Tensor]
"""By kind of layer, [1, 1, rows, columns]."""

# These models look alike far in all layers, and take one mask instead of one for each kind.
_ONE_MASK = ("llama", "mistral")


def kind_of(config: Any, layer: int) -> str:
    """Whether a layer sees all that came before or a window of it."""
    if config.model_type in _ONE_MASK:
        return SLIDING if getattr(config, "sliding_window", None) else FULL
    kinds = getattr(config, "layer_types", None)
    return kinds[layer] if kinds else FULL


def masks(network: Any, places: torch.Tensor, columns: int) -> Masks:
    """For rows at `places` (sorted, int64, on the model's device) before so many columns.

    See `masks_at`.
    """
    return masks_at(network, places, torch.arange(columns, device=places.device))


def masks_at(network: Any, places: torch.Tensor, columns: torch.Tensor) -> Masks:
    """The same for columns at positions of their own: [columns], int64, sorted; with holes, the
    window of a sliding layer counts positions and not columns.

    True where a row may look; for eager attention, which adds its mask, 0 and the lowest number.
    """
    config = network.config
    kinds = {kind_of(config, layer) for layer in range(config.num_hidden_layers)}
    seen = columns <= places[:, None]
    found = {}
    for kind in kinds:
        near = seen
        if kind == SLIDING:
            near = seen & (columns > places[:, None] - config.sliding_window)
        found[kind] = _as_wanted(network, near[None, None])
    return found


def for_model(config: Any, found: Masks) -> Masks | torch.Tensor:
    """What the whole model's forward takes: a mask for each kind of layer, or the one there is."""
    if config.model_type in _ONE_MASK:
        return next(iter(found.values()))
    return dict(found)


def _as_wanted(network: Any, seen: torch.Tensor) -> torch.Tensor:
    if network.config._attn_implementation != "eager":
        return seen
    lowest = torch.finfo(network.dtype).min
    return torch.zeros_like(seen, dtype=network.dtype).masked_fill_(~seen, lowest)
