"""Which way of reusing chunks a method is: what is chosen to be computed again, behind what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Fidelity
from thinkonce.kv.prefix.prompt import Method
from thinkonce.kv.reuse.layout import Choice

__all__ = ("Behind", "FixedWays", "Way", "Ways", "head")


Behind = Callable[[Sequence[int]], Sequence[int]]
"""What a prompt's chunks are encoded behind, of what stands in front of the first of them."""


def head(front: Sequence[int]) -> Sequence[int]:
    """All of that: it takes the attention that needs a sink."""
    return front


class Way(NamedTuple):
    """`choice`: what is computed again. What chunks are encoded `behind` is part of their names."""

    choice: Choice
    behind: Behind = head


class Ways(Protocol):
    """What a request's method means at this moment. Called from any thread."""

    def way(self, method: Method, asking: Asking) -> Way | None:
        """None: the prompt is read exactly."""
        ...

    def fidelity(self, method: Method, setting: str, asking: Asking) -> Fidelity | None:
        """What is measured of a setting, for such prompts; None where nothing is."""
        ...

    def used(self, way: Way, asking: Asking, reading: Reading) -> None:
        """A prompt was read in this way; who measures what ways are worth looks here."""
        ...

    def answered_exactly(self, asking: Asking) -> None:
        """A prompt was read exactly, because `way` said so."""
        ...


class FixedWays:
    """The same for every prompt."""

    def __init__(self, ways: Mapping[Method, Way]) -> None:
        self._ways = ways

    def way(self, method: Method, asking: Asking) -> Way | None:
        return self._ways.get(method)

    def fidelity(self, method: Method, setting: str, asking: Asking) -> Fidelity | None:
        return None

    def used(self, way: Way, asking: Asking, reading: Reading) -> None:
        """Nothing is measured."""

    def answered_exactly(self, asking: Asking) -> None:
        """Nothing is measured."""
