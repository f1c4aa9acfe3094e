"""What tests of this package, and of tiers written elsewhere, stand on. Loaded when asked for.

`TierContract` needs pytest; nothing else here does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkonce.testing.clock import FakeClock
    from thinkonce.testing.faults import FlakyTier, SlowTier
    from thinkonce.testing.tier_contract import TierContract

__all__ = ("FakeClock", "FlakyTier", "SlowTier", "TierContract")

_HOME = {
    "FakeClock": "clock",
    "FlakyTier": "faults",
    "SlowTier": "faults",
    "TierContract": "tier_contract",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
