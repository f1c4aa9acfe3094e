"""A prompt whose parts are known from other company, and which of its tokens to compute again.

prompt    | system | document 1 | document 2 | question |
layout    | exact  | chunk      | chunk      |          |   length: all of it
plan                 xx           xx                       computed again
                                              xxxxxxxx     computed: known to nobody
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol

from thinkonce.errors import ThinkOnceError

__all__ = ("Choice", "Deviation", "Layout", "Plan")

Deviation = Literal["keys", "values", "both"]
"""Of what computed again, against what was stored, a token's deviation is taken."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`length` tokens, of which the first `exact` are a true prefix.

    `chunks`: places of text that was encoded in other company, in order, none of them empty.
    What is in neither is not known and is always computed.
    """

    length: int
    chunks: tuple[range, ...]
    exact: int = 0

    def __post_init__(self) -> None:
        end = self.exact
        for chunk in self.chunks:
            if chunk.step != 1 or not end <= chunk.start < chunk.stop <= self.length:
                raise ThinkOnceError(
                    f"chunk {chunk} of a prompt of {self.length} tokens; chunks lie in order, "
                    f"none empty, behind one another and behind the first {self.exact} tokens"
                )
            end = chunk.stop

    @property
    def moved(self) -> list[int]:
        """Places of all chunks' tokens, in order."""
        return list(chain.from_iterable(self.chunks))

    @property
    def unknown(self) -> list[int]:
        """Places that are computed whatever is chosen, in order. They hold the last token.

        Where a chunk, or the exact part, ends the prompt, its last token is one of them: its
        logits are wanted.
        """
        last, end, found = self.length - 1, self.exact, list[int]()
        for chunk in self.chunks:
            found.extend(range(end, chunk.start))
            end = chunk.stop
        found.extend(range(end, self.length))
        return found if found and found[-1] == last else [*found, last]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tokens of chunks are computed again, layer by layer.

    `places`: those of the first layer, sorted. `quotas`: how many of them are left in each layer,
    never growing; those that deviate most from what was stored, as seen in the layer before. None:
    all of them in all layers. `pinned` are left in all layers, above the quota. `looked`: so many
    tokens besides, those that the question looks at most from layer `deep` on; not with quotas.
    """

    places: Sequence[int]
    quotas: Sequence[int] | None = None
    by: Deviation = "values"
    pinned: frozenset[int] = frozenset()
    looked: int = 0
    deep: int = 0

    @property
    def is_static(self) -> bool:
        """Whether `places` are all that is chosen: then rows may be computed in several calls."""
        return self.quotas is None and not self.looked

    def rows(self, layout: Layout, layers: int) -> float:
        """Tokens that are computed, the unknown ones included, as a mean over the layers."""
        unknown = layout.unknown
        whole = len({*self.places, *unknown})
        if self.quotas is None:
            return whole + (self.looked + len(unknown) if self.looked else 0)
        least = len({*self.pinned, *unknown})
        return sum(min(whole, quota + least) for quota in self.quotas) / layers


class Choice(Protocol):
    """A way to choose, with its setting."""

    @property
    def name(self) -> str:
        """The method and its setting, as metrics and reports call it: `link 16`."""
        ...

    def plan(self, layout: Layout, layers: int) -> Plan:
        """What to compute again of a prompt, for a model of so many layers."""
        ...
