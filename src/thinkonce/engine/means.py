"""What cached paths answer with: the same for those of a gateway and of a transport."""

from __future__ import annotations

from dataclasses import dataclass

from thinkonce.engine.counting import Counting
from thinkonce.engine.passing import Passing
from thinkonce.engine.world import GatewayWorld
from thinkonce.insight.prices import Prices
from thinkonce.shelf import Shelf
from thinkonce.upstream.request import Sender

__all__ = ("Means",)


@dataclass(frozen=True, slots=True)
class Means:
    """Belongs to one event loop. `sender` asks the pools; `passing` goes around the cache."""

    shelf: Shelf
    world: GatewayWorld
    metrics: Counting
    prices: Prices
    sender: Sender
    passing: Passing
