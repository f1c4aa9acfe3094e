"""Tokens with positions of their own: computed over what a slab holds, and after it.

    positions   0 1 2 3   7 8 9        a hole takes no row
    rows        0 1 2 3   4 5 6        in the order of their positions

A token sees what has a smaller position, and itself; on sliding layers what is near by position.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from thinkonce.kv.generation.decode import forward_at
from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.slab import Slab

__all__ = ("Positioned", "blanked")

_MOST_ROWS = 512  # in one forward pass, so that answers can take turns


class Positioned:
    """A sequence in a slab, by position. `tokens` and `positions` are of all its rows."""

    def __init__(
        self, network: Any, slab: Slab, tokens: Sequence[int], positions: Sequence[int]
    ) -> None:
        self._network, self._slab, self._tokens = network, slab, tokens
        self._positions = torch.tensor(positions, device=network.device)

    def computed(self, rows: Sequence[int]) -> torch.Tensor:
        """Compute these rows, sorted; the fp32 logits after the last. Rows behind them must hold
        numbers, and count for nothing.
        """
        ids = [self._tokens[row] for row in rows]
        return self._forward(ids, torch.tensor(rows, device=self._network.device))

    def steps(
        self, rows: Sequence[int], cancelled: Callable[[], bool]
    ) -> Generator[Read, None, torch.Tensor | None]:
        """The same, some hundred rows a step; None once cancelled."""
        logits = None
        for start in range(0, len(rows), _MOST_ROWS):
            if cancelled():
                return None
            some = rows[start : start + _MOST_ROWS]
            logits = self.computed(some)
            yield Read(len(some))
        return logits

    def after(self, token: int, place: int) -> torch.Tensor:
        """One more token, at that position, behind all others; the logits after it."""
        device, row = self._network.device, self._slab.length
        with torch.inference_mode():
            self._slab.reserve(row + 1)
            self._slab.blank(1)
            self._positions = torch.cat([self._positions, torch.tensor([place], device=device)])
        return self._forward([token], torch.tensor([row], device=device))

    def _forward(self, ids: list[int], rows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return forward_at(self._network, self._slab, ids, rows, self._positions)


def blanked(slab: Slab, rows: int) -> None:
    """So many rows of which nothing is known, in an empty slab."""
    with torch.inference_mode():
        slab.begin()
        slab.reserve(rows)
        slab.blank(rows)
