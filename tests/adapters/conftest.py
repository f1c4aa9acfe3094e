"""Clients of both libraries, blocking and not, with caching transports, and a scripted provider."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import thinkonce.httpx
import thinkonce.httpx2
from gateway.conftest import Got
from gateway.upstream import Upstream

LIBRARIES: dict[str, tuple[ModuleType, ModuleType]] = {
    "httpx": (httpx, thinkonce.httpx),
    "httpx2": (httpx2, thinkonce.httpx2),
}
# Nobody here speaks TLS.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Kind:
    """One of the four transports, with a client that takes it."""

    library: Any
    ours: Any
    is_async: bool

    def transport(self, *wrapped: Any, **options: Any) -> Any:
        made = self.ours.AsyncCachingTransport if self.is_async else self.ours.CachingTransport
        return made(*(wrapped or (self.plain(),)), **options)

    def plain(self) -> Any:
        """What asks a provider, as by default but for certificates, which take long to read."""
        library = self.library
        made = library.AsyncHTTPTransport if self.is_async else library.HTTPTransport
        return made(verify=NO_CERTIFICATES)

    def client(self, transport: Any, **more: Any) -> Any:
        made = self.library.AsyncClient if self.is_async else self.library.Client
        return made(transport=transport, **more)


@dataclass
class Client:
    """Sends requests by a client of either kind; blocking ones from a thread."""

    kind: Kind
    client: Any
    transport: Any
    url: str

    async def call(self, name: str, *args: Any, **more: Any) -> Any:
        method = getattr(self.client, name)
        if self.kind.is_async:
            return await method(*args, **more)
        return await asyncio.to_thread(method, *args, **more)

    async def post(
        self, path: str, body: Any, headers: dict[str, str] | None = None, **more: Any
    ) -> Got:
        sent = {"content-type": "application/json", "authorization": "Bearer k"} | (headers or {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = path if path.startswith("http") else self.url + path
        answer = await self.call("post", url, content=content, headers=sent, **more)
        return Got(answer.status_code, dict(answer.headers), answer.content)

    async def chat(
        self, content: str = "hi", headers: dict[str, str] | None = None, **fields: Any
    ) -> Got:
        body = {"model": "m", "messages": [{"role": "user", "content": content}]} | fields
        return await self.post("/chat/completions", body, headers)

    @property
    def stats(self) -> Any:
        return self.transport.cache.stats()


@dataclass
class Stage:
    """Makes clients, and closes them behind the test."""

    stack: AsyncExitStack
    upstream: Upstream
    kind: Kind
    clients: list[Client] = field(default_factory=list)

    def client(self, *wrapped: Any, timeout: Any = 30, **options: Any) -> Client:
        transport = self.kind.transport(*wrapped, **options)
        made = self.kind.client(transport, timeout=timeout)
        client = Client(self.kind, made, transport, self.upstream.url)
        close = "aclose" if self.kind.is_async else "close"
        self.stack.push_async_callback(client.call, close)
        return client

    async def another_upstream(self) -> Upstream:
        upstream = Upstream()
        await upstream.start()
        self.stack.push_async_callback(upstream.stop)
        return upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    provider = Upstream()
    await provider.start()
    yield provider
    await provider.stop()


def kind_named(name: str) -> Kind:
    library, _, way = name.partition("-")
    return Kind(*LIBRARIES[library], way == "async")


@pytest.fixture(
    params=[
        "httpx2-blocking",
        "httpx2-async",
        pytest.param("httpx-blocking", marks=pytest.mark.slow),
        pytest.param("httpx-async", marks=pytest.mark.slow),
    ]
)
def kind(request: pytest.FixtureRequest) -> Kind:
    return kind_named(str(request.param))


@pytest.fixture(params=["httpx2-blocking", "httpx2-async", "httpx-blocking", "httpx-async"])
def all_kinds(request: pytest.FixtureRequest) -> Kind:
    """Where the two libraries could differ, both are tried by default."""
    return kind_named(str(request.param))


@pytest.fixture
async def stage(upstream: Upstream, kind: Kind) -> AsyncIterator[Stage]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    async with AsyncExitStack() as stack:
        yield Stage(stack, upstream, kind)


@pytest.fixture
def client(stage: Stage) -> Client:
    return stage.client()
