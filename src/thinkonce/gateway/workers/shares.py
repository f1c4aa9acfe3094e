"""What a client may do, counted over all workers: each takes out of the same bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from thinkonce.clock import Clock
from thinkonce.gateway.quota import Quota
from thinkonce.gateway.workers.board import Board, Cell
from thinkonce.settings import Client, Upstream
from thinkonce.upstream.room import CLIENTS, Room
from thinkonce.web.allowance import Allowance

__all__ = (
    "SharedAllowance",
    "SharedQuota",
    "SharedRoom",
    "bounded_clients",
    "bounded_servers",
    "give_back_all",
    "shared_room",
)


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


class SharedRoom(Room):
    """As `Room`, counted over all workers: each has a cell of its own among `cells`.

    `gate` is held while they are added up, so that two workers do not take the last place.
    """

    is_shared = True

    def __init__(self, most: int, own: Cell, cells: Sequence[Cell], gate: Cell) -> None:
        super().__init__(most)
        self._own, self._cells, self._gate = own, cells, gate

    @property
    def busy(self) -> int:
        return int(self._own.read()[0])

    def has_one(self) -> bool:
        return sum(cell.read()[0] for cell in self._cells) < self.most

    def take(self) -> bool:
        with self._gate.held():
            if not self.has_one():
                return False
            self._own.write(self._own.read()[0] + 1, 0.0)
            return True

    def give_back(self) -> None:
        self._own.write(self._own.read()[0] - 1, 0.0)


def shared_room(
    board: Board, pool: str, url: str, most: int, place: int, workers: int
) -> SharedRoom | None:
    """None where the board is full."""
    cells = [_busy_cell(board, pool, url, other) for other in range(workers)]
    own, gate = cells[place], board.cell(f"gate {pool} {url}")
    there = [cell for cell in cells if cell is not None]
    if own is None or gate is None or len(there) < workers:
        return None
    return SharedRoom(most, own, there, gate)


def bounded_servers(upstreams: Mapping[str, Upstream]) -> set[tuple[str, str]]:
    """Pool and URL of the servers whose requests are counted."""
    return {
        (name, url)
        for name, upstream in upstreams.items()
        for url in (upstream.urls if upstream.max_concurrent is not None else ())
    }


def bounded_clients(clients: Mapping[str, Client]) -> set[tuple[str, str]]:
    """As `bounded_servers`, the clients whose requests are counted."""
    return {
        (CLIENTS, f"{name} {row.key_sha256}")
        for name, row in clients.items()
        if row.max_concurrent is not None
    }


def give_back_all(board: Board, rooms: Iterable[tuple[str, str]], place: int) -> None:
    """Free what a worker that is not there any more had taken of these rooms."""
    for pool, url in rooms:
        cell = _busy_cell(board, pool, url, place)
        if cell is not None:
            cell.write(0.0, 0.0)


def _busy_cell(board: Board, pool: str, url: str, place: int) -> Cell | None:
    """Where the worker at `place` counts its requests to a server."""
    return board.cell(f"busy {place} {pool} {url}")
