"""Everything an upstream can do wrong, at every endpoint: the right status, and nothing left."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import aiohttp
import pytest

from gateway.conftest import Got, Running, Stage, until
from gateway.upstream import Out, Script, Seen, Upstream, completion
from thinkonce.engine import fetch

SAID = [{"role": "user", "content": "hi"}]
ASKS: dict[str, dict[str, Any]] = {
    "chat/completions": {"model": "m", "messages": SAID},
    "completions": {"model": "m", "prompt": "hi"},
    "responses": {"model": "m", "input": "hi"},
    "messages": {"model": "m", "max_tokens": 9, "messages": SAID},
    "embeddings": {"model": "m", "input": ["hi", "ho"]},
}
SLOW = ("completions", "responses")  # read by the same code as chat, so by default it is chat
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ASKS]
STREAMING = [name for name in NAMES if name.values != ("embeddings",)]
ERROR = b'{"error": {"message": "as it came", "type": "server_error"}}'
MEGABYTES = b"x" * 20_000_000


async def ask(gateway: Running, name: str, **more: Any) -> Got:
    return await gateway.post(f"/v1/{name}", {**ASKS[name], **more})


async def nothing_is_left(gateway: Running) -> None:
    """Of an answer that went wrong: no entry, no call, no connection to the upstream in use."""
    assembly = gateway.assembly
    await until(lambda: assembly.metrics.inflight == 0)
    await until(lambda: len(assembly.shelf.flights) == 0)
    await until(lambda: not assembly.world._leading)
    assert len(assembly.shelf.memory) == 0
    for pool in assembly.pools.all:
        for server in pool.servers:
            assert server.busy == 0
    for connections in assembly.client._connections.values():
        await all_given_back(connections._kept)
        await all_given_back(connections._single)


async def all_given_back(session: aiohttp.ClientSession) -> None:
    connector = session.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    await until(lambda: not connector._acquired)


async def limited(seen: Seen, out: Out) -> None:
    await out.whole(ERROR, 429, retry_after="7")


async def failing(seen: Seen, out: Out) -> None:
    await out.whole(ERROR, 500)


async def moved(seen: Seen, out: Out) -> None:
    await out.whole(b"", 308, location="http://elsewhere.invalid/")


async def packed_error(seen: Seen, out: Out) -> None:
    await out.whole(gzip.compress(ERROR), 503, content_encoding="gzip")


PASSED = {"429": (limited, 429), "500": (failing, 500), "308": (moved, 308)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("script", "status"), PASSED.values(), ids=PASSED)
async def test_what_is_no_200_passes_and_is_not_stored(
    gateway: Running, upstream: Upstream, name: str, script: Script, status: int
) -> None:
    upstream.script = script
    for calls in (1, 2):
        got = await ask(gateway, name)
        assert (got.status, upstream.calls) == (status, calls)
        assert got.body == (b"" if status == 308 else ERROR)
    if status == 429:
        assert got.headers["retry-after"] == "7"
    if status == 308:
        assert got.headers["location"] == "http://elsewhere.invalid/"
    await nothing_is_left(gateway)


@pytest.mark.parametrize("name", NAMES)
async def test_an_error_that_comes_compressed_is_read(
    gateway: Running, upstream: Upstream, name: str
) -> None:
    upstream.script = packed_error
    got = await ask(gateway, name)
    assert (got.status, got.body) == (503, ERROR)
    assert "content-encoding" not in got.headers
    await nothing_is_left(gateway)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", [ERROR, b"{}", b"[]", b"<html>", b""])
async def test_a_200_that_holds_no_answer_is_not_stored(
    gateway: Running, upstream: Upstream, name: str, body: bytes
) -> None:
    upstream.script = lambda seen, out: out.whole(body)
    for calls in (1, 2):
        got = await ask(gateway, name)
        assert got.status in (200, 502)
        assert upstream.calls == calls, "the second one asks again"
    await nothing_is_left(gateway)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BROKEN = {
    "no http": b"not http at all\r\n\r\n",
    "too short": HEAD + b"content-length: 500\r\n\r\n{}",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "a bad chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "no last chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "no gzip": HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    "half a gzip": HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(MEGABYTES)[:200],
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_what_breaks_off_is_a_502(
    stage: Stage, upstream: Upstream, name: str, data: bytes
) -> None:
    async def talk(seen: Seen, out: Out) -> None:
        await out.raw(data)
        out.writer.close()

    upstream.script = talk
    gateway = await stage.gateway(gateway={"retries": 0})
    got = await ask(gateway, name)
    assert got.status == 502
    assert json.loads(got.body)["error"]["message"]
    await nothing_is_left(gateway)


CHUNKS = b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
LATER = {
    "a bad chunk": HEAD + CHUNKS,
    "a bad chunk of a stream": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + CHUNKS,
    "a bad chunk of an error": HEAD.replace(b"200 OK", b"400 Bad") + CHUNKS,
}


@pytest.mark.parametrize("data", LATER.values(), ids=LATER)
@pytest.mark.parametrize("path", ["chat/completions", "embeddings", "audio/speech"])
async def test_what_breaks_off_later_is_known_at_once(
    gateway: Running, upstream: Upstream, path: str, data: bytes
) -> None:
    """And not when the time between two pieces is over."""

    async def talk(seen: Seen, out: Out) -> None:
        await out.raw(data)
        await asyncio.sleep(0.02)  # for a segment of its own
        await out.raw(b"zz\r\n")
        await asyncio.Event().wait()

    upstream.script = talk
    async with asyncio.timeout(10):
        try:
            got = await gateway.post(f"/v1/{path}", ASKS.get(path, {"input": "x"}))
            assert b"framing is broken" in got.body or got.status == 400
        except aiohttp.ClientPayloadError:
            assert path == "audio/speech", "what has begun cannot be taken back"
    await nothing_is_left(gateway)


@pytest.mark.parametrize("name", NAMES)
async def test_an_answer_longer_than_it_says_is_cut_and_its_connection_not_used_again(
    gateway: Running, upstream: Upstream, name: str
) -> None:
    async def talk(seen: Seen, out: Out) -> None:
        await out.raw(HEAD + b"content-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nx-smuggled: 1\r\n\r\n")

    upstream.script = talk
    for _ in range(2):
        got = await ask(gateway, name)
        assert got.status in (200, 502)
        assert "x-smuggled" not in got.headers
    await nothing_is_left(gateway)


@pytest.mark.parametrize("name", NAMES)
async def test_who_does_not_answer_is_a_504(stage: Stage, upstream: Upstream, name: str) -> None:
    async def hang(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    upstream.script = hang
    gateway = await stage.gateway(gateway={"first_byte_timeout": 0.05})
    assert (await ask(gateway, name)).status == 504
    await upstream.deserted()
    await nothing_is_left(gateway)


@pytest.mark.parametrize("cut", [1, 30, 10_000])
async def test_a_compressed_answer_in_several_members_is_whole(
    gateway: Running, upstream: Upstream, cut: int
) -> None:
    """As servers send them that compress each event by itself (RFC 1952, 2.2)."""
    body = json.dumps(completion("hello" * 50)).encode()
    packed = gzip.compress(body[:100]) + gzip.compress(body[100:])

    async def talk(seen: Seen, out: Out) -> None:
        await out.begin_stream(content_type="application/json", content_encoding="gzip")
        for at in range(0, len(packed), cut):
            await out.piece(packed[at : at + cut])
        await out.end()

    upstream.script = talk
    got = await gateway.chat()
    assert (got.status, got.text) == (200, "hello" * 50)
    assert (await gateway.chat()).cache == "HIT"


SILENT = {
    "half an event": b"data: {",
    "no json": b"data: {nonsense}\n\ndata: [DONE]\n\n",
    "an error event": b'event: error\ndata: {"error": {"message": "broke", "type": "x"}}\n\n',
    "no event at all": b": a comment\n\n" * 3,
    "bytes that are no text": b"data: \xff\xfe\x00\n\n",
    "an event without end": b"data: " + b"x" * 3_000_000,
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("data", SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("end", ["ends", "breaks", "falls silent"])
async def test_a_stream_that_is_none_ends_and_is_not_stored(
    stage: Stage, upstream: Upstream, name: str, data: bytes, end: str
) -> None:
    async def talk(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.piece(data)
        if end == "falls silent":
            await asyncio.Event().wait()
        elif end == "ends":
            await out.end()
        else:
            out.cut()

    upstream.script = talk
    gateway = await stage.gateway(gateway={"read_timeout": 0.05})
    async with asyncio.timeout(10):
        try:
            got = await ask(gateway, name, stream=True)
            assert got.status in (200, 502, 504)
        except aiohttp.ClientPayloadError:
            pass  # cut off: what has begun cannot be taken back
    await nothing_is_left(gateway)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_little_that_unfolds_to_a_lot_is_refused_and_holds_nobody_up(
    gateway: Running,
    upstream: Upstream,
    name: str,
    coding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "MAX_ANSWER", 2_000_000)
    bomb = gzip.compress(MEGABYTES) if coding == "gzip" else zlib.compress(MEGABYTES)
    upstream.script = lambda seen, out: out.whole(bomb, content_encoding=coding)
    asking = asyncio.create_task(ask(gateway, name))
    assert (await gateway.get("/healthz")).status == 200
    assert (await asking).status == 502
    await nothing_is_left(gateway)
