"""Short calls that may wait for a disk, made beside the event loop: as many at a time as came.

    call ─┐                          ┌─► its future
    call ─┼─► one turn of a thread ──┼─► its future
    call ─┘   (while others come)    └─► its future

Going to a thread and back costs ten times what a look into the store does, so those that come
while the loop is busy go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ("LANES", "Aside")

T = TypeVar("T")

# Turns under way at a time: where one waits for the disk, the next need not wait for it.
LANES = 4

Job = tuple[Callable[[], Any], asyncio.Future[Any]]


class Aside:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._turns = 0
        self._is_due = False  # the next turn begins once the loop is through with what it has

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises, in a thread, without any context of the caller's."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, future))
        self._plan(loop)
        return await future

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and not self._is_due and self._turns < LANES:
            self._is_due = True
            loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs, self._waiting, self._is_due = self._waiting, [], False
        self._turns += 1
        turn = loop.run_in_executor(None, _made, [work for work, _ in jobs])

        def end(turn: asyncio.Future[list[_Outcome]]) -> None:
            self._turns -= 1
            self._plan(loop)
            _tell([future for _, future in jobs], turn)

        turn.add_done_callback(end)


_Outcome = tuple[Any, BaseException | None]


def _made(works: list[Callable[[], Any]]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for work in works:
        try:
            outcomes.append((work(), None))
        except Exception as error:
            outcomes.append((None, error))
    return outcomes


def _tell(futures: list[asyncio.Future[Any]], turn: asyncio.Future[list[_Outcome]]) -> None:
    failure = asyncio.CancelledError() if turn.cancelled() else turn.exception()
    outcomes = turn.result() if failure is None else [(None, failure)] * len(futures)
    for future, (result, error) in zip(futures, outcomes, strict=True):
        if future.done():  # who asked has left
            continue
        if error is None:
            future.set_result(result)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
