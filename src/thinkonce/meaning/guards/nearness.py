"""How near two texts must be before a difference between them is evidence.

Near misses are near: texts that share few words differ in everything, and that one of them says
`not` tells nothing. There the difference is a feature and the verdict decides. The shares were
chosen on one half of five labelled sets and reported on the other.
"""

from __future__ import annotations

from thinkonce.meaning.text.analysis import Analysed

__all__ = ("CLASH", "LACK", "overlap")

# Share of the words of both texts that both have, from which ...
CLASH = 0.25  # ... two marks that contradict each other veto (1000 / 1007, buy / sell)
LACK = 0.4  # ... a mark that one side only lacks vetoes (a number, a date, a denial)


def overlap(a: Analysed, b: Analysed) -> float:
    """Words both have among the words either has; 0 for two empty texts."""
    shared = len(a.words & b.words)
    together = len(a.words) + len(b.words) - shared
    return shared / together if together else 0.0
