"""What is counted of the answers that are given, whoever counts and for whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from thinkonce.insight.savings import Savings

__all__ = ("Counting", "Labels")

Labels = tuple[str, str, str, str]  # endpoint, model, outcome, match


class Counting(Protocol):
    """Belongs to one event loop."""

    @property
    def savings(self) -> Savings: ...

    @property
    def upstream_took(self) -> Callable[[float], None]:
        """Told of every call, in seconds."""
        ...

    def learn_model(self, model: str) -> None:
        """An upstream answered for `model`, so it exists."""
        ...

    def coalesced(self) -> None:
        """An answer was another request's."""
        ...

    def cache_failed(self) -> None:
        """The cache itself failed; the request was answered without it."""
        ...
