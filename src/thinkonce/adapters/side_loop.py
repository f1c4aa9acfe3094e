"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from thinkonce.errors import UpstreamError
from thinkonce.host.fork import free_after_fork, on_fork

__all__ = ("SideLoop",)

T = TypeVar("T")
Held = TypeVar("Held")

# What is under way gets so long to end when the loop is closed, seconds.
CLOSING_SECONDS = 5.0


class SideLoop(Generic[Held]):
    """Thread-safe. `make` makes what lives on the loop, which begins with the first call.

    Once closed it stays so. A forked child has none of its parent's threads and begins anew.
    """

    def __init__(self, make: Callable[[], Held]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread, Held] | None = None
        self._is_closed = False
        self._end: weakref.finalize[Any, Any] | None = None
        on_fork(self._in_child)

    def run(self, work: Callable[[Held], Coroutine[Any, Any, T]]) -> T:
        """What `work` gives, in the caller's context. An interrupted caller cancels it.

        Raises UpstreamError once the loop is closed.
        """
        loop, _, held = self._started()
        doing = self._begin(work(held), loop)
        try:
            return doing.result()
        except CancelledError:
            raise _closed() from None
        except BaseException:
            doing.cancel()
            raise

    def soon(self, what: Callable[[], object]) -> None:
        """Call `what` on the loop, if it runs; do not wait for it."""
        running = self._running
        if running is not None:
            with suppress(RuntimeError):
                running[0].call_soon_threadsafe(what)

    def close(self, last: Callable[[Held], Coroutine[Any, Any, None]]) -> None:
        """End the loop behind `last`."""
        with self._lock:
            running, self._running = self._running, None
            self._is_closed = True
        if running is None:
            return
        loop, thread, held = running
        doing = asyncio.run_coroutine_threadsafe(last(held), loop)
        with suppress(Exception, CancelledError):
            doing.result(CLOSING_SECONDS)
        if self._end is not None:
            self._end()
        thread.join(CLOSING_SECONDS)

    def _begin(self, doing: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Future[T]:
        # What is begun before `close` takes the lock is ahead of the loop's end, which cancels it.
        with self._lock:
            if not self._is_closed:
                return asyncio.run_coroutine_threadsafe(doing, loop)
        doing.close()
        raise _closed()

    def _started(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread, Held]:
        running = self._running
        if running is not None:
            return running
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._running is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_work, args=(loop,), name="thinkonce-transport", daemon=True
                )
                thread.start()
                self._end = weakref.finalize(self, _stop, loop)
                self._running = loop, thread, self._make()
            return self._running

    def _in_child(self) -> None:
        free_after_fork(self._lock)
        self._running = None
        if self._end is not None:
            self._end.detach()


def _work(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


def _closed() -> UpstreamError:
    return UpstreamError("the transport was closed")


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
