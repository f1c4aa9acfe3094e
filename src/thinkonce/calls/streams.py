"""A decorated generator as the source of a flight: made by whoever needs the next item first.

    reader ──► pull ──► generator ──► take ──► publish ──► Flight ──► readers in this process
    reader elsewhere ──► WANT ──► helper thread ──► pull     └─────► frames ──► readers elsewhere
                                  at the end ──► ended(all items) ──► land

Nothing is made that no reader asked for, here or in another process. Each item is taken into
keeping as it comes, so that no reader can change what others get. A reader that stops does not
stop the others, and one that is slow does not hold them up; when the last leaves before the end,
the source is closed and nothing is kept. A source that reads its own stream would wait for
itself: that reader calls the source anew instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from thinkonce.entry import Entry
from thinkonce.errors import UpstreamError
from thinkonce.flights.flight import Flight
from thinkonce.flights.landing import ABANDONED, IN_CIRCLE, Fate, Landing
from thinkonce.flights.leading import Leading, Role, current, enter, leave
from thinkonce.flights.seat import Seat
from thinkonce.steps import Answer, Made
from thinkonce.values import Kept, keep

__all__ = ("ENDED", "Reader", "SharedStream", "Spring", "heard", "must_call", "rest_of")

log = logging.getLogger("thinkonce")
S = TypeVar("S")
ENDED = keep(None)  # what a stream lands with: its items have been published


@dataclass(frozen=True, slots=True)
class Spring(Generic[S]):
    """Where a stream comes from and what becomes of it.

    `open` begins the source; `take` keeps one item; `ended` gets all items once the source is
    exhausted; `stored` is the answer if it has come in meanwhile. `thaw` takes the place of what
    rebuilds an item, where the function has a serializer of its own.
    """

    open: Callable[[], S]
    take: Callable[[Any], Kept]
    ended: Callable[[list[Any]], object]
    stored: Callable[[], Answer | None]
    thaw: Callable[[Any], Any] | None = None

    def give(self, kept: Kept) -> Any:
        """An item for one reader."""
        thaw = kept.thaw and (self.thaw or kept.thaw)
        return kept.payload if thaw is None else thaw(kept.payload)

    def items(self, entry: Entry) -> list[Any]:
        """The items of a recorded stream, for one reader."""
        thaw = entry.thaw and (self.thaw or entry.thaw)
        return list(entry.payload if thaw is None else thaw(entry.payload))

    def end(self, flight: Flight) -> None:
        """All items of `flight` are there: keep them."""
        kept = flight.take(0)
        self.ended([self.give(item) for item in kept] if isinstance(kept, list) else [])


class SharedStream:
    """Readers in threads pull in turn; one thread pulls for the readers in other processes."""

    def __init__(self, seat: Seat, spring: Spring[Iterator[Any]]) -> None:
        assert seat.flight is not None
        self.flight = flight = seat.flight
        self._seat, self._spring = seat, spring
        self._source: Iterator[Any] | None = None
        self._puller: Leading | None = None  # who waits for the source now
        self._is_closed = False
        self._made = self._wanted = 0
        self._context = copy_context()
        self._helper: threading.Thread | None = None
        self._call = threading.Event()  # for the helper
        self._lock = threading.Lock()
        leave(flight.leader)  # whoever pulls leads, and only as long as it pulls
        flight.rests = True
        flight.draw_from(self)

    def make(self, seat: Seat, position: int) -> Iterator[Any] | Landing:
        """The item at `position`, if it is for this thread to make it.

        Otherwise wait until somebody has; nothing then, and at the end: look into the flight.
        """
        puller = self._puller
        if puller is None:
            return iter(self._pull(position))
        if puller.thread == threading.get_ident():
            return IN_CIRCLE
        with seat.waiting_for(puller) as may_wait:
            if may_wait:
                self.flight.read(position, unless=lambda: self._puller is not puller)
        return iter(()) if may_wait else IN_CIRCLE

    def left(self) -> None:
        """A reader has left; the last one closes the source, if it has not ended."""
        flight = self.flight
        if flight.landing is None and flight.end_if_deserted(ABANDONED):
            self._seat.abandon()
            self._retire()

    # -- readers in other processes -----------------------------------------------------

    def want(self, count: int) -> None:
        self._wanted = max(self._wanted, count)
        self._call_helper()

    def deserted(self) -> None:
        if self.flight.landing is None:
            self._call_helper()

    def _call_helper(self) -> None:
        with self._lock:
            if self._helper is None and not self._is_closed:
                run = self._context.run
                self._helper = threading.Thread(
                    target=run, args=(self._help,), name="thinkonce-stream", daemon=True
                )
                try:
                    self._helper.start()
                except RuntimeError as error:  # no more threads: who waits elsewhere gives up
                    self._helper = None
                    log.warning("stream not shared: %s", error)
        self._call.set()

    def _help(self) -> None:
        enter(None)  # it pulls for others, and waits for nobody on behalf of whoever opened this
        flight = self.flight
        while flight.landing is None:
            self._call.clear()
            position = self._made
            if not flight.followers:
                self.left()
            elif position >= self._wanted:
                self._call.wait()
            elif not self._pull_quietly(position):
                flight.read(position, unless=lambda: self._puller is None)

    def _pull_quietly(self, position: int) -> bool:
        try:
            return bool(self._pull(position))
        except BaseException:
            return True  # every reader was told

    # -- making an item -----------------------------------------------------------------

    def _pull(self, position: int) -> list[Any]:
        """The item at `position`, made now; [] if somebody else came first, and at the end."""
        flight = self.flight
        with self._lock:
            if self._puller is not None or self._is_closed or flight.take(position):
                return []
            self._puller = leading = Leading(current(), threading.get_ident())
        leading.claim = flight.claim
        flight.leader = leading
        flight.begin_work()
        enter(leading)
        try:
            return self._advance()
        finally:
            leave(leading)
            flight.rests = True
            self._puller = None
            flight.poke()
            if flight.landing is not None:
                self._retire()

    def _advance(self) -> list[Any]:
        try:
            if self._source is None:
                self._source = self._spring.open()
            try:
                item = next(self._source)
            except StopIteration:
                self._spring.end(self.flight)
                self._seat.land(ENDED)
                return []
            kept = self._spring.take(item)
        except BaseException as error:
            self._seat.fail(error)
            raise
        self._made += 1
        self._seat.publish(kept)
        return [item]

    def _retire(self) -> None:
        """The flight has ended: close the source, unless it runs; whoever runs it comes here."""
        with self._lock:
            if self._puller is not None or self._is_closed:
                return
            self._is_closed = True
        self._call.set()
        if isinstance(self._source, Generator):
            self._source.close()


class Reader:
    """One asker's way through a stream, item by item. Belongs to one thread at a time."""

    def __init__(self, seat: Seat, spring: Spring[Iterator[Any]]) -> None:
        self._seat, self._spring = seat, spring
        self.has_joined = seat.role is Role.FOLLOW

    def read(self) -> Generator[Any]:
        """Every item from the first. Raises what the source raised, for every reader."""
        position = 0
        try:
            while not isinstance(news := self._news(position), Landing):
                for item in news:
                    position += 1
                    yield item
            if must_call(news, position):
                yield from self._spring.open()
            else:
                yield from rest_of(news, position, self._spring)
        finally:
            self._leave()

    def _news(self, position: int) -> Iterator[Any] | Landing:
        if self._seat.role is Role.LEAD and (stored := self._lead()) is not None:
            return Landing(Fate.COALESCED, stored)
        flight = self._seat.flight
        if flight is not None and not flight.take(position):
            source = flight.source
            if isinstance(source, SharedStream):
                return source.make(self._seat, position)
            flight.want(position + 1)
        return heard(self._seat.read(position), self._spring)

    def _lead(self) -> Answer | None:
        """Open the source, unless the answer has come in meanwhile."""
        lead = self._seat
        if (stored := self._spring.stored()) is not None:
            lead.abandon()
            return stored
        self._seat = lead.companion()
        SharedStream(lead, self._spring)
        return None

    def _leave(self) -> None:
        flight = self._seat.flight
        self._seat.leave()
        source = None if flight is None else flight.source
        if isinstance(source, SharedStream):
            source.left()


def heard(news: list[Any] | Landing, spring: Spring[Any]) -> Iterator[Any] | Landing:
    """What a seat has heard, for its reader; nothing where it now leads."""
    if isinstance(news, list):
        return map(spring.give, news)
    return iter(()) if news.fate is Fate.LEAD else news


def must_call(landing: Landing, position: int) -> bool:
    """Whether this reader gets its items from a call of its own. Raises the source's error."""
    if landing.fate is not Fate.THROUGH:
        if landing.error is not None:
            landing.unwrap()
        return False
    if position:
        doing = "wait for itself" if landing is IN_CIRCLE else f"end here: {landing.why}"
        raise UpstreamError(f"after item {position} the stream would {doing}")
    return True


def rest_of(landing: Landing, position: int, spring: Spring[Any]) -> list[Any]:
    """Items that the landing holds besides those published; a renewal lands with all."""
    made = landing.value
    if not isinstance(made, Made | Answer) or made.entry is None:
        return []
    return spring.items(made.entry)[position:]
