"""What a choice must beat to be worth anything: no tokens, as many at random, and as many chosen
as others do; and all of them, which must be exact.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from thinkonce.kv.reuse.blend import Gradual
from thinkonce.kv.reuse.layout import Choice, Deviation, Layout, Plan

__all__ = ("Everything", "Naive", "RandomLike", "blend")


@dataclass(frozen=True, slots=True)
class Naive:
    """None of the chunks' tokens: chunks turned to their places, side by side."""

    name: str = "naive"

    def plan(self, layout: Layout, layers: int) -> Plan:
        return Plan(())


@dataclass(frozen=True, slots=True)
class Everything:
    """All of them: the exact answer but for rounding."""

    name: str = "everything"

    def plan(self, layout: Layout, layers: int) -> Plan:
        return Plan(layout.moved)


@dataclass(frozen=True, slots=True)
class RandomLike:
    """As many tokens, layer by layer in all, as another choice takes, drawn with a seed."""

    other: Choice
    seed: int = 0

    @property
    def name(self) -> str:
        return f"random like {self.other.name}"

    def plan(self, layout: Layout, layers: int) -> Plan:
        like = self.other.plan(layout, layers)
        rows = float(len(like.places) + like.looked)
        if like.quotas is not None:
            rows = sum(like.quotas) / layers + len(like.pinned)
        drawn = random.Random(f"{self.seed} {layout}")
        return Plan(sorted(drawn.sample(layout.moved, round(rows))))


def blend(ratio: float = 0.15, by: Deviation = "values", link: int = 0) -> Gradual:
    """The share `ratio` of chunks' tokens, chosen once, as CacheBlend's implementations do."""
    name = f"blend {ratio:g} {by}" + (f" + link {link}" if link else "")
    return Gradual(ratio, by, start=1.0, link=link, called=name)
