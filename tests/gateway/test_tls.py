"""HTTPS in front of both paths: certificates, handshakes, and the limits behind them."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.conftest import PRICES, settings_of, until
from gateway.test_processes import Host, host
from gateway.upstream import Upstream
from gateway.wire import Line, asked
from thinkonce.errors import ConfigError
from thinkonce.gateway.assembly import assemble
from thinkonce.gateway.edge import limits_of
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.pools import Pools
from thinkonce.web.listener import bind
from thinkonce.web.server import Server, Terms
from thinkonce.web.tls import context_of

__all__ = ("host",)  # a fixture

HERE = Path(__file__).parent
CERT, RENEWED = HERE / "selfsigned.pem", HERE / "selfsigned_renewed.pem"


@pytest.fixture(params=["lane", pytest.param("asgi", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trusting(cert: Path, *, most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    if most is not None:
        context.minimum_version = context.maximum_version = most
    return context


@asynccontextmanager
async def serving(upstream: Upstream, way: str, **limits: float) -> AsyncIterator[Server]:
    chosen = {"fast_lane": way == "lane", **limits}
    settings = settings_of({"main": Pool(urls=[upstream.url])}, gateway=chosen)
    assembly = assemble(settings, Pools.of(settings.upstreams), prices=PRICES)
    listener = bind("127.0.0.1", 0)
    terms = Terms(5.0, limits_of(settings.gateway), context_of(str(CERT)))
    server = Server(assembly.gateway, listener, terms, lambda line: None, assembly.lane)
    assembly.gateway.guard(server.edge)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield server
    finally:
        server.stop()
        await serving
        await assembly.close(0.0)
        listener.close()


@asynccontextmanager
async def dialled(url: str, context: ssl.SSLContext) -> AsyncIterator[Line]:
    host, port = url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_are_answered_over_tls(
    upstream: Upstream, way: str, version: ssl.TLSVersion
) -> None:
    async with serving(upstream, way) as server:
        assert server.url.startswith("https://")
        async with dialled(server.url, trusting(CERT, most=version)) as client:
            assert await client.ask(asked()) == "MISS"
            assert await client.ask(asked()) == "HIT"
            await client.send(asked() * 3 + asked("new"))
            seen = [(await client.answer())[0] for _ in range(4)]
            assert seen == ["HIT", "HIT", "HIT", "MISS"]
    assert upstream.calls == 2


async def test_the_limits_hold_over_tls(upstream: Upstream, way: str) -> None:
    async with serving(upstream, way, request_timeout=0.3, max_connections=1) as server:
        async with dialled(server.url, trusting(CERT)) as client:
            await client.ask(asked())
            async with dialled(server.url, trusting(CERT)) as another:
                assert (await another.reader.read()).startswith(b"HTTP/1.1 503 ")
            await client.send(asked()[:-5])
            assert (await client.reader.read()).startswith(b"HTTP/1.1 408 ")
        await until(lambda: server.edge.open == 0)


async def test_connections_that_do_not_begin_tls_give_way_to_those_that_do(
    upstream: Upstream, way: str
) -> None:
    async with serving(upstream, way, max_connections=3) as server:
        host, port = server.url.removeprefix("https://").split(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(12)]
        await until(lambda: sum(reader.at_eof() for reader, _ in silent) == 9)
        async with dialled(server.url, trusting(CERT)) as client:
            assert await client.ask(asked()) == "MISS"
        assert [reader.at_eof() for reader, _ in silent] == [True] * 10 + [False] * 2
        assert server.edge.ended["connections"] == 10
        server.stop()
        for reader, writer in silent:
            assert await reader.read() == b"", "no drain waits for a handshake"
            writer.close()


async def test_a_connection_refused_over_tls_holds_nothing(upstream: Upstream, way: str) -> None:
    """Though its client never says goodbye, for which TLS would wait."""
    async with serving(upstream, way, max_connections=1) as server:
        async with dialled(server.url, trusting(CERT)) as client:
            await client.ask(asked())
            refused = await asyncio.to_thread(shaken, server.url)
            await until(lambda: server.edge.ended["connections"] == 1)
            assert server.edge.open == 1, "the one that is served"
        await until(lambda: not server.server_state.connections)
        assert refused.recv(4096).startswith(b"HTTP/1.1 503 ")
        refused.close()


def shaken(url: str) -> ssl.SSLSocket:
    """A connection through its handshake, whose client does nothing more by itself."""
    host, port = url.removeprefix("https://").split(":")
    return trusting(CERT).wrap_socket(socket.create_connection((host, int(port)), 5))


async def test_a_client_that_does_not_read_is_cut_off_over_tls(
    upstream: Upstream, way: str
) -> None:
    async with serving(upstream, way, write_timeout=0.1) as server:
        async with dialled(server.url, trusting(CERT)) as client:
            await client.ask(asked())
            client.writer.transport.pause_reading()
            client.writer.write(asked() * 20_000)
            await until(lambda: server.edge.ended["write"] == 1)
        await until(lambda: server.edge.open == 0)


async def test_plain_http_to_it_is_answered_by_nobody(upstream: Upstream, way: str) -> None:
    async with serving(upstream, way) as server:
        address, port = server.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(asked())
        assert await reader.read() == b""
        writer.close()
        await until(lambda: server.edge.open == 0)
    assert upstream.calls == 0


async def test_old_tls_is_refused(upstream: Upstream) -> None:
    assert context_of(str(CERT)).minimum_version is ssl.TLSVersion.TLSv1_2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cert", "key", "names"),
    [
        ("nowhere.pem", "", "tls_cert"),
        (str(CERT), "nowhere.pem", "tls_key"),
        (str(CERT), str(RENEWED), "tls_cert"),
        (__file__, "", "tls_cert"),
        ("", str(CERT), "tls_key"),
    ],
    ids=["no certificate", "no key", "another's key", "no PEM", "a key alone"],
)
def test_a_certificate_that_cannot_be_used_is_named(cert: str, key: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        context_of(cert, key)


async def test_a_process_shows_a_renewed_certificate_after_sighup(host: Host) -> None:
    cert = host.folder / "cert.pem"
    cert.write_bytes(CERT.read_bytes())
    gateway = await host.gateway(THINKONCE_GATEWAY_TLS_CERT=str(cert))
    assert gateway.url.startswith("https://")
    async with dialled(gateway.url, trusting(CERT)) as client:
        assert await client.ask(asked()) == "MISS"
        cert.write_text("half a certificate")
        gateway.child.send_signal(signal.SIGHUP)
        await said(gateway.child, "stays as it was")
        async with dialled(gateway.url, trusting(CERT)) as another:
            assert await another.ask(asked()) == "HIT"
        cert.write_bytes(RENEWED.read_bytes())
        gateway.child.send_signal(signal.SIGHUP)
        await said(gateway.child, "reloaded")
        async with dialled(gateway.url, trusting(RENEWED)) as another:
            assert await another.ask(asked()) == "HIT"
        assert await client.ask(asked()) == "HIT", "a connection that is open stays as it is"
    code, _ = await gateway.end()
    assert code == 0


async def said(child: asyncio.subprocess.Process, words: str) -> None:
    assert child.stderr is not None
    async with asyncio.timeout(10):
        while words not in (line := (await child.stderr.readline()).decode()):
            assert line, f"it ended before it said {words!r}"
