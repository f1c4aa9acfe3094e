"""A gateway on a socket in front of a scripted provider, both on the test's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
import pytest
import uvicorn
from openai import AsyncOpenAI

from gateway.upstream import Upstream
from thinkonce import settings as known
from thinkonce.clock import SYSTEM, Clock
from thinkonce.gateway.assembly import Assembly, assemble
from thinkonce.gateway.edge import limits_of
from thinkonce.insight.prices import Price, Prices
from thinkonce.upstream.pools import Pools
from thinkonce.web.edge import Edge
from thinkonce.web.lane import protocol_of

CHAT = "/v1/chat/completions"
TABLES = ("groups", "clients", "namespaces")
PRICES = Prices({"priced": Price(1.0, 2.0)})


@dataclass
class Got:
    """One answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")

    @property
    def reason(self) -> str:
        return self.headers.get("x-cache-reason", "")

    @property
    def text(self) -> str:
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, the end mark as it is."""
        data = [
            line.removeprefix("data: ")
            for line in self.body.decode().splitlines()
            if line.startswith("data: ")
        ]
        return [text if text == "[DONE]" else json.loads(text) for text in data]

    @property
    def streamed_text(self) -> str:
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            if event != "[DONE]"
            for choice in event["choices"]
        )


@dataclass
class Running:
    """A gateway that accepts requests at `url`."""

    url: str
    assembly: Assembly
    session: aiohttp.ClientSession
    server: uvicorn.Server
    edge: Edge

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Got:
        async with self.session.request(
            method,
            self.url + path,
            data=None if body is None else BytesIO(body),
            headers=headers,
            allow_redirects=False,
        ) as response:
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return Got(response.status, lowered, await response.read())

    async def chat(
        self, content: str = "hi", headers: dict[str, str] | None = None, **fields: Any
    ) -> Got:
        """Ask for one chat answer. Fields replace or join the body's."""
        body = {"model": "priced", "messages": [{"role": "user", "content": content}]} | fields
        sent = {"content-type": "application/json"} | (headers or {})
        return await self.send("POST", CHAT, json.dumps(body).encode(), sent)

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        sent = {"content-type": "application/json"} | (headers or {})
        return await self.send("POST", path, json.dumps(body).encode(), sent)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Got:
        return await self.send("GET", path, headers=headers)

    async def judged(self) -> None:
        """Wait until what was compared with the model's answer is judged and kept."""
        shelf = self.assembly.shelf
        assert shelf.meaning is not None
        await self.assembly.world.wait_for_renewals(20)
        assert await asyncio.to_thread(shelf.flush, 20)
        assert await asyncio.to_thread(shelf.meaning.audits.flush, 20)

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        rows = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(row.rpartition(" ")[2]) for row in rows)


@dataclass
class MovableClock:
    """Stands still until a test moves it."""

    wall: float = 1_700_000_000.0
    monotonic: float = 1_000.0

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds. The gateway runs on the same loop."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def running(settings: known.Settings, clock: Clock = SYSTEM) -> AsyncIterator[Running]:
    assembly = assemble(settings, Pools.of(settings.upstreams), clock=clock, prices=PRICES)
    edge = Edge(limits_of(settings.gateway))
    assembly.gateway.guard(edge)
    config = uvicorn.Config(
        assembly.gateway,
        http=protocol_of(assembly.lane, edge),
        port=0,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    server.config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        try:
            yield Running(f"http://127.0.0.1:{port}", assembly, session, server, edge)
        finally:
            await session.close()
            connections = server.server_state.connections
            for connection in list(connections):  # of other gateways, say, that lie idle
                connection.shutdown()
            await until(lambda: not connections)  # shutdown would look every 0.1 s
            await server.shutdown()
            await assembly.close(0.0)


def settings_of(upstreams: dict[str, known.Upstream], **sections: dict[str, Any]) -> known.Settings:
    """Defaults apart from `sections`: cache={"ttl": 60}, gateway={...}, store={...}."""
    sections.setdefault("store", {"url": "memory://"})
    sections.setdefault("gateway", {}).setdefault("access_log", False)
    sections.setdefault("cache", {}).setdefault("jitter", 0.0)
    settings = known.Settings(upstreams=upstreams)
    changed = {
        name: msgspec.structs.replace(getattr(settings, name), **values)
        for name, values in sections.items()
        if name not in TABLES
    }
    tables = {name: sections.get(name, {}) for name in TABLES}
    return msgspec.structs.replace(settings, **tables, **changed)


@dataclass
class Stage:
    """Starts what a test needs, and ends it in the right order."""

    stack: AsyncExitStack
    upstream: Upstream
    way: str = "lane"
    moving: MovableClock = field(default_factory=MovableClock)

    async def gateway(self, **sections: Any) -> Running:
        clock = sections.pop("clock", SYSTEM)
        upstreams = sections.pop("upstreams", {"main": known.Upstream(urls=[self.upstream.url])})
        chosen = {"inline": self.way != "flow", "fast_lane": self.way == "lane"}
        sections["gateway"] = chosen | sections.get("gateway", {})
        settings = settings_of(upstreams, **sections)
        return await self.stack.enter_async_context(running(settings, clock))

    async def another_upstream(self) -> Upstream:
        upstream = Upstream()
        await upstream.start()
        self.stack.push_async_callback(upstream.stop)
        return upstream

    async def openai(self, gateway: Running, key: str = "sk-test") -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=gateway.url + "/v1", api_key=key, max_retries=0)
        return await self.stack.enter_async_context(client)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    provider = Upstream()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture(
    params=["lane", *(pytest.param(way, marks=pytest.mark.slow) for way in ("asgi", "flow"))]
)
def way(request: pytest.FixtureRequest) -> str:
    """Who may answer a hit: the fast lane, the probe in plain ASGI, or the flow alone.

    Everything must hold all three ways.
    """
    return str(request.param)


@pytest.fixture(params=["lane", pytest.param("asgi", marks=pytest.mark.slow), "flow"])
def all_ways(request: pytest.FixtureRequest) -> str:
    """`way = all_ways` in a module: its tests are run in the lane and by the flow by default."""
    return str(request.param)


@pytest.fixture
async def stage(upstream: Upstream, way: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        yield Stage(stack, upstream, way)


@pytest.fixture
async def gateway(stage: Stage) -> Running:
    return await stage.gateway()
