"""The tokens that the question looks at, computed again; all others stay as they were stored."""

from __future__ import annotations

from dataclasses import dataclass

from thinkonce.kv.reuse.layout import Layout, Plan

__all__ = ("Looked",)


@dataclass(frozen=True, slots=True)
class Looked:
    """The share `ratio` of chunks' tokens, at least one, by attention in the deeper half.

    `link` tokens at each chunk's beginning are among them whoever looks at them.
    """

    ratio: float = 0.15
    link: int = 0
    depth: float = 0.5

    @property
    def name(self) -> str:
        return f"looked {self.ratio:g}" + (f" + link {self.link}" if self.link else "")

    def plan(self, layout: Layout, layers: int) -> Plan:
        moved = layout.moved
        pinned = [place for chunk in layout.chunks for place in chunk[: self.link]]
        wanted = max(1, round(self.ratio * len(moved))) if moved else 0
        return Plan(pinned, looked=max(0, wanted - len(pinned)), deep=int(self.depth * layers))
