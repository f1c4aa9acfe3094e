"""Lives of answers by name: `[ttl_classes]`."""

from __future__ import annotations

from typing import Annotated, Literal

from thinkonce.settings.section import Section, about, seconds

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
        "hot": TtlClass(ttl=300.0, priority="high"),
        "warm": TtlClass(ttl=1800.0, priority="medium"),
        "cold": TtlClass(ttl=7200.0, priority="low"),
        "realtime": TtlClass(ttl=300.0),
        "dynamic": TtlClass(ttl=3600.0),
        "static": TtlClass(ttl=86_400.0),
    }
