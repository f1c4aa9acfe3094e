"""Clients' requests follow one another on connections to an upstream: never meets one the answer

of another, whatever the upstream leaves unread or sends unasked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen, Upstream, completion, once
from thinkonce.settings import Upstream as Declared
from thinkonce.upstream import client

CHAT = b"POST /v1/chat/completions "
STOLEN = json.dumps({"model": "priced", "messages": [{"role": "user", "content": "stolen"}]})
HIDDEN = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-hidden: 1\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(STOLEN), STOLEN.encode())
)


def whole(body: object, status: int = 200) -> bytes:
    text = json.dumps(body).encode()
    kind = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
    return b"HTTP/1.1 %d Said\r\n%b%b" % (status, kind, text)


@dataclass
class Careless:
    """Reads the body of a chat call it takes and no other, and lets nobody wait.

    It answers a hidden request when the next one is there, who would then get that answer.
    """

    status: int = 404
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            while True:
                head = await self._answered(head, reader, writer)
        writer.close()

    async def _answered(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """The next head."""
        self.heads.append(head)
        if not head.startswith(CHAT) or b"Bearer nobody" in head:
            said = whole({}, self.status)
            writer.write(said.removesuffix(b"{}") if head.startswith(b"HEAD") else said)
            return await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].split()[0])
        asked = json.loads(await reader.readexactly(length))["messages"][0]["content"]
        said = whole(completion(f"to {asked}"))
        if b"x-hidden" in head:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            return head
        writer.write(said)
        return await reader.readuntil(b"\r\n\r\n")


@pytest.fixture
async def careless() -> AsyncIterator[tuple[Careless, Declared]]:
    upstream = Careless()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield upstream, Declared(urls=[f"http://127.0.0.1:{port}"])
    server.close()


async def nobody_is_mixed_up(gateway: Running) -> None:
    for name in ("first", "second"):
        got = await gateway.chat(name, {"authorization": f"Bearer {name}"})
        assert (got.status, got.text) == (200, f"to {name}")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_body_of_a_request_that_has_none_is_not_sent_on(
    stage: Stage, careless: tuple[Careless, Declared], method: str
) -> None:
    upstream, declared = careless
    gateway = await stage.gateway(upstreams={"main": declared})
    assert (await gateway.send(method, "/v1/models", HIDDEN)).status == 404
    await nobody_is_mixed_up(gateway)
    assert not any(b"x-hidden" in head for head in upstream.heads)


async def test_a_list_of_models_of_two_pools_takes_no_body_along(
    stage: Stage, careless: tuple[Careless, Declared]
) -> None:
    upstream, declared = careless
    gateway = await stage.gateway(upstreams={"main": declared, "more": declared})
    await gateway.send("GET", "/v1/models", HIDDEN)
    await nobody_is_mixed_up(gateway)
    assert not any(b"x-hidden" in head for head in upstream.heads)


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS"])
async def test_what_an_upstream_leaves_unread_answers_nobody(
    stage: Stage, careless: tuple[Careless, Declared], method: str, status: int
) -> None:
    upstream, declared = careless
    upstream.status = status
    gateway = await stage.gateway(upstreams={"main": declared})
    assert (await gateway.send(method, "/v1/nothing", HIDDEN)).status == status
    await nobody_is_mixed_up(gateway)
    assert b"connection: close" in upstream.heads[0].lower()


async def test_a_call_that_is_refused_unread_answers_nobody(
    stage: Stage, careless: tuple[Careless, Declared]
) -> None:
    upstream, declared = careless
    upstream.status = 401
    gateway = await stage.gateway(upstreams={"main": declared})
    unread = {"authorization": "Bearer nobody", "content-encoding": "br"}  # sent on as it is
    got = await gateway.send("POST", "/v1/chat/completions", HIDDEN, unread)
    assert got.status in (400, 401, 415)
    got = await gateway.chat("hi", {"authorization": "Bearer nobody"})
    assert got.status == 401
    await nobody_is_mixed_up(gateway)


async def test_calls_of_many_clients_still_share_a_connection(
    stage: Stage, careless: tuple[Careless, Declared]
) -> None:
    upstream, declared = careless
    gateway = await stage.gateway(upstreams={"main": declared})
    await nobody_is_mixed_up(gateway)
    assert upstream.connections == 1


EVIL = whole(completion("unasked"))
SURPLUS = {
    "an answer": EVIL,
    "a head": EVIL.partition(b"{")[0],
    "a part of a head": b"HTTP/1.1 200 OK\r\nx-odd: 1",
    "a part of a line": b"HT",
    "a line end too many and a part": b"\r\nH",
}


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
@pytest.mark.parametrize("how", ["at once", "behind the head", "later"])
async def test_what_came_unasked_is_no_answer_and_ends_the_connection(
    stage: Stage, upstream: Upstream, surplus: bytes, how: str
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def overflowing(seen: Seen, out: Out) -> None:
        writers.append(out.writer)
        text = seen.json["messages"][0]["content"]
        head, _, body = whole(completion(f"to {text}")).partition(b"\r\n\r\n")
        if how == "behind the head":
            await out.raw(head + b"\r\n\r\n")
            await turns()
            await out.raw(body + surplus)
        else:
            await out.raw(head + b"\r\n\r\n" + body + (surplus if how == "at once" else b""))

    upstream.script = overflowing
    gateway = await stage.gateway()
    await nobody_is_mixed_up_after(gateway, writers, surplus if how == "later" else b"")
    assert len(set(writers)) == 2, "the second had a connection of its own"


async def nobody_is_mixed_up_after(
    gateway: Running, writers: list[asyncio.StreamWriter], later: bytes
) -> None:
    assert (await gateway.chat("first")).text == "to first"
    writers[0].write(later)
    await turns()
    assert (await gateway.chat("second")).text == "to second"


async def test_a_pool_whose_connections_are_all_taken_leaves_the_others_theirs(
    stage: Stage, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_CONNECTIONS", 2)
    slow, gate = await stage.another_upstream(), asyncio.Event()
    slow.script = once(gate, slow.script)
    pools = {
        "slow": Declared(urls=[slow.url], models=["slow"]),
        "main": Declared(urls=[upstream.url]),
    }
    gateway = await stage.gateway(upstreams=pools)
    calls = [asyncio.create_task(gateway.chat(f"{n}", model="slow")) for n in range(4)]
    await slow.called(2)
    async with asyncio.timeout(10):
        assert (await gateway.chat()).status == 200
    gate.set()
    assert [got.status for got in await asyncio.gather(*calls)] == [200] * 4
