"""Who leads which call, and who waits for whom: what keeps coalescing from deadlock.

A call that runs on behalf of others is *led*. While it runs, its context (inherited by tasks and
by `asyncio.to_thread`) remembers that, innermost call first:

    ask("a") leads ──► its model calls ask("b") ──► leads ──► whose model calls ask("a") again
    Leading(a)  ◄──outer──  Leading(b)  ◄── current()         must not wait: a would wait for b
                                                              and b for a

Waiting adds an edge from each call the waiter leads to the call it waits for. A wait that would
close a circle is refused, and the asker calls the model itself.

Threads started by hand do not inherit a context: a call that waits for such a thread, which
waits for the call, is ended by its lease only.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from enum import StrEnum

from thinkonce.host.fork import free_after_fork

__all__ = (
    "Leading",
    "Role",
    "current",
    "enter",
    "leave",
    "led_by",
    "may_wait",
    "step_out",
    "stop_waiting",
)


class Role(StrEnum):
    """What the holder of a seat does."""

    LEAD = "lead"
    FOLLOW = "follow"
    THROUGH = "through"


LEAD, FOLLOW, THROUGH = Role  # read at every miss: a global is five times faster to read


class Leading:
    """One call under way, as the contexts under it know it. Holds no result, so it may outlive it.

    `thread` is the thread that leads, 0 where that is in another process; `loop` the event loop
    on which it does, if it does on one, until the call has ended.
    """

    __slots__ = ("claim", "done", "loop", "outer", "thread", "waits_for")

    def __init__(self, outer: Leading | None, thread: int) -> None:
        self.outer, self.thread = outer, thread
        self.loop = asyncio._get_running_loop()
        self.done = False
        self.claim: object = None  # its place in the host's table, where it has one
        self.waits_for: list[Leading] = []

    @property
    def is_stranded(self) -> bool:
        """Whether the leader's event loop has stopped, so that the call may never end."""
        loop = self.loop
        return loop is not None and not loop.is_running()


_innermost: ContextVar[Leading | None] = ContextVar("thinkonce_leading", default=None)
# Circles run across caches, so the edges of all of them are guarded by one lock.
_edges = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: free_after_fork(_edges))


def current() -> Leading | None:
    """The innermost call that this context leads and that has not ended."""
    leading = _innermost.get()
    while leading is not None and leading.done:
        leading = leading.outer
    return leading


def enter(leading: Leading | None) -> None:
    """This context leads from now on; nothing at all with None."""
    _innermost.set(leading)


def step_out(leading: Leading) -> None:
    """Another context will lead this call; here it leads no longer."""
    if _innermost.get() is leading:
        _innermost.set(leading.outer)


def leave(leading: Leading) -> None:
    """The call has ended, in this context or in another."""
    leading.done = True
    leading.loop = None
    if _innermost.get() is leading:
        _innermost.set(leading.outer)


def led_by(innermost: Leading | None) -> Iterator[Leading]:
    """The calls under way from `innermost` outwards."""
    while innermost is not None:
        if not innermost.done:
            yield innermost
        innermost = innermost.outer


def may_wait(innermost: Leading | None, leader: Leading) -> bool:
    """Note that all calls from `innermost` outwards wait for `leader`; False if that is a circle.

    After True, call `stop_waiting` with the same arguments when the wait is over.
    """
    if innermost is None:
        return True
    with _edges:
        waiting = list(led_by(innermost))
        if reaches(leader, waiting):
            return False
        for leading in waiting:
            leading.waits_for.append(leader)
    return True


def stop_waiting(innermost: Leading | None, leader: Leading) -> None:
    """Take back the edges of one `may_wait` that said True."""
    if innermost is None:
        return
    with _edges:
        while innermost is not None:
            if leader in innermost.waits_for:
                innermost.waits_for.remove(leader)
            innermost = innermost.outer


def reaches(start: Leading, goals: list[Leading]) -> bool:
    """Does `start` wait for one of `goals`, directly or through others, or is it one?"""
    seen: set[int] = set()
    open_ends = [start]
    while open_ends:
        leading = open_ends.pop()
        if leading in goals:
            return True
        if id(leading) not in seen:
            seen.add(id(leading))
            open_ends += leading.waits_for
    return False
