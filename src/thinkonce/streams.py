"""One generator for many readers: whoever needs the next item first pulls it for all.

No thread and no task of its own drives the source, so a reader that stops does not stop the
others, and a reader that is slow does not hold them up. When the last reader leaves before the
end, the source is closed and nothing is kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

__all__ = ("Joined", "SharedAsyncStream", "SharedStream")


class SharedStream:
    """Readers in any thread; each says `join`, then iterates `read` to the end or closes it.

    `ended` gets all items once the source is exhausted; `left` is called when the stream is
    over, one way or the other.
    """

    def __init__(
        self,
        source: Iterator[Any],
        ended: Callable[[list[Any]], None],
        left: Callable[[], None],
    ) -> None:
        self._source, self._ended, self._left = source, ended, left
        self._items: list[Any] = []
        self._over = self._abandoned = False
        self._error: BaseException | None = None
        self._readers = 0
        self._lock = threading.Lock()

    def join(self) -> bool:
        """Register a reader; False if the last one has just left before the end."""
        with self._lock:
            if self._abandoned:
                return False
            self._readers += 1
            return True

    def read(self) -> Generator[Any]:
        """Every item from the first. Raises what the source raised, for every reader."""
        position = 0
        try:
            while position < len(self._items) or self._pull(position):
                yield self._items[position]
                position += 1
        finally:
            self._leave()

    def _pull(self, position: int) -> bool:
        """Make sure that the item at `position` is there; False at the end."""
        with self._lock:
            if position < len(self._items):
                return True
            if self._error is not None:
                raise self._error
            return not self._over and self._advance()

    def _advance(self) -> bool:
        try:
            self._items.append(next(self._source))
        except StopIteration:
            self._over = True
            self._left()
            self._ended(self._items)
            return False
        except BaseException as error:
            self._over, self._error = True, error
            self._left()
            raise
        return True

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers or self._over:
                return
            self._over = self._abandoned = True
            self._left()
        if isinstance(self._source, Generator):
            self._source.close()


class SharedAsyncStream:
    """The same for asyncio; all readers on one event loop.

    Each pull is a task of its own, so that cancelling the reader that began it does not cancel
    it for the others.
    """

    def __init__(
        self,
        source: AsyncIterator[Any],
        ended: Callable[[list[Any]], None],
        left: Callable[[], None],
    ) -> None:
        self._source, self._ended, self._left = source, ended, left
        self._items: list[Any] = []
        self._over = self._abandoned = False
        self._error: BaseException | None = None
        self._readers = 0
        self._pulling: asyncio.Task[None] | None = None

    def join(self) -> bool:
        """Register a reader; False if the last one has just left before the end."""
        self._readers += not self._abandoned
        return not self._abandoned

    async def read(self) -> AsyncGenerator[Any]:
        """Every item from the first. Raises what the source raised, for every reader."""
        position = 0
        try:
            while await self._pull(position):
                yield self._items[position]
                position += 1
        finally:
            await self._leave()

    async def _pull(self, position: int) -> bool:
        while position >= len(self._items):
            if self._error is not None:
                raise self._error
            if self._over:
                return False
            if self._pulling is None:
                self._pulling = asyncio.create_task(self._advance())
            await asyncio.shield(self._pulling)
        return True

    async def _advance(self) -> None:
        try:
            self._items.append(await anext(self._source))
        except StopAsyncIteration:
            self._over = True
            self._left()
            self._ended(self._items)
        except BaseException as error:
            self._over, self._error = True, error
            self._left()
        finally:
            self._pulling = None

    async def _leave(self) -> None:
        self._readers -= 1
        if self._readers or self._over:
            return
        self._over = self._abandoned = True
        self._left()
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()


class Joined:
    """A stream that another caller began; tells the readers who came later from the first."""

    __slots__ = ("read",)

    def __init__(self, stream: SharedStream | SharedAsyncStream) -> None:
        self.read = stream.read
