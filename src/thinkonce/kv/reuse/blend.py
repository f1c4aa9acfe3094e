"""Blending: the tokens whose state is most wrong, computed again (CacheBlend, arXiv 2405.16444).

All chunks' tokens go through the first layers; those that deviate most there from what was
stored go on through the rest: fewer and fewer over several layers, as the paper describes. The
public implementations choose once, which is to start with what remains in the end.

    layer        0    1    2    3    4    5    6    7    8    9 ...
    once .15     1    1   .15  .15  .15  .15  .15  .15  .15  .15
    gradual .15  1    1   .30  .26  .22  .19  .17  .14  .12  .11      the same mean behind layer 1
"""

from __future__ import annotations

from dataclasses import dataclass

from thinkonce.kv.reuse.layout import Deviation, Layout, Plan

__all__ = ("Gradual",)

# Layer 0 sees nothing but the tokens themselves: whatever a chunk stood behind, it is right there.
_CHECK_LAYER = 1
_STEPS = 8  # layers over which the gradual filter narrows


@dataclass(frozen=True, slots=True)
class Gradual:
    """The share `ratio` as a mean over the layers behind the check layer, narrowing from `start`.

    `start` times the ratio go on at first, at most all; from then a constant factor a layer, over
    eight layers, and what remains to the end; with a `start` of 1 they are chosen once. `link`
    tokens at each chunk's beginning are among them whatever they deviate. `called`: its name, ""
    for all of this.
    """

    ratio: float = 0.15
    by: Deviation = "values"
    start: float = 2.0
    link: int = 0
    called: str = ""

    @property
    def name(self) -> str:
        linked = f" + link {self.link}" if self.link else ""
        return self.called or f"gradual {self.ratio:g} {self.by}{linked}"

    def plan(self, layout: Layout, layers: int) -> Plan:
        full, moved = min(layers, _CHECK_LAYER + 1), layout.moved
        first = min(1.0, self.start * self.ratio)
        shares = [1.0] * full + _narrowing(self.ratio, first, layers - full)
        pinned = frozenset(place for chunk in layout.chunks for place in chunk[: self.link])
        quotas = [max(1, round(share * len(moved))) - len(pinned) for share in shares]
        return Plan(moved, [max(0, quota) for quota in quotas], self.by, pinned)


def _narrowing(mean: float, first: float, layers: int) -> list[float]:
    """Shares of so many layers, falling by one factor over the first steps, of the given mean."""
    if layers < 2 or first <= mean:
        return [mean] * layers
    steps = min(_STEPS, layers - 1)
    low, high = 0.0, 1.0
    for _ in range(60):  # the mean grows with the factor: halve
        factor = (low + high) / 2
        shares = [first * factor ** min(layer, steps) for layer in range(layers)]
        low, high = (factor, high) if sum(shares) < mean * layers else (low, factor)
    return shares
