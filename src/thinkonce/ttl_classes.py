"""Lives of answers by name: `ttl="warm"`. These hold wherever nothing else is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from thinkonce.entry import Priority

__all__ = ("TTL_CLASSES", "TtlClass")


@dataclass(frozen=True, slots=True)
class TtlClass:
    """A named lifetime in seconds, and the priority it implies unless one is given."""

    seconds: float
    priority: Priority


TTL_CLASSES: Mapping[str, TtlClass] = MappingProxyType(
    {
        "hot": TtlClass(300.0, "high"),
        "warm": TtlClass(1800.0, "medium"),
        "cold": TtlClass(7200.0, "low"),
        "realtime": TtlClass(300.0, "medium"),
        "dynamic": TtlClass(3600.0, "medium"),
        "static": TtlClass(86_400.0, "medium"),
    }
)
