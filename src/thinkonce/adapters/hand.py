"""A thread that does one blocking call of an event loop's, step by step.

A daemon, so that a provider that never answers does not keep a program from ending; of its own,
because a pool of them would bound how many calls may be under way.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

__all__ = ("Hand",)

T = TypeVar("T")


class Hand:
    """Belongs to the loop and the context it was made in. End it with `let_go`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        run = contextvars.copy_context().run
        name = "thinkonce-upstream"
        threading.Thread(target=run, args=(_work, self._orders), name=name, daemon=True).start()

    async def do(self, step: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """What `step` gives. Where nobody waits for it any more, it goes on, and `undo` gets it."""
        told: asyncio.Future[T] = self._loop.create_future()

        def settle(made: T | None, error: Exception | None) -> None:
            if not told.cancelled():
                _set(told, made, error)
            elif error is None and undo is not None:
                undo(made)  # type: ignore[arg-type]

        def order() -> None:
            made, error = _result_of(step)
            try:
                self._loop.call_soon_threadsafe(settle, made, error)
            except RuntimeError:  # the loop is closed: nobody waits
                if error is None and undo is not None:
                    undo(made)  # type: ignore[arg-type]

        self._orders.put(order)
        return await told

    def let_go(self, last: Callable[[], object] | None = None) -> None:
        """Do `last` behind what was begun, and end."""
        if last is not None:
            self._orders.put(last)
        self._orders.put(None)


def _work(orders: SimpleQueue[Callable[[], object] | None]) -> None:
    while (order := orders.get()) is not None:
        with suppress(Exception):
            order()


def _result_of(step: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return step(), None
    except (StopIteration, SystemExit, KeyboardInterrupt) as error:
        return None, RuntimeError(f"{type(error).__name__} out of a transport: {error}")
    except Exception as error:
        return None, error


def _set(told: asyncio.Future[T], made: T | None, error: Exception | None) -> None:
    if error is not None:
        told.set_exception(error)
    else:
        told.set_result(made)  # type: ignore[arg-type]
