"""Where the time comes from: injected, so that tests move it and nothing sleeps.

`wall` is what stores and other machines share; `monotonic` is what expiry inside a process
uses, because the wall clock jumps and a jump back must not resurrect an entry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ("SYSTEM", "Clock")


@dataclass(frozen=True, slots=True)
class Clock:
    """Two functions that return seconds. Plain functions, because the hit path calls them."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


SYSTEM = Clock(wall=time.time, monotonic=time.monotonic)
