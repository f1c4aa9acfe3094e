"""The gateway as a process: its lines, its signals, its exit codes, its store and its siblings."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.conftest import CHAT, Got
from gateway.upstream import (
    DONE,
    USAGE_CHUNK,
    Out,
    Seen,
    Upstream,
    chunks,
    completion,
    once,
    saying,
)

READY_SECONDS = 60


@dataclass
class Process:
    """`thinkonce serve` in a process of its own."""

    child: asyncio.subprocess.Process
    lines: list[str]
    url: str
    session: aiohttp.ClientSession
    farewell: list[str] = field(default_factory=list)  # what it said after it was ready

    async def chat(self, content: str = "hi", **fields: Any) -> Got:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]} | fields
        return await self.post(CHAT, body)

    async def post(self, path: str, body: Any) -> Got:
        async with self.session.post(self.url + path, json=body) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Got(response.status, headers, await response.read())

    async def stats(self) -> Any:
        async with self.session.get(self.url + "/cache/stats") as response:
            return json.loads(await response.read())

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit code and what was written to stderr."""
        self.child.send_signal(number)
        return await self.ended()

    async def ended(self) -> tuple[int, str]:
        said, errors = await asyncio.wait_for(self.child.communicate(), 30)
        self.farewell += said.decode().splitlines()
        assert self.child.returncode is not None
        return self.child.returncode, errors.decode()


class Host:
    """Starts gateways that share a folder; ends what is left of them."""

    def __init__(self, stack: AsyncExitStack, folder: Path, upstream: Upstream) -> None:
        self._stack, self.folder, self.upstream = stack, folder, upstream
        self.store = f"sqlite:///{folder / 'answers.db'}"

    async def spawn(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "thinkonce", "serve", *arguments),
            cwd=self.folder,
            env={**os.environ, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._stack.push_async_callback(finish, child)
        return child

    async def gateway(self, *arguments: str, **environ: str) -> Process:
        return await self._ready("--upstream", self.upstream.url, *arguments, **environ)

    async def started(self, *arguments: str) -> Process:
        """One whose upstreams are in its configuration."""
        return await self._ready(*arguments)

    async def local_gateway(self, model: Path, *arguments: str) -> Process:
        return await self._ready("--local", str(model), *arguments)

    async def _ready(self, *arguments: str, **environ: str) -> Process:
        child = await self.spawn("--port", "0", "--store", self.store, *arguments, **environ)
        lines = await read_until_ready(child)
        url = re.findall(r"thinkonce ready on (\S+)", "\n".join(lines))[0]
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        return Process(child, lines, url, session)

    async def entered(self, session: aiohttp.ClientSession) -> aiohttp.ClientSession:
        """The session, closed at the end of the test."""
        return await self._stack.enter_async_context(session)

    async def two_gateways(self) -> tuple[Process, Process]:
        one, two = await asyncio.gather(self.gateway(), self.gateway())
        return one, two


async def finish(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.kill()
    await child.communicate()


async def read_until_ready(child: asyncio.subprocess.Process) -> list[str]:
    assert child.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(READY_SECONDS):
        while not any(line.startswith("try:") for line in lines):
            line = await child.stdout.readline()
            if not line:
                raise AssertionError((await child.communicate())[1].decode())
            lines.append(line.decode().rstrip())
    return lines


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


async def test_it_says_where_and_how_and_drains_on_sigterm(host: Host) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for event in chunks("hel"):
            await out.event(event)
        await gate.wait()
        await out.event(DONE)
        await out.end()

    host.upstream.script = slow
    gateway = await host.gateway()
    assert f"answers are kept in {host.store.removeprefix('sqlite:///')}" in gateway.lines
    assert gateway.lines[-1].startswith(f"try: curl {gateway.url}/v1/chat/completions")
    asking = asyncio.create_task(gateway.chat(stream=True))
    await host.upstream.called()
    gateway.child.send_signal(signal.SIGTERM)
    assert gateway.child.stdout is not None
    line = (await gateway.child.stdout.readline()).decode()
    assert line == "draining: 1 answer under way, up to 30 s; again to stop at once\n"
    gate.set()
    assert (await asking).events[-1] == "[DONE]", "an answer under way is finished"
    code, errors = await gateway.ended()
    assert (code, "Traceback" in errors) == (0, False)
    assert gateway.farewell == ["stopped: no answer was cut off"]
    again = await host.gateway()
    assert (await again.chat()).cache == "HIT", "the write was flushed"
    assert (await again.end(signal.SIGINT))[0] == 0
    assert again.farewell[0].startswith("draining: 0 answers under way")


async def test_answers_under_way_get_the_drain_timeout_and_no_more(host: Host) -> None:
    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    host.upstream.script = never
    gateway = await host.gateway(THINKONCE_GATEWAY_DRAIN_TIMEOUT="1")
    asking = asyncio.create_task(gateway.chat())
    await host.upstream.called()
    code, errors = await gateway.end()
    assert (code, "Traceback" in errors) == (0, False)
    assert gateway.farewell[-1] == "stopped: 1 answer given up"
    await asyncio.gather(asking, return_exceptions=True)
    await host.upstream.left()


async def test_a_log_that_nobody_reads_holds_nobody_up(host: Host) -> None:
    """As where a terminal is stopped, or what collects a container's output stands still."""
    gateway = await host.gateway(THINKONCE_GATEWAY_DRAIN_TIMEOUT="1")
    assert gateway.child.stderr is not None
    transport = gateway.child.stderr._transport  # type: ignore[attr-defined]
    transport.pause_reading()
    try:
        async with asyncio.timeout(20):
            for _ in range(300):  # of which each line is as long as its path
                async with gateway.session.get(f"{gateway.url}/cache/{'x' * 7000}") as response:
                    await response.read()
            gateway.child.send_signal(signal.SIGTERM)
            assert gateway.child.stdout is not None
            said = await gateway.child.stdout.read()  # until it has ended
    finally:
        transport.resume_reading()
    assert b"stopped: no answer was cut off" in said
    assert (await gateway.ended())[0] == 0


@pytest.mark.parametrize("abandoned", [False, True])
async def test_a_second_ctrl_c_gives_up_what_is_under_way(host: Host, abandoned: bool) -> None:
    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    host.upstream.script = never
    gateway = await host.gateway(
        THINKONCE_GATEWAY_DRAIN_TIMEOUT="600",
        THINKONCE_GATEWAY_FINISH_ABANDONED=str(abandoned).lower(),
    )
    asking = asyncio.create_task(gateway.chat())
    await host.upstream.called()
    gateway.child.send_signal(signal.SIGINT)
    assert gateway.child.stdout is not None
    assert b"draining: 1 answer under way" in await gateway.child.stdout.readline()
    code, errors = await gateway.end(signal.SIGINT)
    assert (code, "Traceback" in errors) == (0, False)
    assert gateway.farewell == ["stopped: 1 answer given up"]
    await asyncio.gather(asking, return_exceptions=True)
    await host.upstream.left()


async def test_two_processes_share_answers_and_purges(host: Host) -> None:
    one, two = await host.two_gateways()
    first = await one.chat(stream=True)
    await flushed(one)
    second = await two.chat()
    assert (first.cache, second.cache, second.headers["x-cache-tier"]) == ("MISS", "HIT", "sqlite")
    assert second.headers["x-cache-key"] == first.headers["x-cache-key"]
    assert (await two.chat()).headers["x-cache-tier"] == "memory", "the nearer tier was filled"
    assert (await one.post("/cache/purge", {"all": True})).json == {"purged": 1}
    assert (await two.chat()).cache == "MISS", "at once, in every process"
    assert host.upstream.calls == 2


async def test_a_purge_in_another_process_during_a_slow_miss_holds(host: Host) -> None:
    gate = asyncio.Event()

    host.upstream.script = once(gate, saying(completion()))
    one, two = await host.two_gateways()
    asking = asyncio.create_task(one.chat())
    await host.upstream.called()
    await two.post("/cache/purge", {"all": True})
    gate.set()
    assert (await asking).status == 200
    await flushed(one)
    assert (await two.chat()).cache == "MISS"
    assert (await one.chat("x")).cache == "MISS"


@pytest.mark.parametrize("shapes", [(False, False), (True, True), (True, False), (False, True)])
async def test_identical_requests_to_two_processes_are_one_call(
    host: Host, shapes: tuple[bool, bool]
) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        if not seen.json["stream"]:
            await gate.wait()
            await out.json(completion())
            return
        await out.begin_stream()
        first, *rest = chunks("hel", "lo")
        await out.event(first)
        await gate.wait()
        for event in [*rest, DONE]:
            await out.event(event)
        await out.end()

    host.upstream.script = slow
    one, two = await host.two_gateways()
    here = [asyncio.create_task(one.chat(stream=shapes[0])) for _ in range(5)]
    await host.upstream.called()
    there = [asyncio.create_task(two.chat(stream=shapes[1])) for _ in range(5)]
    await joined(two, 5)
    gate.set()
    got = await asyncio.gather(*here, *there)
    assert host.upstream.calls == 1
    assert sorted(one.cache for one in got) == ["COALESCED"] * 9 + ["MISS"]
    texts = {one.streamed_text if one.body.startswith(b"data") else one.text for one in got}
    assert texts == {"hello"}


class Halfway:
    """A provider that streams an event and waits; with the counts at the end, if asked for."""

    def __init__(self, upstream: Upstream) -> None:
        self.go_on = asyncio.Event()
        self.upstream = upstream
        upstream.script = self.answer

    async def answer(self, seen: Seen, out: Out) -> None:
        number = self.upstream.calls
        await out.begin_stream()
        first, *rest = chunks(f"call {number}")
        await out.event(first)
        await self.go_on.wait()
        if (seen.json.get("stream_options") or {}).get("include_usage"):
            rest.append(USAGE_CHUNK)
        for event in [*rest, DONE]:
            await out.event(event)
        await out.end()


COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def streamed(gateway: Process, **fields: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer whose head has come."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]} | fields
    async with gateway.session.post(gateway.url + CHAT, json=body) as response:
        yield response


async def test_who_wants_the_counts_rides_live_on_a_call_elsewhere_that_asked_for_them(
    host: Host,
) -> None:
    provider = Halfway(host.upstream)
    one, two = await host.two_gateways()
    async with streamed(one, **COUNTED) as here, streamed(two, **COUNTED) as there:
        for response in (here, there):
            assert b'"role"' in await response.content.readuntil(b"\n\n"), "before the end"
        provider.go_on.set()
        for response in (here, there):
            rest = await response.read()
            assert b'"completion_tokens":7' in rest.replace(b" ", b"")
            assert rest.endswith(b"data: [DONE]\n\n")
    assert host.upstream.calls == 1


async def test_who_wants_the_counts_of_a_call_elsewhere_that_did_not_gets_them_at_its_end(
    host: Host,
) -> None:
    provider = Halfway(host.upstream)
    one, two = await host.two_gateways()
    async with streamed(one, stream=True) as here:
        await here.content.readuntil(b"\n\n")
        asking = asyncio.create_task(two.chat(**COUNTED))
        await joined(two, 1)
        provider.go_on.set()
        await here.read()
        got = await asking
    assert (got.status, got.cache, got.streamed_text) == (200, "COALESCED", "call 1")
    assert got.events[-2]["usage"]["completion_tokens"] > 0
    assert host.upstream.calls == 1


async def test_streams_asked_for_after_a_purge_are_one_new_call_across_processes(
    host: Host,
) -> None:
    provider = Halfway(host.upstream)
    one, two = await host.two_gateways()
    before = asyncio.create_task(one.chat(stream=True))
    await host.upstream.called()
    assert (await two.post("/cache/purge", {"all": True})).status == 200
    after = [asyncio.create_task(asked.chat(stream=True)) for asked in [two, one] * 5]
    await joined(two, 5)
    await joined(one, 6)
    provider.go_on.set()
    assert (await before).streamed_text == "call 1"
    got = await asyncio.gather(*after)
    assert {one.streamed_text for one in got} == {"call 2"}
    assert sorted(one.cache for one in got) == ["COALESCED"] * 9 + ["MISS"]
    assert host.upstream.calls == 2


async def test_a_gateway_killed_in_mid_stream_ends_the_streams_of_its_followers_with_an_error(
    host: Host,
) -> None:
    provider = Halfway(host.upstream)
    one, two = await host.two_gateways()
    async with streamed(one, **COUNTED) as here, streamed(two, **COUNTED) as there:
        for response in (here, there):
            await response.content.readuntil(b"\n\n")
        await one.end(signal.SIGKILL)
        assert b'"error"' in await there.read()
    provider.go_on.set()
    assert (await two.chat(**COUNTED)).streamed_text == "call 2", "nothing of it was kept"


async def test_an_upstreams_refusal_reaches_followers_in_other_processes_whole(host: Host) -> None:
    gate, long = asyncio.Event(), "slow down " * 5000

    host.upstream.script = once(gate, saying({"error": {"message": long}}, 429, retry_after="7"))
    one, two = await host.two_gateways()
    asking = [asyncio.create_task(one.chat())]
    await host.upstream.called()
    asking += [asyncio.create_task(two.chat(stream=n == 1)) for n in range(2)]
    await joined(two, 2)
    gate.set()
    for got in await asyncio.gather(*asking):
        assert (got.status, got.headers["retry-after"]) == (429, "7")
        assert got.json == {"error": {"message": long}}
    # A refusal does not linger: who is heard of after it asks for itself.
    assert host.upstream.calls <= 2


async def test_an_upstream_that_breaks_off_is_the_same_failure_in_every_process(
    host: Host,
) -> None:
    gate = asyncio.Event()

    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await gate.wait()
        out.cut()

    host.upstream.script = half
    one, two = await host.two_gateways()
    asking = [asyncio.create_task(one.chat())]
    await host.upstream.called()
    asking.append(asyncio.create_task(two.chat()))
    await joined(two, 1)
    gate.set()
    here, there = await asyncio.gather(*asking)
    assert (here.status, there.status) == (502, 502)
    assert here.json == there.json
    assert here.json["error"]["code"] == "upstream_broken"


async def test_a_call_whose_process_is_killed_is_made_by_another(host: Host) -> None:
    gate = asyncio.Event()

    host.upstream.script = once(gate, saying(completion()))
    one, two = await host.two_gateways()
    lost = asyncio.create_task(one.chat())
    await host.upstream.called()
    asking = [asyncio.create_task(two.chat()) for _ in range(3)]
    await joined(two, 3)
    await one.end(signal.SIGKILL)
    await host.upstream.called(2)
    gate.set()
    got = await asyncio.gather(*asking)
    assert sorted(one.cache for one in got) == ["COALESCED", "COALESCED", "MISS"]
    assert host.upstream.calls == 2
    await asyncio.gather(lost, return_exceptions=True)


async def joined(gateway: Process, requests: int) -> None:
    """Wait until `requests` follow a call, wherever it is made."""
    async with asyncio.timeout(10):
        while (await gateway.stats())["following"] < requests:
            pass


async def flushed(gateway: Process) -> None:
    """Wait until the store of `gateway` holds what its memory holds."""
    async with asyncio.timeout(10):
        while True:
            tiers = (await gateway.stats())["tiers"]
            if tiers["sqlite"]["entries"] >= tiers["memory"]["entries"]:
                return


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--upstream", "ftp://x"], "--upstream"),
        ([], "--upstream URL for a provider, or --local"),
        (["--upstream", "http://127.0.0.1:1", "--host", "nowhere.invalid"], "host"),
        (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:///"], "store"),
        (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:///folder/"], "folder"),
        (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:///text.db"], "text.db"),
        (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:////proc/none/a.db"], "/proc"),
    ],
)
async def test_what_cannot_work_is_one_line_and_exit_2(
    host: Host, arguments: list[str], says: str
) -> None:
    (host.folder / "folder").mkdir()
    (host.folder / "text.db").write_text("this is no database, " * 100)
    child = await host.spawn(*arguments, "--port", "0")
    out, errors = await asyncio.wait_for(child.communicate(), READY_SECONDS)
    assert child.returncode == 2, errors.decode()
    assert len(errors.decode().strip().splitlines()) == 1, errors.decode()
    assert says in errors.decode()
    assert out == b""


async def test_a_port_in_use_is_one_line_and_exit_2(host: Host) -> None:
    used = str(host.upstream.port)
    child = await host.spawn("--upstream", host.upstream.url, "--port", used)
    _, errors = await asyncio.wait_for(child.communicate(), READY_SECONDS)
    assert child.returncode == 2
    assert used in errors.decode()
    assert len(errors.decode().strip().splitlines()) == 1
