"""What a request says of attention state: whether it may use any, and leave any."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("USUAL", "Terms")


@dataclass(frozen=True, slots=True)
class Terms:
    """`reads`: what is known of the prompt may be loaded. `keeps`: what is computed is kept."""

    reads: bool = True
    keeps: bool = True


USUAL = Terms()
"""Of requests that say nothing."""
