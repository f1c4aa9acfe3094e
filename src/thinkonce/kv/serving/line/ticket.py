"""One job of the model's: what it does by turns, how it may leave, and why."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from thinkonce.clock import Clock
from thinkonce.errors import ThinkOnceError
from thinkonce.kv.serving.line.line import Demand

__all__ = ("Busy", "Dropped", "Job", "Late", "Stopped", "Ticket", "Turn", "WorkerDied")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did: tokens of a prompt that were `read`, tokens of an answer `made`."""

    read: int = 0
    made: int = 0


Job = Callable[[Callable[[], bool]], Iterator[Turn]]
"""Does the work by turns; it is given a function that says whether it should stop."""


class Stopped(ThinkOnceError):
    """A job left before its end: its client has gone, or the server ends."""


class Late(ThinkOnceError):
    """A job had not ended when its time was up."""


class WorkerDied(ThinkOnceError):
    """The thread that runs the model has ended by a failure; nothing is answered any more."""


class Busy(ThinkOnceError):
    """The line is full, or `closed`. `retry_after` is in whole seconds, at least 1."""

    def __init__(self, message: str, retry_after: int, closed: bool = False) -> None:
        super().__init__(message)
        self.retry_after, self.closed = retry_after, closed


Dropped = Callable[[ThinkOnceError], None]


class _Line(Protocol):
    clock: Clock

    def leave(self, ticket: Ticket) -> None: ...


class Ticket:
    """One job's place in the line, and among those under way. Thread-safe.

    `is_ahead`: nobody waits for an answer of it; it runs while nothing else does.
    """

    def __init__(
        self, line: _Line, run: Job, dropped: Dropped, demand: Demand, *, is_ahead: bool = False
    ) -> None:
        self._line, self.dropped, self.demand = line, dropped, demand
        self._cancelled, self._run = threading.Event(), run
        self.is_ahead = is_ahead
        self.since = line.clock.monotonic()
        self.reading = True  # no token of the answer has been made yet
        self.seconds = 0.0  # of the worker
        self.begin()

    def begin(self) -> None:
        """From the beginning, or anew: its iterator was closed."""
        self.steps = self._run(self.cancelled)

    def cancel(self) -> None:
        """Leave the line, or stop before the next turn; harmless once the job is done."""
        self._cancelled.set()
        self._line.leave(self)

    def cancelled(self) -> bool:
        return self._cancelled.is_set()
