"""Ends what is done for a client that has gone away."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from thinkonce.engine.http import Call, ClientGone
from thinkonce.web.at_once import forget_when_gone, tell_when_gone

__all__ = ("Watch",)


class Watch:
    """`async with Watch(call):` raises ClientGone inside once the client closes its connection.

    Enter it after the body was read: it takes what the connection says from then on. Where the
    server does not tell by itself, a task listens for it.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._gone = False
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._served = task
        if self._call.cycle is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        else:
            tell_when_gone(self._call.cycle, self._leave)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._call.cycle is not None:
            forget_when_gone(self._call.cycle, self._leave)
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # the two hold each other
        if self._gone and isinstance(error, asyncio.CancelledError):
            self._served.uncancel()
            raise ClientGone from None

    async def _listen(self) -> None:
        while (await self._call.receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._call.answered:
            self._gone = True
            self._served.cancel()
