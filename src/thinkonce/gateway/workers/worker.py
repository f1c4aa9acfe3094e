"""The process that serves: told by its parent how, it begins, says so, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterable

from thinkonce.errors import MISSING, ConfigError, ThinkOnceError
from thinkonce.gateway.serve import Signals
from thinkonce.gateway.server import GatewayServer
from thinkonce.gateway.workers.channel import Channel
from thinkonce.gateway.workers.lines import unhindered
from thinkonce.gateway.workers.member import PUBLISH_SECONDS, Member
from thinkonce.gateway.workers.messages import (
    CHANNEL,
    GRACE_SECONDS,
    Adopt,
    Begin,
    Begun,
    Cover,
    Done,
    Draining,
    Failed,
    Message,
    Publish,
    Stopped,
)
from thinkonce.settings import Settings
from thinkonce.web.lifeline import end_with_parent
from thinkonce.web.log_lines import log_to_stderr
from thinkonce.web.server import let_collector_rest, new_loop

__all__ = ("run_worker",)

log = logging.getLogger("thinkonce")

FAILED = 1


def run_worker() -> int:
    """Serve as the parent says, until SIGTERM or its end; the exit code."""
    end = socket.socket(fileno=int(os.environ.pop(CHANNEL)))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent reloads
    with unhindered(alone=False), asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_work(end))


async def _work(end: socket.socket) -> int:
    asked, worker = Signals(), _Worker()
    with asked.handled():
        channel = worker.channel = await Channel.over(end, worker.hear)
        try:
            begin = await worker.told()
            if begin is None or asked.asked.is_set():
                return 0
            end_with_parent(begin.settings.gateway.drain_timeout + GRACE_SECONDS)
            log_to_stderr(begin.settings.log.level, form=begin.settings.log.format)
            server = worker.server = _WorkerServer(begin, channel)
            asked.ends(server)
            await server.live()
        except ThinkOnceError as error:
            channel.tell(_failure(error))
            return FAILED
        finally:
            await channel.close()
    return 0


class _Worker:
    """Takes what the parent says, from the first word on."""

    channel: Channel

    def __init__(self) -> None:
        self._begin: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()
        self.server: _WorkerServer | None = None

    async def told(self) -> Begin | None:
        """How to begin; None if the parent is gone before it has said so."""
        await asyncio.wait((self._begin, self.channel.heard), return_when=asyncio.FIRST_COMPLETED)
        return self._begin.result() if self._begin.done() else None

    async def hear(self, message: Message) -> Message | None:
        if isinstance(message, Begin):
            self._begin.set_result(message)
            return None
        if self.server is None:
            return Done("it has not begun")
        return await self.server.hear(message)


class _WorkerServer(GatewayServer):
    """One of several that serve an address."""

    def __init__(self, begin: Begin, channel: Channel) -> None:
        """Raises ConfigError for a store that cannot be used."""
        self._channel, self._member = channel, Member(begin, channel)
        own = begin.listeners[begin.place]
        # Those of others, to accept on while they are not there.
        self._spare = {
            place: socket.socket(fileno=fd) for place, fd in enumerate(begin.listeners) if fd != own
        }
        self._covered: dict[int, asyncio.Server] = {}
        self._covering = asyncio.Lock()
        member = self._member
        super().__init__(
            socket.socket(fileno=own),
            begin.settings,
            _say_nothing,
            lambda: member.restarting,
            member,
        )

    async def live(self) -> None:
        """Serve until the end was asked for, and end."""
        publishing = asyncio.ensure_future(self._publish())
        let_collector_rest()
        try:
            try:
                await self.serve()
            finally:
                await self.close()
            self._channel.tell(Publish(self._member.alone.counts()))
            self._channel.tell(Stopped(self.given_up))
        finally:
            publishing.cancel()

    async def hear(self, message: Message) -> Message | None:
        if isinstance(message, Adopt):
            return self._adopt(message.settings)
        if isinstance(message, Cover):
            await self._cover(message.places)
            return None
        return self._member.answer(message)

    def announce(self, url: str) -> None:
        self._channel.tell(Begun())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._channel.tell(Draining(len(self.server_state.tasks)))
        self.servers += self._covered.values()
        self._covered.clear()
        for spare in self._spare.values():
            spare.close()
        self._spare.clear()
        await super().shutdown(sockets)

    def _adopt(self, settings: Settings) -> Done:
        try:
            self.adopt(settings)
        except ConfigError as error:
            return Done(str(error))
        self._member.adopted(settings)
        return Done()

    async def _cover(self, places: Iterable[int]) -> None:
        async with self._covering:  # letters may come faster than they are carried out
            wanted = {place for place in places if place in self._spare}
            for place in self._covered.keys() - wanted:
                self._covered.pop(place).close()
            for place in wanted - self._covered.keys():
                await self._accept_for(place)

    async def _accept_for(self, place: int) -> None:
        if place not in self._spare:  # it drains meanwhile
            return
        accepting = await self.accept_on(self._spare[place].dup())
        if place in self._spare:
            self._covered[place] = accepting
        else:
            accepting.close()

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            self._member.publish()


def _say_nothing(line: str) -> None:
    """The parent speaks for all."""


def _failure(error: ThinkOnceError) -> Failed:
    if not isinstance(error, ConfigError):
        cause = f": {error.__cause__}" if error.__cause__ else ""
        return Failed(f"{error}{cause}")
    got = None if error.got is MISSING else str(error.got)
    return Failed(str(error), error.setting, got, error.accepts)
