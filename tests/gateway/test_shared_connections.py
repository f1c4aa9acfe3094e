"""Clients' requests follow one another on connections to an upstream: never meets one the answer

of another, whatever the upstream leaves unread or sends unasked.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256

import aiohttp
import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Script, Seen, Upstream, completion, once
from thinkonce.settings import Client
from thinkonce.settings import Upstream as Declared
from thinkonce.upstream import client, kept
from thinkonce.upstream.connections import Connections
from thinkonce.web.server import new_loop

CHAT = b"POST /v1/chat/completions "
STOLEN = json.dumps({"model": "priced", "messages": [{"role": "user", "content": "stolen"}]})
HIDDEN = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-hidden: 1\r\n"
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


async def test_calls_of_one_tenant_share_a_connection_and_those_of_two_never(
    stage: Stage, careless: tuple[Careless, Declared]
) -> None:
    upstream, declared = careless
    gateway = await stage.gateway(upstreams={"main": declared})
    for name in ("a", "b", "a", "b"):
        got = await gateway.chat(f"by {name}", {"authorization": f"Bearer {name}"}, n=1)
        assert got.status == 200
    for turn in range(3):
        for name in ("a", "b"):
            await gateway.chat(f"{turn} by {name}", {"authorization": f"Bearer {name}"})
    assert upstream.connections == 2


@pytest.mark.parametrize("group", [{}, {"team": ["a", "b"]}], ids=["two tenants", "one group"])
async def test_with_a_key_of_the_gateways_it_is_the_same(
    stage: Stage, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, group: dict[str, list[str]]
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-own-key-of-it")
    writers: set[asyncio.StreamWriter] = set()
    upstream.script = noting(writers, upstream.script)
    clients = {
        name: Client(key_sha256=sha256(name.encode()).hexdigest(), group="team" if group else "")
        for name in ("a", "b")
    }
    pool = Declared(urls=[upstream.url], api_key_env="PROVIDER_KEY")
    gateway = await stage.gateway(upstreams={"main": pool}, clients=clients)
    for turn in range(3):
        for name in clients:
            key = {"authorization": f"Bearer {name}"}
            assert (await gateway.chat(f"{turn} {name}", key)).status == 200
            assert (await gateway.get("/v1/models", key)).status == 200
    assert len(writers) == (1 if group else 2)


def noting(writers: set[asyncio.StreamWriter], script: Script) -> Script:
    async def noted(seen: Seen, out: Out) -> None:
        writers.add(out.writer)
        if seen.method == "GET":
            await out.json({"object": "list", "data": []})
        else:
            await script(seen, out)

    return noted


async def test_a_list_of_all_pools_is_asked_for_on_connections_of_its_own_tenant(
    stage: Stage, upstream: Upstream
) -> None:
    writers: set[asyncio.StreamWriter] = set()
    other = await stage.another_upstream()
    other.script = noting(writers, other.script)
    pools = {"main": Declared(urls=[upstream.url]), "other": Declared(urls=[other.url])}
    gateway = await stage.gateway(upstreams=pools)
    for name in ("a", "b", "a", "b"):
        await gateway.get("/v1/models", {"authorization": f"Bearer {name}"})
    assert len(writers) == 2


class OnceTooOften:
    """Answers each call, and with the second on a connection gives one answer more in front."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].split()[0])
                body = json.loads(await reader.readexactly(length))
                asked += 1
                if asked == 2:
                    writer.write(whole(completion("one too many")))
                writer.write(whole(completion(f"to {body['messages'][0]['content']}")))
        writer.close()


async def test_answers_that_are_shifted_reach_no_other_tenant(stage: Stage) -> None:
    server = await asyncio.start_server(OnceTooOften().serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway = await stage.gateway(upstreams={"main": Declared(urls=[f"http://127.0.0.1:{port}"])})
    evil = {"authorization": "Bearer evil"}
    await gateway.chat("a", evil)
    assert (await gateway.chat("b", evil)).text == "one too many", "this one it brings on itself"
    for name in ("first", "second", "third"):
        for _ in range(2):
            got = await gateway.chat("hi", {"authorization": f"Bearer {name}"})
            assert got.text == "to hi"
    server.close()


async def test_idle_connections_are_bounded_and_the_oldest_goes_first(
    stage: Stage, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_IDLE", 4)
    monkeypatch.setattr(kept, "MOST_IDLE_OF_SERVER", 3)
    writers: dict[str, list[asyncio.StreamWriter]] = {}
    answers = upstream.script

    async def noted(seen: Seen, out: Out) -> None:
        writers.setdefault(seen.headers["authorization"], []).append(out.writer)
        await answers(seen, out)

    upstream.script = noted
    gateway = await stage.gateway()
    asked = iter(range(1000))

    async def ask(name: str) -> bool:
        """Whether it took the connection that it had."""
        await gateway.chat(str(next(asked)), {"authorization": name})
        return len(writers[name]) > 1 and writers[name][-1] is writers[name][-2]

    for name in "abc":
        assert not await ask(name)
    assert await ask("a"), "now the latest"
    assert not await ask("d"), "for which b's is ended"
    assert [await ask(name) for name in "acd"] == [True, True, True]
    assert not await ask("b")


async def test_what_waits_unread_when_a_connection_is_taken_ends_it(
    stage: Stage, upstream: Upstream
) -> None:
    writers: list[asyncio.StreamWriter] = []
    answers = upstream.script

    async def noted(seen: Seen, out: Out) -> None:
        writers.append(out.writer)
        await answers(seen, out)

    upstream.script = noted
    gateway = await stage.gateway()
    await gateway.chat("first")
    pool = gateway.assembly.client._connections["main"]
    connector = pool._kept.connector
    assert isinstance(connector, kept.KeptConnector)
    (key,) = connector._conns
    writers[0].get_extra_info("socket")._sock.send(EVIL)  # in this turn of the loop: nobody reads
    assert await connector._get(key, []) is None


async def test_an_answer_to_more_than_was_sent_is_of_a_request_before(stage: Stage) -> None:
    large, connections, over = "x" * 400_000, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                if connections == 1 and b"content-length: 4" in head:
                    writer.write(whole(completion("too early")))
                    await writer.drain()
                    await over.wait()
                    break
                length = int(head.partition(b"content-length: ")[2].split()[0])
                await reader.readexactly(length)
                writer.write(whole(completion("in time")))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=4096)
    port = server.sockets[0].getsockname()[1]
    gateway = await stage.gateway(upstreams={"main": Declared(urls=[f"http://127.0.0.1:{port}"])})
    await gateway.chat("first")
    assert (await gateway.chat(large)).text == "in time"
    assert connections == 2
    over.set()
    await turns()
    server.close()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/elsewhere"])
@pytest.mark.parametrize(("interim", "status"), [(32, 200), (33, 502), (100_000, 502)])
async def test_answers_that_are_none_yet_are_bounded(
    stage: Stage, path: str, interim: int, status: int
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * interim)
            await writer.drain()
            writer.write(whole(completion()))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway = await stage.gateway(upstreams={"main": Declared(urls=[f"http://127.0.0.1:{port}"])})
    got = await gateway.post(path, {"model": "priced", "messages": []})
    assert got.status == status
    if status == 502:
        assert got.json["error"]["code"] == "upstream_unreachable"
    server.close()


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


def test_a_connection_given_up_while_it_is_made_closes_no_descriptor_of_others() -> None:
    """uvloop has closed it by then, and its number may be another's: a client's, or a file's."""

    async def give_up(make: Callable[..., socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        server = socket.create_server(("127.0.0.1", 0))
        own = make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)))
        own.setblocking(False)
        await loop.sock_connect(own, server.getsockname())
        number = own.fileno()
        making = asyncio.ensure_future(loop.create_connection(asyncio.Protocol, sock=own))
        await asyncio.sleep(0)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        while (another := os.open(os.devnull, os.O_RDONLY)) != number:
            os.close(another)  # not closed yet
            await asyncio.sleep(0.001)
        del own, making
        gc.collect()
        os.fstat(another)  # open still
        os.close(another)
        server.close()

    async def give_up_each() -> None:
        connections = Connections(4, 5.0)
        for session in (connections._kept, connections._single):
            connector = session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            assert connector._socket_factory is not None
            await asyncio.wait_for(give_up(connector._socket_factory), 10)
        await connections.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(give_up_each())
