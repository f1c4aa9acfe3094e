"""One generator for many readers: whoever needs the next item first has it made for all.

    source ──► take ──► items ──► reader A      each item is taken into keeping as it comes, so
                          │                     that no reader can change what others get
                          ├─────► reader B
                          └─ at the end ──► ended(all items) ──► left()

Nothing is made that no reader asked for. A reader that stops does not stop the others, and one
that is slow does not hold them up; when the last leaves before the end, the source is closed and
nothing is kept. A source that reads its own stream would wait for itself: that reader calls the
source anew instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from thinkonce.errors import UpstreamError
from thinkonce.landing import own_copy
from thinkonce.leading import Leading, current, enter, leave, may_wait, stop_waiting
from thinkonce.values import Kept

__all__ = ("Joined", "SharedAsyncStream", "SharedStream", "Spring")

S = TypeVar("S")
END, READY = object(), object()


class _Circle(Exception):
    """Waiting for the next item would be waiting for oneself."""


@dataclass(frozen=True, slots=True)
class Spring(Generic[S]):
    """Where a stream comes from and what becomes of it.

    `open` begins the source; `take` keeps one item; `ended` gets all items once the source is
    exhausted, before `left` says that the stream is over, one way or the other.
    """

    open: Callable[[], S]
    take: Callable[[Any], Kept]
    ended: Callable[[list[Any]], object]
    left: Callable[[], None]
    epoch: int = 0  # the purge epoch under which it was opened


class SharedStream:
    """Readers in any thread; each says `join`, then iterates `read` to the end or closes it."""

    def __init__(self, spring: Spring[Iterator[Any]]) -> None:
        self.spring = spring
        self._source = spring.open()
        self._items: list[Kept] = []
        self._over = self._abandoned = False
        self._error: BaseException | None = None
        self._readers = 0
        self._puller: Leading | None = None  # who waits for the source now
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting = 0  # readers who wait for news

    def join(self) -> bool:
        """Register a reader; False if the last one has just left before the end."""
        with self._lock:
            self._readers += not self._abandoned
            return not self._abandoned

    def read(self) -> Generator[Any]:
        """Every item from the first. Raises what the source raised, for every reader."""
        position = 0
        try:
            while (item := self._at(position)) is not END:
                yield _given(self._items[position]) if item is READY else item
                position += 1
        except _Circle:
            _refuse_after(position)
            yield from self.spring.open()
        finally:
            self._leave()

    def _at(self, position: int) -> Any:
        """READY if the item at `position` is there, else the item itself, just made; END."""
        with self._lock:
            while self._puller is not None and position >= len(self._items):
                self._wait(self._puller)
            if position < len(self._items):
                return READY
            if self._error is not None:
                raise own_copy(self._error)
            if self._over:
                return END
            self._puller = leading = Leading(current(), threading.get_ident())
        enter(leading)
        try:
            return self._advance()
        finally:
            leave(leading)
            with self._lock:
                self._puller = None
                if self._waiting:
                    self._news.notify_all()

    def _wait(self, puller: Leading) -> None:
        me = current()
        if puller.thread == threading.get_ident() or not may_wait(me, puller):
            raise _Circle
        self._waiting += 1
        try:
            self._news.wait()
        finally:
            self._waiting -= 1
            stop_waiting(me, puller)

    def _advance(self) -> Any:
        try:
            item = next(self._source)
        except StopIteration:
            return self._end()
        except BaseException as error:
            self._fail(error)
            raise
        try:
            self._items.append(self.spring.take(item))
        except BaseException as error:
            self._fail(error)
            _close(self._source)
            raise
        return item

    def _end(self) -> object:
        try:
            self.spring.ended([_given(kept) for kept in self._items])
        except BaseException as error:
            self._fail(error)
            raise
        self._over = True
        self.spring.left()
        return END

    def _fail(self, error: BaseException) -> None:
        self._over, self._error = True, error
        self.spring.left()

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers or self._over:
                return
            self._over = self._abandoned = True
        self.spring.left()
        _close(self._source)


class SharedAsyncStream:
    """The same for asyncio; all readers on one event loop.

    One task runs the source from beginning to end, so that timeouts and context variables in it
    hold across its items, and cancelling a reader does not cancel it for the others.
    """

    def __init__(self, spring: Spring[AsyncIterator[Any]]) -> None:
        self.spring = spring
        self._source = spring.open()
        self._items: list[Kept] = []
        self._over = self._abandoned = False
        self._error: BaseException | None = None
        self._readers = 0
        self._wanted = 0  # how many items readers have asked for
        self._demand = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        self._leading: Leading | None = None
        self._driver: asyncio.Task[None] | None = None

    def join(self) -> bool:
        """Register a reader; False if the last one has just left before the end."""
        self._readers += not self._abandoned
        return not self._abandoned

    async def read(self) -> AsyncGenerator[Any]:
        """Every item from the first. Raises what the source raised, for every reader."""
        position = 0
        try:
            while await self._has(position):
                yield _given(self._items[position])
                position += 1
        except _Circle:
            _refuse_after(position)
            async for item in self.spring.open():
                yield item
        finally:
            await self._leave()

    async def _has(self, position: int) -> bool:
        while position >= len(self._items):
            if self._error is not None:
                raise own_copy(self._error)
            if self._over:
                return False
            await self._news_after(position)
        return True

    async def _news_after(self, position: int) -> None:
        me = current()
        if self._driver is None:
            self._leading = Leading(me, threading.get_ident())
            self._driver = asyncio.create_task(self._drive(self._leading))
        assert self._leading is not None
        if not may_wait(me, self._leading):
            raise _Circle
        self._wanted = max(self._wanted, position + 1)
        self._demand.set()
        news = asyncio.get_running_loop().create_future()
        self._waiting.add(news)
        try:
            await news
        finally:
            self._waiting.discard(news)
            stop_waiting(me, self._leading)

    async def _drive(self, leading: Leading) -> None:
        enter(leading)
        try:
            async for item in self._source:
                self._items.append(self.spring.take(item))
                self._tell()
                while self._wanted <= len(self._items):
                    self._demand.clear()
                    await self._demand.wait()
            self.spring.ended([_given(kept) for kept in self._items])
        except BaseException as error:
            self._error = error
        self._over = True
        leave(leading)
        self.spring.left()
        self._tell()
        await _aclose(self._source)

    def _tell(self) -> None:
        for news in self._waiting:
            if not news.done():
                news.set_result(None)

    async def _leave(self) -> None:
        self._readers -= 1
        if self._readers or self._over:
            return
        self._over = self._abandoned = True
        self.spring.left()
        if self._driver is None:
            await _aclose(self._source)
            return
        self._driver.cancel()
        await asyncio.wait([self._driver])


class Joined:
    """A stream that another caller began; tells the readers who came later from the first."""

    __slots__ = ("read",)

    def __init__(self, stream: SharedStream | SharedAsyncStream) -> None:
        self.read = stream.read


def _given(kept: Kept) -> Any:
    return kept.payload if kept.thaw is None else kept.thaw(kept.payload)


def _refuse_after(position: int) -> None:
    if position:
        raise UpstreamError(f"after item {position} the stream would wait for itself")


def _close(source: Iterator[Any]) -> None:
    if isinstance(source, Generator):
        source.close()


async def _aclose(source: AsyncIterator[Any]) -> None:
    if isinstance(source, AsyncGenerator):
        await source.aclose()
