"""Connections to a gateway, byte by byte: what no client library would send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.conftest import CHAT, Running


@dataclass
class Line:
    """One connection, in bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[str, bytes]:
        """The value of x-cache, or the status if it is not 200; the body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head)
        assert length is not None, head
        body = await self.reader.readexactly(int(length[1]))
        cache = re.search(r"x-cache: (\w+)", head)
        status = head.split(" ")[1]
        return (cache[1] if cache and status == "200" else status), body

    async def status(self) -> int:
        """That of the next answer, of which the rest stays unread."""
        async with asyncio.timeout(10):
            return int((await self.reader.readline()).split()[1])

    async def ask(self, data: bytes) -> str:
        await self.send(data)
        return (await self.answer())[0]

    async def ended(self) -> bool:
        return await self.reader.read() == b""


@asynccontextmanager
async def line(gateway: Running) -> AsyncIterator[Line]:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def asked(content: str = "hi", more: str = "", *, end: str = "\r\n", **fields: object) -> bytes:
    message = {"model": "priced", "messages": [{"role": "user", "content": content}]}
    body = json.dumps(message | fields).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [*more.splitlines(), f"content-length: {len(body)}", "", ""]
    return end.join(lines).encode() + body


def connections(gateway: Running) -> list:
    """The server's ends that are open."""
    return list(gateway.server.server_state.connections)


def held(gateway: Running) -> bool:
    """Whether a request in the lane waits for its body."""
    return any(link._door is not None for link in connections(gateway))
