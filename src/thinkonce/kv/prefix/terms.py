"""What a request says of attention state: whether it may use and leave any, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = (
    "CLASSES",
    "MAX_LIFE",
    "PRIORITIES",
    "USUAL",
    "Priority",
    "Terms",
)

Priority = Literal["low", "medium", "high", "pinned"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Blocks of an earlier one are forgotten first."""

CLASSES = {"5m": 300.0, "1h": 3600.0, "24h": 86_400.0}
"""Seconds. The first two are Anthropic's (https://docs.anthropic.com/en/docs/build-with-claude/
prompt-caching), the last is ours."""
MAX_LIFE = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Terms:
    """`reads`: what is known of the prompt may be loaded. `keeps`: what is computed is kept.
    `explains`: it shall be told what was loaded, and why not more.

    `life`: seconds from the last use on; None: until room is needed. Of blocks that several
    requests use, the longest life and the highest priority count.
    """

    reads: bool = True
    keeps: bool = True
    life: float | None = None
    priority: Priority = "medium"
    explains: bool = False


USUAL = Terms()
"""Of requests that say nothing."""
