"""How much memory and how many cores this process may have: the machine's, or a container's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ("Cores", "cores", "memory_bytes")

_CGROUP = Path("/sys/fs/cgroup")  # as a container sees its own
# The second version of control groups, and the first one.
_MEMORY = ("memory.max", "memory/memory.limit_in_bytes")
_QUOTA = "cpu.max"


class Cores(NamedTuple):
    """`seen` is what libraries count, and begin as many threads for; `usable` as many as may run
    at a time, of which a container may have a part of one.
    """

    seen: int
    usable: float


def memory_bytes(cgroup: Path = _CGROUP) -> int | None:
    """None where the system does not tell."""
    found = []
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in _MEMORY:
        with suppress(OSError, ValueError):  # "max" is no number: no bound
            found.append(int((cgroup / name).read_text("ascii")))
    return min(found, default=None)


def cores(cgroup: Path = _CGROUP) -> Cores:
    affinity = getattr(os, "sched_getaffinity", None)
    seen = len(affinity(0)) if affinity else os.cpu_count() or 1
    usable = float(seen)
    with suppress(OSError, ValueError):
        quota, period = (cgroup / _QUOTA).read_text("ascii").split()
        usable = min(usable, int(quota) / int(period))
    return Cores(seen, usable)
