"""Requests that two servers could read differently, and values that could become headers."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.conftest import Running, Stage, until
from gateway.upstream import Out, Seen, Upstream, answer, completion
from gateway.wire import Line, asked, connections, line
from thinkonce.web.protocol import MOST_PIPELINED, SLICE

BODY = b'{"model":"priced","messages":[]}'
GOOD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)


@pytest.fixture(params=["lane", pytest.param("asgi", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def status_of(client: Line, data: bytes) -> int:
    """Of the only answer; the connection ends with it."""
    await client.send(data)
    async with asyncio.timeout(10):
        answer = await client.reader.read()
    assert answer.count(b"HTTP/1.1 ") == 1
    return int(answer.split()[1])


CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
ODD = {
    "a length and chunks": GOOD + LENGTH + CHUNKED + b"0\r\n\r\n",
    "chunks and a length": GOOD + b"transfer-encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n",
    "two lengths": GOOD + LENGTH + b"content-length: 3\r\n\r\n" + BODY,
    "two equal lengths": GOOD + LENGTH * 2 + b"\r\n" + BODY,
    "a list of lengths": GOOD + b"content-length: 3, 3\r\n\r\n{} ",
    "a negative length": GOOD + b"content-length: -1\r\n\r\n",
    "a length with a sign": GOOD + b"content-length: +2\r\n\r\n{}",
    "a length in hex": GOOD + b"content-length: 0x2\r\n\r\n{}",
    "a length beyond 64 bits": GOOD + b"content-length: 99999999999999999999\r\n\r\n{}",
    "a length of thousands of digits": GOOD + b"content-length: %b9\r\n\r\n" % (b"0" * 5000),
    "a folded line": GOOD + b"x-a: b\r\n c: d\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded length": GOOD + b"content-length:\r\n 32\r\n\r\n" + BODY,
    "a space before the colon": GOOD + b"content-length : 32\r\n\r\n" + BODY,
    "a tab before the colon": GOOD + b"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a space before the name": GOOD + b" transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a line without a colon": GOOD + b"transfer-encoding chunked\r\n\r\n0\r\n\r\n",
    "an empty name": GOOD + b": x\r\n\r\n",
    "NUL in a value": GOOD + b"x-a: b\0c\r\n\r\n",
    "CR alone in a value": GOOD + b"x-a: b\rx-b: c\r\n" + LENGTH + b"\r\n" + BODY,
    "LF alone": GOOD.replace(b"\r\n", b"\n") + LENGTH.replace(b"\r\n", b"\n") + b"\n" + BODY,
    "an unknown coding": GOOD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding before chunks": GOOD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding of its own line": GOOD + b"transfer-encoding: gzip\r\n" + CHUNKED + b"0\r\n\r\n",
    "a coding in disguise": GOOD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": GOOD + CHUNKED + b"fffffffffffffffff\r\n",
    "a chunk of no size": GOOD + CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer": GOOD + CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "a negative chunk": GOOD + CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunks with LF alone": GOOD + CHUNKED + b"2\n{}\n0\n\n",
    "a chunk extension with LF": GOOD + CHUNKED + b"2;\n{}\r\n0\r\n\r\n",
    "another version": GOOD.replace(b"1.1", b"1.9") + LENGTH + b"\r\n" + BODY,
    "no version": b"POST /v1/chat/completions\r\n\r\n",
    "a control character in the path": b"GET /v1/\x01 HTTP/1.1\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /v1/\xff HTTP/1.1\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_ends(
    gateway: Running, upstream: Upstream, data: bytes
) -> None:
    async with line(gateway) as client:
        assert await client.ask(asked()) == "MISS"  # so that the lane knows heads
        assert await status_of(client, data) == 400
    assert upstream.calls == 1, "nothing hidden in it was served"
    await until(lambda: not connections(gateway))
    assert gateway.assembly.metrics.inflight == 0


async def test_a_refusal_is_json_with_a_request_id_and_counted_in_the_log(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await stage.gateway(gateway={"access_log": True})
    async with line(gateway) as client:
        await client.send(b"no HTTP\r\n\r\n")
        head, body = (await client.reader.read()).split(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "invalid_http"
    (ids,) = [row[14:].decode() for row in head.split(b"\r\n") if row.startswith(b"x-request-id")]
    gateway.assembly.access_log.flush()
    assert f" {ids} - 400 - invalid_http " in capsys.readouterr().err


async def test_chunks_are_read_whatever_their_size_and_extensions(gateway: Running) -> None:
    async with line(gateway) as client:
        assert await client.ask(asked()) == "MISS"
        body = asked().partition(b"\r\n\r\n")[2]
        single = b"".join(b'1;a="b c"\r\n%c\r\n' % byte for byte in body)
        trailer = b"0\r\nx-thinkonce-namespace: other\r\n\r\n"
        head = GOOD + b"content-type: application/json\r\n" + CHUNKED
        assert await client.ask(head + single + trailer) == "HIT", "trailers say nothing"


async def test_chunk_extensions_without_end_are_refused(gateway: Running) -> None:
    async with line(gateway) as client:
        await client.send(GOOD + CHUNKED)
        client.writer.write(b"2;" + b"x" * 2_000_000)
        assert await client.status() == 400


async def test_trailers_without_end_are_refused(gateway: Running) -> None:
    async with line(gateway) as client:
        await client.send(GOOD + CHUNKED + b"2\r\n{}\r\n0\r\n")
        client.writer.write(b"x-trailer: y\r\n" * 100_000)
        assert await client.status() == 400


async def test_trailers_behind_a_large_body_are_bounded_and_kept_by_nobody(
    gateway: Running,
) -> None:
    body = asked().partition(b"\r\n\r\n")[2] + b" " * 100_000
    head = GOOD + b"content-type: application/json\r\n" + CHUNKED
    request = head + b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    async with line(gateway) as client:
        assert await client.ask(request + b"x-trailer: y\r\n" * 1000 + b"\r\n") == "MISS"
        (link,) = connections(gateway)
        assert link.headers == []
        await client.send(request)
        client.writer.write(b"x-trailer: y\r\n" * 50_000)
        assert await client.status() == 400


async def test_a_chunk_may_announce_more_than_a_body_may_hold_and_is_refused_when_it_does(
    stage: Stage,
) -> None:
    gateway = await stage.gateway(gateway={"body_limit": 1024})
    async with line(gateway) as client:
        client.writer.write(GOOD + CHUNKED + b"7fffffffffffffff\r\n" + b"x" * 5000)
        assert await client.status() == 413


# -- requests that wait for the answers before theirs --------------------------------------

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def answers_behind_a_slow_one(stage: Stage, count: int) -> int:
    """How many answers come to a slow request, so many behind it, and one that is the last."""
    gateway, go_on = await stage.gateway(), asyncio.Event()
    last = HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")

    async def slow(seen: Seen, out: Out) -> None:
        await go_on.wait()
        await answer(seen, out)

    stage.upstream.script = slow
    async with line(gateway) as client, asyncio.timeout(30):
        sending = asyncio.create_task(client.send(asked() + HEALTH * count + last))
        await until(lambda: stage.upstream.calls == 1)
        (link,) = connections(gateway)
        assert len(link.pipeline) <= MOST_PIPELINED + SLICE // len(HEALTH)
        go_on.set()
        found = (await client.reader.read()).count(b"HTTP/1.1 200 ")
        await sending
        return found


@pytest.mark.parametrize("count", [1, MOST_PIPELINED, 5000])
async def test_requests_that_wait_are_bounded_and_all_are_answered(
    stage: Stage, count: int
) -> None:
    assert await answers_behind_a_slow_one(stage, count) == count + 2


async def test_what_waits_stays_bounded_while_requests_before_it_read_their_bodies(
    stage: Stage,
) -> None:
    gateway = await stage.gateway()
    held: list[int] = []

    async def looked(seen: Seen, out: Out) -> None:
        held.append(len(connections(gateway)[0]._later))
        await answer(seen, out)

    stage.upstream.script = looked
    post = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}"
    async with line(gateway) as client, asyncio.timeout(30):
        sending = asyncio.create_task(client.send(post * 60_000))
        await until(lambda: len(held) >= 150)
        sending.cancel()
    assert 0 < max(held) < 2**20


# -- what becomes a header or a line of the log ------------------------------------------


@pytest.mark.parametrize("sent", ["a b", "x" * 129, "naïve", "tab\tbed"])
async def test_a_request_id_that_is_none_is_replaced(gateway: Running, sent: str) -> None:
    head = asked(more=f"x-request-id: {sent}")
    async with line(gateway) as client:
        await client.send(head)
        answer = (await client.reader.readuntil(b"\r\n\r\n")).decode()
    (ids,) = [row[14:] for row in answer.split("\r\n") if row.startswith("x-request-id")]
    assert ids != sent


async def test_a_model_named_like_header_lines_stays_in_the_body(
    stage: Stage, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await stage.gateway(gateway={"access_log": True})
    odd = 'm\r\nset-cookie: a=b\r\n"} \x1b[2J'
    async with line(gateway) as client:
        for _ in range(2):
            await client.send(asked(model=odd))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"set-cookie" not in head
            length = int(head.partition(b"content-length: ")[2].split()[0])
            await client.reader.readexactly(length)
    page = (await gateway.get("/metrics")).body
    assert b"set-cookie" not in page, "it is not a label"
    gateway.assembly.access_log.flush()
    logged = capsys.readouterr().err
    assert "set-cookie" not in logged
    assert "\x1b" not in logged


async def test_an_upstreams_headers_and_ids_make_no_lines_of_their_own(
    gateway: Running, upstream: Upstream
) -> None:
    async def odd(seen: Seen, out: Out) -> None:
        body = json.dumps(completion(id="x\r\nset-cookie: a=b")).encode()
        kind = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        await out.raw(b"HTTP/1.1 200 OK\r\nx-ratelimit-odd: a\x01b\r\nx-ratelimit-left: 7\r\n")
        await out.raw(kind + b"\r\n" + body)

    upstream.script = odd
    for cache in ("MISS", "HIT"):
        got = await gateway.chat()
        assert (got.status, got.cache) == (200, cache)
        assert "set-cookie" not in got.headers
        assert "x-ratelimit-odd" not in got.headers
        assert "x-cache-source-id" not in got.headers


async def test_control_characters_in_a_forwarded_header_never_reach_the_upstream(
    gateway: Running, upstream: Upstream
) -> None:
    data = asked(more="openai-beta: a\x01b")
    async with line(gateway) as client:
        await client.send(data)
        assert await client.status() == 400
    assert upstream.calls == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../../x",
        "/v1/%2e%2E/x",
        "/v1/a/..%2fx",
        "/v1/a/..%5cx",
        "/v1/./x",
        "/v1/..",
        "/v1/..;/x",
    ],
)
async def test_a_path_that_leads_out_of_the_base_url_is_refused(
    gateway: Running, upstream: Upstream, path: str
) -> None:
    async with line(gateway) as client:
        head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        assert await status_of(client, head.encode()) == 400
    assert upstream.calls == 0
    await gateway.get("/v1/files/a..b.c")
    assert upstream.calls == 1, "dots in a name are none"
