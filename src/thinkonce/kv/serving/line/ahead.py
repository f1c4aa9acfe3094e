"""Jobs that run while no answer is under way and none waits: prompts that are read ahead of time.

answers   ──────────┤        ├───────────┤            ├─────
ahead               ├── A ──┤            ├─ A ─┤─ B ──┤
                             put back: what it kept is there when it goes on
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from thinkonce.kv.serving.line.line import Line
from thinkonce.kv.serving.line.ticket import Ticket, Turn

__all__ = ("Ahead", "Spare", "closed")

_logger = logging.getLogger("thinkonce.kv")

# Of each tenant its oldest is next, whatever is known of it.
_NO_PATIENCE = 0.0


class Spare(Protocol):
    """What the server itself wants done while nothing is to be read ahead either."""

    @property
    def waiting(self) -> int:
        """How much of it there is; from any thread."""
        ...

    def steps(self, cancelled: Callable[[], bool]) -> Iterator[Turn]:
        """Do it by turns, on the worker's thread. Closed, it may be begun anew."""
        ...


class Ahead:
    """Those that wait, and the one that has begun. Not thread-safe."""

    def __init__(self) -> None:
        self._line: Line[Ticket] = Line(2**62, _NO_PATIENCE)
        self._begun: Ticket | None = None

    def __len__(self) -> int:
        return len(self._line) + (self._begun is not None)

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._line if self._begun is None else (self._begun, *self._line)

    def add(self, ticket: Ticket) -> None:
        self._line.add(ticket)

    def next(self, now: float) -> Ticket | None:
        """The one whose turn it is."""
        self._begun = self._begun or self._line.next(now)
        return self._begun

    def charge(self, ticket: Ticket, read: int) -> None:
        self._line.shares.charge(ticket.demand.tenant, read, 0)

    def put_back(self) -> Ticket | None:
        """The one that has begun waits again. Whoever calls this closes its iterator, lets it
        begin anew, and adds it.
        """
        begun, self._begun = self._begun, None
        return begun

    def remove(self, ticket: Ticket) -> bool:
        """Of those that wait; False where it does not."""
        return self._line.remove(ticket)

    def ended(self, ticket: Ticket) -> None:
        if self._begun is ticket:
            self._begun = None
        self._line.shares.forget({other.demand.tenant for other in self})

    def clear(self) -> list[Ticket]:
        """Those that waited: they do not wait any more."""
        waiting = list(self._line)
        for ticket in waiting:
            self._line.remove(ticket)
        return waiting


def closed(ticket: Ticket) -> None:
    """Free what its iterator holds; a failure there is the job's own."""
    close = getattr(ticket.steps, "close", None)
    try:
        if close is not None:
            close()
    except Exception:
        _logger.exception("a job failed")
