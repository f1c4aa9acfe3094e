"""One worker and a bounded line before it: first come, first served.

A model on a CPU uses every core for one answer, so answers run one at a time; a second worker
would make both slower. A line that is full says so at once instead of growing.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ThinkOnceError

__all__ = ("Busy", "Job", "Scheduler", "Ticket")

Job = Callable[[Callable[[], bool]], None]
"""Does the work; it is given a function that says whether it should stop."""

_logger = logging.getLogger("thinkonce.kv")

# How much the latest job counts in the average that Retry-After is computed from.
_LATEST_WEIGHT = 0.3
_LONGEST_RETRY_SECONDS = 120


class Busy(ThinkOnceError):
    """The line is full or closed. `retry_after` is in whole seconds, at least 1."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Ticket:
    """One job's place in the line. Thread-safe."""

    def __init__(self, line: Scheduler, run: Job, dropped: Callable[[], None]) -> None:
        self._line = line
        self._cancelled = threading.Event()
        self.run, self.dropped = run, dropped

    def cancel(self) -> None:
        """Leave the line, or tell the running job to stop; harmless once the job is done."""
        self._cancelled.set()
        self._line._leave(self)

    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class Scheduler:
    """Runs jobs one at a time on a thread of its own, in the order they came.

    `max_waiting` bounds the jobs that wait besides the one that runs. All methods are
    thread-safe.
    """

    def __init__(self, max_waiting: int, clock: Clock = SYSTEM) -> None:
        self._max_waiting = max_waiting
        self._clock = clock
        self._line: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._closed = False
        self._mean_seconds = 1.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="thinkonce-model", daemon=True)
        self._thread.start()

    def submit(self, run: Job, dropped: Callable[[], None]) -> Ticket:
        """Put a job into the line. Raises Busy where the line is full or closed.

        `run(cancelled)` is called on the worker's thread and should return soon after
        `cancelled()` is true. `dropped()` is called instead where the job leaves the line
        before its turn, on the thread that made it leave.
        """
        ticket = Ticket(self, run, dropped)
        with self._changed:
            if self._closed:
                raise Busy("the server is shutting down", retry_after=1)
            if len(self._line) + self.running > self._max_waiting:
                raise Busy(
                    f"{self._max_waiting} requests are waiting, which is as many as may",
                    retry_after=self._expected_wait(),
                )
            self._line.append(ticket)
            self._changed.notify_all()
        return ticket

    @property
    def waiting(self) -> int:
        """Jobs in the line, without the running one."""
        return len(self._line)

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def alive(self) -> bool:
        """True while jobs are accepted and somebody is there to run them."""
        return self._thread.is_alive() and not self._closed

    def wait_until(self, holds: Callable[[Scheduler], bool], timeout: float) -> bool:
        """Wait until `holds(self)`, at most `timeout` seconds; true if that came.

        It is asked whenever a job enters the line, leaves it, begins or ends.
        """
        with self._changed:
            return self._changed.wait_for(lambda: holds(self), timeout)

    def cancel_all(self) -> None:
        """Cancel what runs and what waits; new jobs are still accepted."""
        with self._changed:
            tickets = [*self._line, *([self._running] if self._running else [])]
        for ticket in tickets:
            ticket.cancel()

    def close(self) -> None:
        """Accept nothing more, finish what runs and waits, end the thread. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _expected_wait(self) -> int:
        seconds = math.ceil(self._mean_seconds * (len(self._line) + self.running))
        return max(1, min(seconds, _LONGEST_RETRY_SECONDS))

    def _leave(self, ticket: Ticket) -> None:
        with self._changed:
            if ticket not in self._line:
                return
            self._line.remove(ticket)
            self._changed.notify_all()
        ticket.dropped()

    def _work(self) -> None:
        while (ticket := self._next()) is not None:
            began = self._clock.monotonic()
            try:
                ticket.run(ticket.cancelled)
            except Exception:
                # One job's failure is that job's; the next one must still be served.
                _logger.exception("a job failed")
            self._finished(self._clock.monotonic() - began)

    def _next(self) -> Ticket | None:
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._closed)
            self._running = self._line.popleft() if self._line else None
            self._changed.notify_all()
            return self._running

    def _finished(self, seconds: float) -> None:
        with self._changed:
            self._mean_seconds += _LATEST_WEIGHT * (seconds - self._mean_seconds)
            self._running = None
            self._changed.notify_all()
