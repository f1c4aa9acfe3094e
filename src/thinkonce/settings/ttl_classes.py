"""Lives of answers by name: `[ttl_classes]`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from thinkonce.settings.section import Section, about, seconds
from thinkonce.ttl_classes import TTL_CLASSES

__all__ = ("TtlClass", "default_classes")


class TtlClass(Section, frozen=True):
    """A life by name, for `ttl = "warm"`."""

    ttl: Annotated[float, seconds("Life of an answer of this class.")]
    priority: Annotated[
        Literal["high", "medium", "low", "pinned"],
        about("Weight in eviction, unless one is given.", "high | medium | low | pinned"),
    ] = "medium"


def default_classes() -> dict[str, TtlClass]:
    return {
        name: msgspec.convert({"ttl": each.seconds, "priority": each.priority}, TtlClass)
        for name, each in TTL_CLASSES.items()
    }
