"""One worker as its parent sees it: started, listened to, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from thinkonce.errors import MISSING, ConfigError, ThinkOnceError
from thinkonce.gateway.numbers import Numbers
from thinkonce.gateway.workers.channel import Channel, Unanswered
from thinkonce.gateway.workers.messages import (
    CHANNEL,
    Begin,
    Begun,
    Draining,
    Failed,
    Message,
    Stopped,
)
from thinkonce.web.lifeline import held

__all__ = ("Slot",)

M = TypeVar("M")
Hear = Callable[["Slot", Message], Awaitable[Message | None]]


class Slot:
    """A place for a worker; who sits there may change. Belongs to the parent's event loop.

    `serves` from when it accepts connections until it drains or dies; `draining` counts its
    answers then. `numbers` are the last that were heard. `hear` gets what the slot cannot answer.
    """

    def __init__(self, place: int, hear: Hear) -> None:
        self.place, self._hear_rest = place, hear
        self.serves = False
        self.draining: int | None = None
        self.given_up = 0
        self.numbers: Numbers | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self._begun: asyncio.Future[None] | None = None

    async def start(self, begin: Begin) -> None:
        """Start a worker and wait until it serves.

        Raises what it fails with: ConfigError, ThinkOnceError.
        """
        self._begun = asyncio.get_running_loop().create_future()
        self.draining, self.numbers = None, None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = await _spawn(theirs, begin)
            except BaseException:
                ours.close()
                raise
        self.channel = await Channel.over(ours, self._hear)
        self.channel.tell(begin)
        await asyncio.wait((self._begun, self.channel.heard), return_when=asyncio.FIRST_COMPLETED)
        if self._begun.done() and self._begun.exception() is None:
            return
        said = await self.ended()
        if self._begun.done():
            self._begun.result()
        raise ThinkOnceError(f"worker {self.place + 1} {said} before it was ready; see above")

    async def ended(self) -> str:
        """How it ended, once it has, and all that it said was heard."""
        assert self.process is not None
        code = await self.process.wait()
        self.serves = False
        if self.channel is not None:
            await self.channel.last_words()
            await self.channel.close()
        return f"ended with exit code {code}" if code >= 0 else f"was killed ({_signal(code)})"

    async def ask(self, message: Message, kind: type[M], seconds: float) -> M | None:
        """Its answer; None where there is none."""
        if self.channel is None:
            return None
        with suppress(Unanswered):
            return await self.channel.ask(message, kind, seconds)
        return None

    def tell(self, message: Message) -> None:
        if self.channel is not None:
            self.channel.tell(message)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def _hear(self, message: Message) -> Message | None:
        match message:
            case Begun():
                self.serves = True
                self._landed(None)
            case Failed():
                self._landed(_error_of(message))
            case Draining(answers):
                self.serves, self.draining = False, answers
            case Stopped(given_up):
                self.given_up = given_up
        return await self._hear_rest(self, message)

    def _landed(self, error: ThinkOnceError | None) -> None:
        assert self._begun is not None
        if self._begun.done():
            return
        if error is None:
            self._begun.set_result(None)
        else:
            self._begun.set_exception(error)


async def _spawn(channel: socket.socket, begin: Begin) -> asyncio.subprocess.Process:
    """The settings come over the channel: a command line can be read by anybody."""
    inherited = {channel.fileno(), begin.board, *begin.listeners}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "thinkonce.gateway.workers"),
        stdin=asyncio.subprocess.PIPE,  # held open: its end is ours
        stdout=asyncio.subprocess.DEVNULL,
        pass_fds=tuple(inherited),
        # -P: no module of the working directory's is taken for one of ours.
        env={
            **os.environ,
            **held(),
            CHANNEL: str(channel.fileno()),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        # Ctrl-C reaches the parent alone, which ends its workers.
        start_new_session=True,
    )


def _error_of(failed: Failed) -> ThinkOnceError:
    if not failed.setting:
        return ThinkOnceError(failed.error)
    got = MISSING if failed.got is None else failed.got
    return ConfigError(failed.setting, got, failed.accepts)


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
