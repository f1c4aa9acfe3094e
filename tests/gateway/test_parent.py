"""The parent of several workers and a worker's server, each without the other's process."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.conftest import settings_of, until
from thinkonce import settings as known
from thinkonce.gateway.workers.board import Board
from thinkonce.gateway.workers.channel import Channel
from thinkonce.gateway.workers.messages import Adopt, Begin, Done, Message
from thinkonce.gateway.workers.parent import _Parent
from thinkonce.gateway.workers.shares import shared_room
from thinkonce.gateway.workers.slot import Slot
from thinkonce.gateway.workers.worker import _WorkerServer
from thinkonce.settings import Settings

URL = "http://127.0.0.1:9"


def settings(**cache: object) -> Settings:
    bounded = known.Upstream(urls=[URL], max_concurrent=1)
    return settings_of({"bounded": bounded}, cache=cache, gateway={"workers": 2})


@pytest.fixture
async def parent() -> AsyncIterator[_Parent]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        parent = _Parent(settings(), [listener], lambda line: None, None)
        yield parent
        await parent.close()


class Worker:
    """Its end of a channel: notes the settings it is told, and answers."""

    def __init__(self, slot: Slot, answer: Callable[[Settings], Done]) -> None:
        self.slot, self.told = slot, list[Settings]()
        self._answer = answer

    async def connect(self) -> Worker:
        ours, theirs = socket.socketpair()
        self.channel = await Channel.over(theirs, self._hear)
        self.slot.channel, self.slot.serves = await Channel.over(ours, self.slot._hear), True
        return self

    async def _hear(self, message: Message) -> Message | None:
        assert isinstance(message, Adopt)
        self.told.append(message.settings)
        return self._answer(message.settings)

    async def close(self) -> None:
        assert self.slot.channel is not None
        await self.slot.channel.close()
        await self.channel.close()


async def test_what_one_worker_refuses_is_in_force_nowhere(parent: _Parent) -> None:
    before, new = parent._settings, settings(ttl=60.0)
    takes = await Worker(parent._slots[0], lambda settings: Done()).connect()
    refuses = await Worker(parent._slots[1], lambda settings: Done("not here")).connect()
    parent.adopt(new)
    assert parent._settings is before, "a worker that begins now begins with what is in force"
    await until(lambda: not parent._errands)
    assert parent._settings is before
    assert takes.told == refuses.told == [new, before]
    refuses._answer = takes._answer
    parent.adopt(new)
    await until(lambda: not parent._errands)
    assert parent._settings is new
    await takes.close()
    await refuses.close()


async def test_places_at_a_server_come_back_though_a_reload_removed_its_pool(
    parent: _Parent,
) -> None:
    room = shared_room(parent._board, "bounded", URL, 1, 0, 2)
    assert room is not None
    assert room.take()
    parent.adopt(settings_of({"other": known.Upstream(urls=[URL])}))
    await until(lambda: not parent._errands)
    parent._leave(parent._slots[0])  # it was killed
    assert room.busy == 0


async def test_no_worker_is_started_once_the_end_has_begun(parent: _Parent) -> None:
    asyncio.get_running_loop().call_soon(parent.stop)
    assert await parent._stopped_within(0.0)


async def hear_nothing(slot: Slot, message: Message) -> None:
    return None


async def test_a_worker_that_cannot_be_started_leaves_no_socket() -> None:
    begin = Begin(settings(), 0, "run", 1, [-1], 0, {}, False)
    with pytest.raises(ValueError, match="fds_to_keep"):
        await Slot(0, hear_nothing).start(begin)
    gc.collect()  # an open socket would be a warning


class Counting(_WorkerServer):
    accepted = 0

    async def accept_on(self, listener: socket.socket) -> asyncio.Server:
        self.accepted += 1
        await asyncio.sleep(0)
        return await super().accept_on(listener)


async def test_two_letters_at_once_let_a_worker_accept_once_for_another(tmp_path: Path) -> None:
    store = known.Store(url=f"sqlite:///{tmp_path / 'answers.db'}")
    stored = msgspec.structs.replace(settings(), store=store)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    with closing(Board.new()) as board:
        ours, theirs = socket.socketpair()
        channel = await Channel.over(ours, lambda message: asyncio.sleep(0))
        fds = [listener.detach() for listener in listeners]
        server = Counting(Begin(stored, 0, "run", 1, fds, board.fd, {}, False), channel)
        await asyncio.gather(server._cover([1]), server._cover([1]))
        assert server.accepted == 1
        await server._cover([])
        await server.close()
        for spare in (server._listener, *server._spare.values()):
            spare.close()
        server._member._board._map.close()
        await channel.close()
        theirs.close()
