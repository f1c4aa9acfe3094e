"""What must happen in a forked child before anything else runs there.

A child inherits locks that no thread of its own will ever release, sockets that belong to the
parent, and no threads. Objects that own such things name a method to be called in the child.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ("free_after_fork", "on_fork")

# One list for the process, because the operating system forks the whole process.
_methods: list[weakref.WeakMethod[Callable[[], None]]] = []


def on_fork(method: Callable[[], None]) -> None:
    """Call the bound `method` in every child forked while its object lives.

    The object is held weakly. Methods run in the order they were named.
    """
    _methods[:] = [held for held in _methods if held() is not None]
    _methods.append(weakref.WeakMethod(method))


def free_after_fork(lock: object) -> None:
    """Make `lock` (an RLock too) usable in a child, where the thread that held it does not exist.

    In place, because others hold references to it; the standard library does the same.
    """
    getattr(lock, "_at_fork_reinit")()  # noqa: B009  # not in the published types


def _in_child() -> None:
    for held in list(_methods):
        method = held()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
