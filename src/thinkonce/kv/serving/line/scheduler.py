"""One worker, up to N answers by turns, and a bounded line before it.

    line ──> [ answer | answer | answer | reading ]     a turn is one forward pass of one of them

A model on a CPU uses every core for one pass, so a second worker would make both slower; turns
keep a long answer from holding up a short one, and every pass is what it would be alone. One
prompt is read at a time: requests that share a prefix compute it once. A line that is full says
so at once instead of growing. What is read ahead of time (`ahead.py`) runs while nothing else does.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.serving.line.ahead import Ahead, Spare, closed
from thinkonce.kv.serving.line.line import Demand, Line
from thinkonce.kv.serving.line.ticket import Busy, Dropped, Job, Late, Stopped, Ticket, WorkerDied

__all__ = ("Scheduler",)

_logger = logging.getLogger("thinkonce.kv")

# How much the latest job counts in the average that Retry-After is computed from.
_LATEST_WEIGHT = 0.3
_LONGEST_RETRY_SECONDS = 120
PATIENCE_SECONDS = 30.0
_NOBODY = Demand()


class Scheduler:
    """Runs jobs by turns on a thread of its own, at most `sequences` at a time.

    `max_waiting` bounds the jobs that wait besides those, `max_tokens` their prompts together.
    One tenant alone leaves the last of several places free. A job that is not done `deadline`
    seconds after it came is given up; 0: none. `spare` is done when there is nothing else. All
    methods are thread-safe.
    """

    def __init__(
        self,
        max_waiting: int,
        clock: Clock = SYSTEM,
        *,
        sequences: int = 1,
        max_tokens: int = 2**62,
        deadline: float = 0.0,
        patience: float = PATIENCE_SECONDS,
        spare: Spare | None = None,
    ) -> None:
        self.max_waiting, self.sequences, self.clock = max_waiting, sequences, clock
        self._deadline = deadline or math.inf
        self._line: Line[Ticket] = Line(max_tokens, patience)
        self._under_way: deque[Ticket] = deque()
        self._ahead, self._spare = Ahead(), spare
        self._closed = self._died = self._takes_none_ahead = False
        self._mean_seconds = 1.0
        self._refused = self._late = 0
        self._longest_wait = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="thinkonce-model", daemon=True)
        self._thread.start()

    def submit(
        self, run: Job, dropped: Dropped, demand: Demand = _NOBODY, *, is_ahead: bool = False
    ) -> Ticket:
        """Put a job into the line. Raises Busy where the line is full or closed, and WorkerDied.

        `is_ahead`: it runs while nothing else does, and is begun anew after it was interrupted.
        It is never late; as many of them wait as answers may, and one may in any case.

        `run(cancelled)` makes the iterator of its turns, which is run, and closed, on the
        worker's thread. `dropped(why)` is called where the job does not run to its end: it left,
        was pushed out, was late, or the worker died; on the thread that made it leave.
        """
        with self._changed:
            if self._died:
                raise WorkerDied("the thread that runs the model has died; restart the server")
            if self._closed or (is_ahead and self._takes_none_ahead):
                raise Busy("the server is shutting down", retry_after=1, closed=True)
            if is_ahead and len(self._ahead) > self.max_waiting:
                raise self._busy(f"{len(self._ahead)} prompts wait to be read ahead of time")
            pushed_out = [] if is_ahead else self._make_room(demand)
            ticket = Ticket(self, run, dropped, demand, is_ahead=is_ahead)
            (self._ahead if is_ahead else self._line).add(ticket)
            self._changed.notify_all()
        for other in pushed_out:
            other.dropped(self._busy())
        return ticket

    @property
    def waiting(self) -> int:
        """Jobs in the line, without those under way."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Jobs under way."""
        return len(self._under_way)

    @property
    def alive(self) -> bool:
        """True while jobs are accepted and somebody is there to run them."""
        return not self.died and not self._closed

    @property
    def died(self) -> bool:
        """The worker's thread has ended, and nobody asked it to."""
        return self._died or (not self._thread.is_alive() and not self._closed)

    def stats(self) -> dict[str, Any]:
        """What waits, oldest first, and what has come of the others. It names no tenant."""
        with self._changed:
            now = self.clock.monotonic()
            waiting = [
                {
                    "position": place,
                    "seconds": round(now - ticket.since, 3),
                    "tokens": ticket.demand.tokens,
                    "known_tokens": ticket.demand.known(),
                }
                for place, ticket in enumerate(self._line, start=1)
            ]
            return {
                "under_way": self.running,
                "ahead": len(self._ahead),
                "sequences": self.sequences,
                "max_waiting": self.max_waiting,
                "waiting_tokens": self._line.tokens,
                "max_waiting_tokens": self._line.max_tokens,
                "longest_wait_seconds": round(self._longest_wait, 3),
                "mean_seconds": round(self._mean_seconds, 3),
                "refused": self._refused,
                "late": self._late,
                "waiting": waiting,
            }

    def resize(
        self,
        *,
        max_waiting: int | None = None,
        sequences: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Change bounds; what waits or is under way beyond them is served all the same."""
        with self._changed:
            if max_waiting is not None:
                self.max_waiting = max_waiting
            if sequences is not None:
                self.sequences = sequences
            if max_tokens is not None:
                self._line.max_tokens = max_tokens
            self._changed.notify_all()

    def wait_until(self, holds: Callable[[Scheduler], bool], timeout: float) -> bool:
        """Wait until `holds(self)`, at most `timeout` seconds; true if that came.

        It is asked whenever a job enters the line, leaves it, begins or ends.
        """
        with self._changed:
            return self._changed.wait_for(lambda: holds(self), timeout)

    def cancel_all(self) -> None:
        """Cancel what runs and what waits; new jobs are still accepted."""
        with self._changed:
            tickets = [*self._line, *self._under_way, *self._ahead]
        for ticket in tickets:
            ticket.cancel()

    def end_ahead(self) -> None:
        """Read nothing ahead of time any more; what it kept stays. Idempotent."""
        with self._changed:
            self._takes_none_ahead = True
            tickets = list(self._ahead)
        for ticket in tickets:
            ticket.cancel()

    def close(self) -> None:
        """Accept nothing more, finish what runs and waits, end the thread. Idempotent."""
        self.end_ahead()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    # -- the line ------------------------------------------------------------------------------

    def _make_room(self, demand: Demand) -> list[Ticket]:
        """Those that are pushed out for it. Raises Busy where nobody may be."""
        pushed_out: list[Ticket] = []
        while why := self._why_full(demand):
            other = self._line.to_push_out(demand.tenant)
            self._refused += 1
            if other is None:
                for ticket in reversed(pushed_out):  # in vain: they keep their places
                    self._line.add(ticket)
                raise self._busy(why)
            self._line.remove(other)
            pushed_out.append(other)
        return pushed_out

    def _why_full(self, demand: Demand) -> str:
        """Empty where it is not."""
        # The line is one longer while nothing runs, whose first is about to begin.
        if len(self._line) + bool(self.running) > self.max_waiting:
            return f"{self.max_waiting} requests are waiting, which is as many as may"
        if not self._line.has_room(demand.tokens):
            most, held = self._line.max_tokens, self._line.tokens
            return f"prompts of {held} tokens are waiting; {most} may, and this has {demand.tokens}"
        return ""

    def _busy(self, why: str = "a request of another client took the place of this one") -> Busy:
        seconds = math.ceil(self._mean_seconds * (len(self._line) + self.running))
        return Busy(why, max(1, min(seconds, _LONGEST_RETRY_SECONDS)))

    def leave(self, ticket: Ticket) -> None:
        """For `Ticket.cancel`."""
        with self._changed:
            waited = (self._ahead if ticket.is_ahead else self._line).remove(ticket)
            self._changed.notify_all()
        if waited:
            ticket.dropped(_given_up())

    # -- the worker ----------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (ticket := self._next()) is not None:
                self._take_turn(ticket)
        except BaseException as died:  # whatever ends the thread must not leave anybody waiting
            _logger.critical("the thread that runs the model has died", exc_info=died)
            self._die()

    def _next(self) -> Ticket | None:
        """Whose turn it is; None where there is nothing left to do. Waits for a job."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                late = self._take_out_late()
                self._begin_one()
                ticket = self._under_way[0] if self._under_way else None
                self._under_way.rotate(-1)
                in_the_way = None
                if ticket is None and not self._line:
                    self._take_up_spare()
                    ticket = self._ahead.next(self.clock.monotonic())
                else:
                    in_the_way = self._ahead.put_back()
                over = ticket is None and not self._line and self._closed
            for other in late:
                other.dropped(self._lateness())
            if in_the_way is not None:
                self._wait_again(in_the_way)
            if ticket is not None or over:
                return ticket

    def _has_work(self) -> bool:
        there = self._line or self._under_way or len(self._ahead) or self._closed
        return bool(there or self._has_spare())

    def _has_spare(self) -> bool:
        return self._spare is not None and not self._takes_none_ahead and bool(self._spare.waiting)

    def _take_up_spare(self) -> None:
        """What the server itself wants done, where nothing is read ahead: nobody is told of it."""
        if self._spare is not None and not len(self._ahead) and self._has_spare():
            run, nobody = self._spare.steps, lambda why: None
            self._ahead.add(Ticket(self, run, nobody, _NOBODY, is_ahead=True))

    def _wait_again(self, ticket: Ticket) -> None:
        """What was read ahead gives its memory to those who wait for answers, and its blocks to
        whoever wants them; it goes on behind those that are still there.
        """
        closed(ticket)
        ticket.begin()
        with self._changed:
            if not ticket.cancelled():
                self._ahead.add(ticket)
                return
        ticket.dropped(_given_up())

    def _take_out_late(self) -> list[Ticket]:
        late = [ticket for ticket in self._line if self._is_late(ticket)]
        for ticket in late:
            self._line.remove(ticket)
        return late

    def _lateness(self) -> Late:
        self._late += 1
        return Late(f"no answer within {self._deadline:g} seconds")

    def _is_late(self, ticket: Ticket) -> bool:
        return self.clock.monotonic() - ticket.since >= self._deadline

    def _begin_one(self) -> None:
        """Let the next job begin, where there is a place and no prompt is being read."""
        free = self.sequences - self.running
        if free < 1 or any(ticket.reading for ticket in self._under_way):
            return
        here = {ticket.demand.tenant for ticket in self._under_way}
        now = self.clock.monotonic()
        ticket = self._line.next(now, here if free == 1 and len(here) == 1 else ())
        if ticket is None:
            return
        self._longest_wait = max(self._longest_wait, now - ticket.since)
        self._under_way.appendleft(ticket)
        self._changed.notify_all()

    def _take_turn(self, ticket: Ticket) -> None:
        if ticket.cancelled() or (self._is_late(ticket) and not ticket.is_ahead):
            self._end(ticket)
            ticket.dropped(_given_up() if ticket.cancelled() else self._lateness())
            return
        began = self.clock.monotonic()
        try:
            turn = next(ticket.steps, None)
        except Exception:
            # One job's failure is that job's; the next one must still be served.
            _logger.exception("a job failed")
            turn = None
        ticket.seconds += self.clock.monotonic() - began
        if turn is None:
            self._finished(ticket)
            return
        ticket.reading = not turn.made
        with self._changed:
            if ticket.is_ahead:
                self._ahead.charge(ticket, turn.read)
            else:
                self._line.shares.charge(ticket.demand.tenant, turn.read, turn.made)

    def _finished(self, ticket: Ticket) -> None:
        if not ticket.is_ahead:
            with self._changed:
                self._mean_seconds += _LATEST_WEIGHT * (ticket.seconds - self._mean_seconds)
        self._end(ticket)

    def _end(self, ticket: Ticket) -> None:
        """Free its place, and what its iterator holds."""
        closed(ticket)
        with self._changed:
            if ticket.is_ahead:
                self._ahead.ended(ticket)
            else:
                self._under_way.remove(ticket)
                here = {other.demand.tenant for other in (*self._line, *self._under_way)}
                self._line.shares.forget(here)
            self._changed.notify_all()

    def _die(self) -> None:
        with self._changed:
            self._died = True
            tickets = [*self._line, *self._under_way, *self._ahead]
            for ticket in tickets:
                self._line.remove(ticket)
            self._under_way.clear()
            self._ahead = Ahead()
            self._changed.notify_all()
        for ticket in tickets:
            with suppress(Exception):
                ticket.dropped(WorkerDied("the thread that runs the model has died"))


def _given_up() -> Stopped:
    return Stopped("the request was given up")
