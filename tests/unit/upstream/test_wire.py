"""Requests over aiohttp's connections, without its session in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from thinkonce.upstream.wire import MAX_WRITE, Wire

PATIENCE = 10.0
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HEADERS = [(b"content-type", b"application/json"), (b"x-two", b"one"), (b"x-two", b"two")]


class Upstream:
    """Answers each request with the next of `answers`, and keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.asked = list(answers), list[bytes]()
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                self.asked.append(head + await reader.readexactly(length))
                writer.write(self.answers.pop(0))
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def upstream(*answers: bytes) -> AsyncIterator[tuple[Upstream, Wire]]:
    there = Upstream(*answers)
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat?q=%61"
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        yield there, Wire(session)
    server.close()


async def test_a_request_is_written_as_it_was_given() -> None:
    async with upstream(WHOLE) as (there, wire):
        answer = await wire.ask("POST", there.url, HEADERS, b"{}", "owner")
        assert answer is not None
        assert (answer.status, await answer.content.read()) == (200, b"ok")
    host = there.url.split("/")[2].encode()
    assert there.asked == [
        b"POST /v1/chat?q=%61 HTTP/1.1\r\nhost: " + host + b"\r\ncontent-type: application/json"
        b"\r\nx-two: one\r\nx-two: two\r\ncontent-length: 2\r\n\r\n{}"
    ]


async def test_a_connection_serves_the_next_request_once_its_answer_is_whole() -> None:
    async with upstream(WHOLE, WHOLE) as (there, wire):
        for _ in range(2):
            answer = await wire.ask("POST", there.url, HEADERS, b"{}", "owner")
            assert answer is not None
            assert await answer.content.read() == b"ok"
        assert there.connections == 1


async def test_a_connection_whose_answer_was_left_serves_nobody_else() -> None:
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok"
    async with upstream(begun, WHOLE) as (there, wire):
        left = await wire.ask("POST", there.url, HEADERS, b"{}", "owner")
        assert left is not None
        left.close()
        answer = await wire.ask("POST", there.url, HEADERS, b"{}", "owner")
        assert answer is not None
        assert await answer.content.read() == b"ok"
        assert there.connections == 2


async def test_who_reads_an_answer_that_is_closed_is_told() -> None:
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n"
    async with upstream(begun) as (there, wire):
        answer = await wire.ask("POST", there.url, HEADERS, b"{}", "owner")
        assert answer is not None
        reading = asyncio.ensure_future(answer.content.readany())
        await asyncio.sleep(0)
        answer.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await reading


async def test_what_comes_before_the_answer_is_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with upstream(early + WHOLE) as (there, wire):
        answer = await wire.ask("POST", there.url, HEADERS, b"{}", "owner")
        assert answer is not None
        assert (answer.status, await answer.content.read()) == (200, b"ok")


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_with_the_end_of_a_line_in_it_is_never_sent(value: bytes) -> None:
    async with upstream(WHOLE) as (there, wire):
        with pytest.raises(ValueError, match="end of a line"):
            await wire.ask("POST", there.url, [(b"x-one", value)], b"{}", "owner")
        assert there.connections == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda url: (url, [(b"host", b"elsewhere")], b"{}"),
        lambda url: (url, [(b"transfer-encoding", b"chunked")], b"{}"),
        lambda url: (url.replace("http://", "http://user:word@"), HEADERS, b"{}"),
        lambda url: (url, HEADERS, b""),
        lambda url: (url, HEADERS, b"x" * (MAX_WRITE + 1)),
    ],
)
async def test_what_it_cannot_do_is_left_to_the_session(
    change: Callable[[str], tuple[str, list[tuple[bytes, bytes]], bytes]],
) -> None:
    async with upstream() as (there, wire):
        assert await wire.ask("POST", *change(there.url), "owner") is None
        assert there.connections == 0


async def test_an_answer_that_is_not_http_is_an_error_of_the_clients() -> None:
    async with upstream(b"SSH-2.0-here\r\n\r\n") as (there, wire):
        with pytest.raises(aiohttp.ClientResponseError):
            await wire.ask("POST", there.url, HEADERS, b"{}", "owner")


async def test_a_get_has_no_body_and_no_length() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(WHOLE)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        wire = Wire(session)
        assert await wire.ask("GET", f"http://{place}/a?b", HEADERS, b"{}", "owner") is None
        answer = await wire.ask("GET", f"http://{place}/a?b", HEADERS[1:2], b"", "owner")
        assert answer is not None
        assert await answer.content.read() == b"ok"
    assert heads == [f"GET /a?b HTTP/1.1\r\nhost: {place}\r\nx-two: one\r\n\r\n".encode()]
    server.close()
