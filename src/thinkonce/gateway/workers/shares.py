"""What a client may do, counted over all workers: each takes out of the same bucket."""

from __future__ import annotations

from collections.abc import Callable

from thinkonce.clock import Clock
from thinkonce.gateway.allowance import Allowance
from thinkonce.gateway.quota import Quota
from thinkonce.gateway.workers.board import Cell

__all__ = ("SharedAllowance", "SharedQuota")


class SharedAllowance(Allowance):
    """As `Allowance`, but what is left, and since when, lies in a cell.

    The clock's monotonic time is the host's, so that workers agree on it.
    """

    __slots__ = ("_cell",)

    def __init__(self, per_minute: int, clock: Clock, cell: Cell) -> None:
        super().__init__(per_minute, clock)
        self._cell = cell

    def has_one(self) -> bool:
        self._left, self._at = self._cell.read()
        return super().has_one()

    def take(self) -> bool:
        with self._cell.held():
            taken = super().take()
            self._cell.write(self._left, self._at)
        return taken


class SharedQuota(Quota):
    """As `Quota`; the cell holds all bytes that any worker has taken, ever.

    What was taken since this worker measured is added to what it measured, whoever took it.
    """

    def __init__(self, most: int, measure: Callable[[], int], clock: Clock, cell: Cell) -> None:
        super().__init__(most, measure, clock)
        self._cell, self._since = cell, cell.read()[0]

    def has_room(self, size: int) -> bool:
        taken = self._cell.read()[0] - self._since
        return self._used + taken + size <= self.most

    def takes(self, size: int) -> bool:
        with self._cell.held():
            self.refused = not self.has_room(size)
            if not self.refused:
                self._cell.write(self._cell.read()[0] + size, 0.0)
        return not self.refused

    async def refresh(self) -> bool:
        before = self._cell.read()[0]
        measured = await super().refresh()
        if measured:
            self._since = before
        return measured
