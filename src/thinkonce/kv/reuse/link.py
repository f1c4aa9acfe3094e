"""Linking: the first tokens of each chunk, computed again (EPIC, arXiv 2410.15332).

A chunk encoded alone begins with an attention sink of its own; joined to others, all but the first
of these are wrong, and they are the first tokens. `link 16` computes 16 of each again. Where a
chunk was encoded behind leading tokens that take the sink and are dropped (the paper's dummies;
served is the fixed text of `stock.py`), there is less to repair: `link 0` computes none.
"""

from __future__ import annotations

from dataclasses import dataclass

from thinkonce.kv.reuse.layout import Layout, Plan

__all__ = ("Link",)


@dataclass(frozen=True, slots=True)
class Link:
    """The first `first` and the last `last` tokens of each chunk; all of a shorter one."""

    first: int = 16
    last: int = 0

    @property
    def name(self) -> str:
        return f"link {self.first}+{self.last}" if self.last else f"link {self.first}"

    def plan(self, layout: Layout, layers: int) -> Plan:
        return Plan([place for chunk in layout.chunks for place in self._ends(chunk)])

    def _ends(self, chunk: range) -> list[int]:
        return sorted({*chunk[: self.first], *chunk[max(0, len(chunk) - self.last) :]})
