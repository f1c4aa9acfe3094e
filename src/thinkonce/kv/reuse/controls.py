"""What a choice must beat to be worth anything: no tokens, as many at random; and all of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from thinkonce.kv.reuse.layout import Choice, Layout, Plan

__all__ = ("Everything", "Naive", "RandomLike")


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
