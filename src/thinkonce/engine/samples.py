"""Several answers to one request, given in turn or at random: where the model rolls dice.

A sampled request has a key for each of its samples, and each sample lives, expires and is purged
as an answer of its own. The request's turn says which one it asks for; a sample that is not there
is a miss, and its answer becomes the sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from thinkonce.protocols.dialect import Asked
from thinkonce.request.storable import PROVIDER_TEMPERATURE
from thinkonce.tiers.tier import Key

__all__ = ("Draw", "Order", "Samples", "is_sampled")

Order = Literal["turn", "random"]

# Requests whose turn is remembered, about 100 bytes each; past it all begin at the first sample.
MOST_REMEMBERED = 65_536


def is_sampled(asked: Asked) -> bool:
    """Whether the model may answer otherwise the next time.

    At temperature 0 it should not; with a `seed` the client asks it not to.
    """
    if asked.body.get("seed") is not None:
        return False
    return (PROVIDER_TEMPERATURE if asked.temperature is None else asked.temperature) > 0


class Samples:
    """How many answers a request may have, and whose turn it is. Belongs to one event loop."""

    def __init__(
        self, most: int = 1, order: Order = "turn", choose: Callable[[int], int] = random.randrange
    ) -> None:
        self.most, self._order, self._choose = most, order, choose
        self._turns: dict[int, int] = {}

    @property
    def remembered(self) -> int:
        """Of how many requests the turn is known."""
        return len(self._turns)

    def turn(self, name: int) -> int:
        return self._turns.get(name, 0)

    def advance(self, name: int) -> None:
        in_turn = self._order == "turn"
        following = (self.turn(name) + 1) % self.most if in_turn else self._choose(self.most)
        if len(self._turns) >= MOST_REMEMBERED:
            self._turns.clear()
        self._turns[name] = following


class Draw:
    """The samples of one request. `keys`: one for each; the turn is that of all equal requests."""

    __slots__ = ("_name", "_samples", "keys")

    def __init__(self, samples: Samples, keys: Sequence[Key]) -> None:
        self._samples, self.keys = samples, keys
        self._name = hash(keys[0].local)  # two requests of one hash would share turns, no answers

    def key(self) -> Key:
        """Of the sample whose turn it is; it stays until `advance`."""
        return self.keys[self.turn()]

    def turn(self) -> int:
        return self._samples.turn(self._name)

    def advance(self) -> None:
        self._samples.advance(self._name)
