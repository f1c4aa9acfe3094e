"""The parent of several workers: it binds the address, starts them, watches them, ends them.

bind ──► start all ──► all serve: "ready" ──► one dies: another covers its listener
           │                                     │            until a new one serves
           └── one cannot: end, with its error   └── its counts are kept
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TypeVar

from thinkonce.errors import ThinkOnceError
from thinkonce.gateway.edge import tls_of
from thinkonce.gateway.local import LocalModel
from thinkonce.gateway.numbers import Numbers, of_the_gone, total
from thinkonce.gateway.reload import Reload
from thinkonce.gateway.serve import (
    Signals,
    announce,
    beside_model,
    reaching,
    with_local,
    write_log_as,
)
from thinkonce.gateway.team import Bounds
from thinkonce.gateway.workers.board import Board
from thinkonce.gateway.workers.messages import (
    ASK_SECONDS,
    GRACE_SECONDS,
    Adopt,
    Begin,
    Cover,
    Done,
    Draining,
    Known,
    Message,
    ModelState,
    Publish,
    Resize,
    Sum,
    WhyNot,
)
from thinkonce.gateway.workers.shares import bounded_clients, bounded_servers, give_back_all
from thinkonce.gateway.workers.slot import Slot
from thinkonce.settings import Settings
from thinkonce.upstream.pools import Pools
from thinkonce.web.listener import bind_each, url_of
from thinkonce.web.server import Say, drains, new_loop, print_line, stopped

__all__ = ("run_workers",)

log = logging.getLogger("thinkonce")

M = TypeVar("M")
Answers = dict[Slot, Done | None]  # None: it gave none

# Before a worker that died is started again, in seconds: at once if it had lived long.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# A worker that leaves so many questions in a row unanswered hangs: half a minute.
LISTEN_SECONDS, MOST_UNANSWERED = 5.0, 3
# For one worker to answer: less than another waits for the parent, which asks all at once.
TELL_SECONDS = ASK_SECONDS / 2


def run_workers(settings: Settings, read: Callable[[], Settings], say: Say = print_line) -> int:
    """As `serve.run`, by `gateway.workers` processes."""
    gateway = settings.gateway
    listeners = bind_each(gateway.host, gateway.port, gateway.workers)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_serve(settings, read, listeners, say))
    finally:
        for listener in listeners:
            listener.close()


async def _serve(
    settings: Settings,
    read: Callable[[], Settings],
    listeners: Sequence[socket.socket],
    say: Say,
) -> int:
    async def together(asked: Signals, model: LocalModel | None) -> None:
        complete = partial(with_local, model)
        parent = _Parent(complete(settings), listeners, say, model)
        try:
            starting = asyncio.ensure_future(parent.start())
            if await asked.came_before(starting):
                say("stopped before it was ready")
                return
            await starting
            asked.ends(parent)
            adopt = reaching(model, lambda new: parent.adopt(complete(new)))
            asked.reload = Reload(settings, read, adopt)
            await parent.serve()
        finally:
            await parent.close()

    return await beside_model(settings, say, together)


class _Parent:
    """Belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        say: Say,
        model: LocalModel | None,
    ) -> None:
        self._settings, self._listeners, self._say = settings, listeners, say
        self._model = model
        self._url = url_of(listeners[0], "https" if settings.gateway.tls_cert else "http")
        self._run, self._serials = secrets.token_hex(8), count(1)
        self._board = Board.new()
        # All that ever were: a call of a pool that a reload removed may hold a place there.
        self._rooms = _rooms_of(settings)
        self._bounds: Bounds = {}  # those changed since the configuration was read
        self._slots = [Slot(place, self._hear) for place in range(settings.gateway.workers)]
        self._keepers: list[asyncio.Task[None]] = []
        self._gone: Numbers | None = None  # what workers counted that are not there any more
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._said_draining = False
        self._errands: set[asyncio.Task[None]] = set()
        if model is not None:
            model.changed = self._model_changed

    # -- from the beginning to the end -----------------------------------------------------

    async def start(self) -> None:
        """Until all workers serve. Raises what the first that cannot fails with."""
        starting = [asyncio.ensure_future(self._begin(slot)) for slot in self._slots]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for each in starting:
                each.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            raise
        self._keepers = [asyncio.ensure_future(self._keep(slot)) for slot in self._slots]
        for slot in self._slots:
            self._run_errand(self._listen(slot))
        announce(self._settings, self._url, self._say)

    async def serve(self) -> None:
        """Until `stop`, and all workers have ended."""
        await self._stopping.wait()
        seconds = self._settings.gateway.drain_timeout + GRACE_SECONDS
        _, late = await asyncio.wait(self._keepers, timeout=seconds)
        for slot in self._slots if late else ():
            slot.kill()
        await asyncio.gather(*self._keepers)
        self._say(stopped(sum(slot.given_up for slot in self._slots)))

    def stop(self) -> None:
        """Drain; a second call gives up what is under way."""
        self._stopping.set()
        for listener in self._listeners:
            listener.close()
        for slot in self._slots:
            slot.terminate()

    async def close(self) -> None:
        """End what is left."""
        for keeper in (*self._keepers, *self._errands):
            keeper.cancel()
        await asyncio.gather(*self._keepers, *self._errands, return_exceptions=True)
        for slot in self._slots:
            slot.kill()
            if slot.process is not None:
                await slot.ended()
        self._board.close()

    async def _begin(self, slot: Slot) -> None:
        settings, bounds = self._settings, self._bounds
        begin = Begin(
            settings,
            slot.place,
            self._run,
            next(self._serials),
            [listener.fileno() for listener in self._listeners],
            self._board.fd,
            bounds,
            self._model is not None and self._model.restarting,
        )
        await slot.start(begin)
        if settings is not self._settings:  # meanwhile they have changed
            await slot.ask(Adopt(self._settings), Done, TELL_SECONDS)
        if bounds is not self._bounds:
            await slot.ask(Resize(self._bounds), Done, TELL_SECONDS)

    async def _keep(self, slot: Slot) -> None:
        """Start a worker again whenever it dies, until the end."""
        pause, loop = 0.0, asyncio.get_running_loop()
        began = loop.time()
        while True:
            said = await slot.ended()
            self._leave(slot)
            if self._stopping.is_set():
                return
            pause = 0.0 if loop.time() - began > LONGEST_PAUSE else pause
            log.error("worker %d %s; it is started again in %.1f s", slot.place + 1, said, pause)
            if await self._stopped_within(pause):
                return
            pause, began = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE), loop.time()
            await self._begin_again(slot)

    async def _listen(self, slot: Slot) -> None:
        """Kill a worker that hangs: connections would go on being given to it."""
        unanswered = 0
        while True:
            await asyncio.sleep(LISTEN_SECONDS)
            heard = await self._numbers_of(slot, LISTEN_SECONDS)
            unanswered = 0 if heard or not slot.serves else unanswered + 1
            if unanswered == MOST_UNANSWERED:
                log.error("worker %d does not answer any more and is killed", slot.place + 1)
                slot.kill()

    async def _begin_again(self, slot: Slot) -> None:
        try:
            await self._begin(slot)
        except (ThinkOnceError, OSError) as error:
            if self._stopping.is_set():
                return
            log.error("worker %d cannot be started: %s", slot.place + 1, error)  # noqa: TRY400 - a line, not a trace
            return
        log.warning("worker %d serves again", slot.place + 1)
        self._arrange()
        if self._stopping.is_set():
            slot.terminate()

    async def _stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()  # it may have been while the wait was given up

    def _leave(self, slot: Slot) -> None:
        """Its counts stay, its listener is another's for now."""
        if slot.numbers is not None:
            left = of_the_gone(slot.numbers)
            self._gone = left if self._gone is None else total((self._gone, left))
            slot.numbers = None
        give_back_all(self._board, self._rooms, slot.place)
        self._arrange()
        self._say_draining()

    def _arrange(self) -> None:
        """Where nobody accepts on a listener of its own, give it to a worker that serves."""
        if self._stopping.is_set() or len(set(self._listeners)) == 1:
            return
        serving = [slot for slot in self._slots if slot.serves]
        empty = [slot.place for slot in self._slots if not slot.serves]
        for at, slot in enumerate(serving):
            slot.tell(Cover(empty[at :: len(serving)]))

    def _say_draining(self) -> None:
        there = [slot for slot in self._slots if slot.process and slot.process.returncode is None]
        if (
            not self._stopping.is_set()
            or self._said_draining
            or any(slot.draining is None for slot in there)
        ):
            return
        self._said_draining = True
        under_way = sum(slot.draining or 0 for slot in self._slots)
        self._say(drains(under_way, self._settings.gateway.drain_timeout))

    # -- what workers say ------------------------------------------------------------------

    async def _hear(self, slot: Slot, message: Message) -> Message | None:
        match message:
            case Publish(numbers):
                slot.numbers = numbers
            case Draining():
                self._arrange()
                self._say_draining()
            case Sum(numbers):
                slot.numbers = numbers
                return await self._sum_but(slot)
            case Resize(bounds):
                changed = {name: value for name, value in bounds.items() if value is not None}
                self._bounds = {**self._bounds, **changed}
                return await self._spread(message, but=slot)
            case WhyNot():
                return await self._why_not(slot, message)
        return None

    async def _sum_but(self, asking: Slot) -> Sum:
        """Of all workers but the one that asks; who does not answer counts as it did last."""
        others = [slot for slot in self._slots if slot is not asking and slot.serves]
        await _all(self._numbers_of(slot, TELL_SECONDS) for slot in others)
        known = [slot.numbers for slot in self._slots if slot is not asking and slot.numbers]
        known += [self._gone] if self._gone is not None else []
        return Sum(total(known) if known else None)

    async def _numbers_of(self, slot: Slot, seconds: float) -> bool:
        """Ask for them; whether there was an answer."""
        process = slot.process
        answer = await slot.ask(Sum(), Sum, seconds)
        if answer is None:
            return False
        if process is slot.process and process is not None and process.returncode is None:
            slot.numbers = answer.numbers  # else they are counted among those that are gone
        return True

    async def _why_not(self, asking: Slot, question: WhyNot) -> Known:
        others = [slot for slot in self._slots if slot is not asking and slot.serves]
        said = await _all(slot.ask(question, Known, TELL_SECONDS) for slot in others)
        found = [answer.refusal for answer in said if answer is not None and answer.refusal]
        return Known(max(found, key=lambda refusal: refusal.at, default=None))

    async def _spread(self, message: Message, but: Slot | None = None) -> Done:
        """Tell all workers but one; what went wrong with any."""
        told = [slot for slot in self._serving() if slot is not but]
        return Done(_wrong(await self._tell_all(message, told)))

    async def _tell_all(self, message: Message, slots: Sequence[Slot]) -> Answers:
        said = await _all(slot.ask(message, Done, TELL_SECONDS) for slot in slots)
        return dict(zip(slots, said, strict=True))

    def _serving(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.serves]

    # -- what changes while they run ---------------------------------------------------------

    def adopt(self, settings: Settings) -> None:
        """Raises ConfigError; then nothing has changed."""
        Pools.of(settings.upstreams).take_keys(os.environ)
        tls_of(settings.gateway)
        self._rooms |= _rooms_of(settings)
        self._run_errand(self._reload(settings))

    async def _reload(self, settings: Settings) -> None:
        """Workers that begin later begin with what those that serve have taken."""
        async with self._reloading:
            said = await self._tell_all(Adopt(settings), self._serving())
            if any(done is not None and done.error for done in said.values()):
                log.error("SIGHUP: the configuration stays as it was: %s", _wrong(said))
                await self._tell_all(Adopt(self._settings), list(said))
                if self._bounds:
                    await self._tell_all(Resize(self._bounds), list(said))
                return
            self._settings, self._bounds = settings, {}
            write_log_as(settings)
            late = [slot for slot in self._serving() if slot not in said]
            said |= await self._tell_all(Adopt(settings), late)
        if wrong := _wrong(said):
            log.error("SIGHUP: not in force everywhere: %s", wrong)
        else:
            log.info("SIGHUP: in force in all workers")

    def _model_changed(self) -> None:
        assert self._model is not None
        for slot in self._slots:
            slot.tell(ModelState(self._model.restarting))

    def _run_errand(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _rooms_of(settings: Settings) -> set[tuple[str, str]]:
    return bounded_servers(settings.upstreams) | bounded_clients(settings.clients)


def _wrong(said: Answers) -> str:
    """What went wrong with any; "" for nothing."""
    return "; ".join(
        f"worker {slot.place + 1}: {'no answer' if done is None else done.error}"
        for slot, done in said.items()
        if done is None or done.error
    )


async def _all(asked: Iterable[Awaitable[M]]) -> list[M]:
    return list(await asyncio.gather(*asked))
