"""Questions and answers between a parent and a worker, over a socket that only they have.

    | length, 4 bytes | number, is it an answer?, message: MessagePack |

A message with number 0 wants no answer. Both sides may ask at any time, and many questions may be
open at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import TypeVar

import msgspec

from thinkonce.errors import ThinkOnceError
from thinkonce.gateway.workers.messages import Done, Message

__all__ = ("Channel", "Unanswered")

log = logging.getLogger("thinkonce")

M = TypeVar("M")


class Unanswered(ThinkOnceError):
    """The other side is gone, took too long, or said that it failed."""


class _Letter(msgspec.Struct, array_like=True):
    number: int
    is_answer: bool
    message: Message


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Letter).decode


class Channel:
    """Belongs to one event loop. `handle` takes what the other side says, and answers questions.

    `heard` is a task that ends when the other side is gone.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handle: Callable[[Message], Awaitable[Message | None]],
    ) -> None:
        self._reader, self._writer, self._handle = reader, writer, handle
        self._numbers = count(1)
        self._open: dict[int, asyncio.Future[Message]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self.heard = asyncio.ensure_future(self._listen())

    @classmethod
    async def over(
        cls, end: socket.socket, handle: Callable[[Message], Awaitable[Message | None]]
    ) -> Channel:
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer, handle)

    def tell(self, message: Message) -> None:
        """Say something that needs no answer; to nobody, where the other side is gone."""
        self._send(_Letter(0, False, message))

    async def ask(self, message: Message, kind: type[M], seconds: float) -> M:
        """The answer, of this kind. Raises Unanswered."""
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(_Letter(number, False, message))
            async with asyncio.timeout(seconds):
                said = await answer
        except TimeoutError:
            raise Unanswered(f"no answer in {seconds:g} s") from None
        finally:
            del self._open[number]
        if not isinstance(said, kind):
            raise Unanswered(said.error if isinstance(said, Done) else f"got {said!r:.80}")
        return said

    async def last_words(self) -> None:
        """Wait for the other side to be gone, and for what it said to be taken in."""
        await asyncio.gather(self.heard, return_exceptions=True)
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def close(self) -> None:
        """Send what was said, and hang up. Idempotent."""
        self.heard.cancel()
        await asyncio.gather(self.heard, return_exceptions=True)
        with suppress(OSError):
            self._writer.close()
            await self._writer.wait_closed()

    def _send(self, letter: _Letter) -> None:
        if self.heard.done():
            if letter.number and not letter.is_answer:
                raise Unanswered("the other side is gone")
            return
        content = _encode(letter)
        self._writer.write(len(content).to_bytes(4) + content)

    async def _listen(self) -> None:
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(4))
                self._take(_decode(await self._reader.readexactly(length)))
        except (OSError, asyncio.IncompleteReadError):
            pass  # it is gone
        finally:
            for answer in self._open.values():
                if not answer.done():
                    answer.set_exception(Unanswered("the other side is gone"))

    def _take(self, letter: _Letter) -> None:
        if letter.is_answer:
            answer = self._open.get(letter.number)
            if answer is not None and not answer.done():
                answer.set_result(letter.message)
            return
        # Each in a task of its own: one that waits for others must not hold up the rest.
        task = asyncio.ensure_future(self._answer(letter))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, letter: _Letter) -> None:
        try:
            answer = await self._handle(letter.message) or Done()
        except ThinkOnceError as error:
            answer = Done(str(error))
        except Exception as error:
            log.exception("a worker's question failed")
            answer = Done(repr(error))
        if letter.number:
            self._send(_Letter(letter.number, True, answer))
