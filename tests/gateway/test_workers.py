"""One gateway of several workers: what they share, what they sum up, how they begin and end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.conftest import CHAT, Got
from gateway.test_processes import Halfway, Host, Process, flushed, joined
from gateway.upstream import Out, Seen, Upstream, answer, completion, once, saying
from thinkonce.host.process import is_pid_taken

TWO = ("--workers", "2")
PATIENCE_SECONDS = 20.0


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


class Worker:
    """A connection that stays with one of the workers. `serial` tells them apart."""

    def __init__(self, gateway: Process, session: aiohttp.ClientSession, serial: str) -> None:
        self.gateway, self.session, self.serial = gateway, session, serial

    async def chat(self, content: str = "hi", key: str = "", **fields: Any) -> Got:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]} | fields
        return await self.post(CHAT, body, {"authorization": f"Bearer {key}"} if key else {})

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        url = self.gateway.url + path
        async with self.session.post(url, json=body, headers=headers) as response:
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return Got(response.status, lowered, await response.read())

    async def get(self, path: str) -> bytes:
        async with self.session.get(self.gateway.url + path) as response:
            return await response.read()

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = (await self.get("/metrics")).decode().splitlines()
        rows = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(row.rpartition(" ")[2]) for row in rows)

    async def stats(self) -> Any:
        return json.loads(await self.get("/cache/stats"))


async def connected(host: Host, gateway: Process) -> Worker:
    """A new connection, to whichever worker takes it."""
    connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=600)
    session = await host.entered(aiohttp.ClientSession(connector=connector))
    async with session.get(gateway.url + "/healthz") as response:
        serial = response.headers["x-request-id"].partition("-")[0]
    return Worker(gateway, session, serial)


async def crew(host: Host, gateway: Process, count: int = 2) -> list[Worker]:
    """A connection to each of the workers."""
    found: dict[str, Worker] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found) < count:
            worker = await connected(host, gateway)
            found.setdefault(worker.serial, worker)
    return [found[serial] for serial in sorted(found)]


async def both_busy(host: Host) -> tuple[Process, Halfway, list[asyncio.Task[Got]]]:
    """Two workers, each in the middle of a stream."""
    provider = Halfway(host.upstream)
    gateway = await host.gateway(*TWO)
    workers = await crew(host, gateway)
    asking = [asyncio.create_task(w.chat(w.serial, stream=True)) for w in workers]
    await host.upstream.called(2)
    return gateway, provider, asking


def children(gateway: Process) -> list[int]:
    """Process ids of the workers, in the order of their start."""
    pid = gateway.child.pid
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return sorted(map(int, listed.split()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def said(gateway: Process, word: str) -> str:
    """The next line of its log that holds `word`."""
    assert gateway.child.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while word not in (line := (await gateway.child.stderr.readline()).decode()):
            assert line, f"it ended without {word!r}"
    return line


async def test_twenty_identical_requests_to_two_workers_are_one_call(host: Host) -> None:
    provider = Halfway(host.upstream)
    gateway = await host.gateway(*TWO)
    one, two = await crew(host, gateway)
    workers = [one, two, *[await connected(host, gateway) for _ in range(18)]]
    asking = [asyncio.create_task(worker.chat(stream=True)) for worker in workers]
    await joined(gateway, 20)
    provider.go_on.set()
    got = await asyncio.gather(*asking)
    assert {each.streamed_text for each in got} == {"call 1"}
    assert sorted(each.cache for each in got) == ["COALESCED"] * 19 + ["MISS"]
    gate = asyncio.Event()

    host.upstream.script = once(gate, saying(completion("whole")))
    asking = [asyncio.create_task(worker.chat("other")) for worker in workers]
    await joined(gateway, 20)
    gate.set()
    assert {each.text for each in await asyncio.gather(*asking)} == {"whole"}
    assert host.upstream.calls == 2
    for worker in (one, two):
        assert await worker.metric("thinkonce_requests_total") == 40
        assert await worker.metric("thinkonce_coalesced_total") == 38
        assert await worker.metric("thinkonce_request_seconds_count") == 40
        assert await worker.metric("thinkonce_upstream_seconds_count") == 2
        assert (await worker.stats())["requests"] == {"miss": 2, "coalesced": 38}


async def test_what_one_worker_stores_or_purges_is_so_in_all_at_once(host: Host) -> None:
    gateway = await host.gateway(*TWO)
    one, two = await crew(host, gateway)
    assert (await one.chat()).cache == "MISS"
    await flushed(gateway)
    assert [(await worker.chat()).cache for worker in (two, two, one)] == ["HIT"] * 3
    # Both hold it in memory, the store once.
    text = (await two.get("/metrics")).decode()
    assert 'thinkonce_entries{tier="memory"} 2.0' in text
    assert 'thinkonce_entries{tier="sqlite"} 1.0' in text
    assert (await two.post("/cache/purge", {"all": True})).json == {"purged": 1}
    assert (await one.chat()).cache == "MISS"
    assert host.upstream.calls == 2
    # What one refused to store, the other can explain.
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "cut"}]}

    async def cut(seen: Seen, out: Out) -> None:
        await out.json(completion(finish="length"))

    host.upstream.script = cut
    await one.chat("cut")
    told = (await two.post("/cache/explain", body)).json
    assert told["not_stored"]["reason"] == "length"


async def test_a_worker_that_is_killed_loses_no_counts_and_is_replaced(host: Host) -> None:
    gateway = await host.gateway(*TWO)
    one, two = await crew(host, gateway)
    for worker in (one, two, one):
        await worker.chat()
    while (await two.chat()).cache != "HIT":  # it is in the store now, where a kill loses nothing
        pass
    counted = await two.metric("thinkonce_requests_total")
    assert counted >= 4
    victim = children(gateway)[0]
    os.kill(victim, signal.SIGKILL)
    assert "was killed (SIGKILL); it is started again in 0.0 s" in await said(gateway, "killed")
    # Nobody is turned away meanwhile, and the first answers that were given are there.
    for _ in range(8):
        worker = await connected(host, gateway)
        assert (await worker.chat()).cache == "HIT"
    await said(gateway, "serves again")
    three = await crew(host, gateway)
    for worker in three:
        assert await worker.metric("thinkonce_requests_total") == counted + 8
    assert len(children(gateway)) == 2
    code, errors = await gateway.end()
    assert (code, "Traceback" in errors) == (0, False)


@pytest.mark.slow
async def test_nothing_survives_a_parent_that_is_killed(host: Host) -> None:
    gateway = await host.gateway(*TWO)
    workers = children(gateway)
    assert len(workers) == 2
    gateway.child.kill()
    await gateway.ended()
    await until(lambda: not any(is_pid_taken(pid) for pid in workers))


@pytest.mark.slow
async def test_sigterm_lets_all_workers_finish(host: Host) -> None:
    gateway, provider, asking = await both_busy(host)
    gateway.child.send_signal(signal.SIGTERM)
    assert gateway.child.stdout is not None
    line = (await gateway.child.stdout.readline()).decode()
    assert line == "draining: 2 answers under way, up to 30 s; again to stop at once\n"
    provider.go_on.set()
    assert all(each.events[-1] == "[DONE]" for each in await asyncio.gather(*asking))
    code, errors = await gateway.ended()
    assert (code, "Traceback" in errors) == (0, False)
    assert gateway.farewell == ["stopped: no answer was cut off"]


async def test_limits_settings_and_allowances_hold_for_all_workers_together(host: Host) -> None:
    file = host.folder / "thinkonce.toml"
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of "test"
    clients = f'[clients.alice]\nkey_sha256 = "{digest}"\nrate_limit = 2\n'
    file.write_text(f'{clients}[cache]\nmax_bytes = "64MiB"\n')
    gateway = await host.gateway(*TWO)
    one, two = await crew(host, gateway)
    statuses = [(await worker.chat(key="test")).status for worker in [one, two] * 3]
    assert (statuses.count(200), statuses.count(429)) == (2, 4), "not so many by each"
    assert (await one.stats())["max_bytes"] == 64 * 2**20
    sent = await one.post("/cache/limits", {"max_bytes": "1MiB", "store_max_bytes": "32MiB"})
    assert sent.json["max_bytes"] == 2**20
    assert (await two.stats())["max_bytes"] == 2**20
    assert (await two.stats())["store_max_bytes"] == 32 * 2**20
    file.write_text('[cache]\nmax_bytes = "32MiB"\n')
    gateway.child.send_signal(signal.SIGHUP)
    await said(gateway, "in force in all workers")
    for worker in (one, two):
        assert (await worker.stats())["max_bytes"] == 32 * 2**20
        assert (await worker.chat(key="nobody")).status == 200, "there are no clients any more"
    file.write_text('[cache]\nmax_bytes = "many"\n')
    gateway.child.send_signal(signal.SIGHUP)
    assert "max_bytes" in await said(gateway, "stays as it was")


@pytest.mark.slow
async def test_a_client_s_places_are_of_all_workers_and_a_killed_one_gives_them_back(
    host: Host,
) -> None:
    async def script(seen: Seen, out: Out) -> None:
        if seen.json["messages"][0]["content"] == "stuck":
            await asyncio.Event().wait()
        await answer(seen, out)

    host.upstream.script = script
    digest = hashlib.sha256(b"test").hexdigest()
    (host.folder / "thinkonce.toml").write_text(
        f'[clients.alice]\nkey_sha256 = "{digest}"\nmax_concurrent = 1\n'
    )
    gateway = await host.gateway(*TWO)
    one, two = await crew(host, gateway)
    stuck = asyncio.create_task(one.chat("stuck", key="test"))
    await host.upstream.called()
    for worker in (two, *await crew(host, gateway)):
        assert (await worker.chat(key="test")).status == 429
    assert await two.metric("thinkonce_limited_total") == 3
    for pid in children(gateway):  # the one that serves it among them
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(aiohttp.ClientError):
        await stuck
    for _ in range(2):
        await said(gateway, "serves again")
    for worker in await crew(host, gateway):
        assert (await worker.chat(key="test")).status == 200


@pytest.mark.slow
async def test_what_cannot_start_is_one_line_and_no_restart(host: Host) -> None:
    (host.folder / "taken").mkdir()
    store = f"sqlite:///{host.folder / 'taken'}"
    child = await host.spawn("--port", "0", "--store", store, "--upstream", host.upstream.url, *TWO)
    out, errors = await asyncio.wait_for(child.communicate(), PATIENCE_SECONDS)
    assert (child.returncode, out) == (2, b"")
    assert len(errors.splitlines()) == 1, errors
    assert b"folder" in errors


@pytest.mark.slow
async def test_a_port_in_use_is_one_line(host: Host) -> None:
    gateway = await host.gateway(*TWO)
    port = gateway.url.rpartition(":")[2]
    child = await host.spawn("--port", port, "--store", host.store, "--upstream", "http://a", *TWO)
    _, errors = await asyncio.wait_for(child.communicate(), PATIENCE_SECONDS)
    assert child.returncode == 2
    assert errors.decode().startswith(f"thinkonce: --port={port} does not work")
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
async def test_a_worker_killed_under_load_costs_only_its_own_connections(host: Host) -> None:
    # Nobody reads its log, and a pipe that is full would hold it up.
    gateway = await host.gateway(*TWO, THINKONCE_GATEWAY_ACCESS_LOG="false")
    one, two = await crew(host, gateway)
    for number in range(20):
        assert (await one.chat(f"question {number}")).cache == "MISS"
    await flushed(gateway)
    known = {worker.serial: worker for worker in (one, two)}
    enough = asyncio.Event()
    new = broken = asked = 0

    async def ask() -> None:
        """On a new connection each time; one that a worker has accepted may end with it."""
        nonlocal new, broken, asked
        while not enough.is_set():
            try:
                worker = await connected(host, gateway)
                got = await worker.chat(f"question {asked % 20}")
                assert (got.status, got.cache) == (200, "HIT"), "what was given once is there"
                new += worker.serial not in known
            except aiohttp.ClientError:
                broken += 1
            else:
                await worker.session.close()
            asked += 1

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    try:
        await until(lambda: asked > 100)
        os.kill(children(gateway)[0], signal.SIGKILL)
        await until(lambda: new > 20)
    finally:
        enough.set()
        await asyncio.gather(*asking)
    assert broken <= 8, "no more than were with it"
    assert host.upstream.calls == 20
    survivor = (await crew(host, gateway))[0]
    assert await survivor.metric("thinkonce_inflight") == 1, "the scrape itself"


@pytest.mark.slow
async def test_one_worker_that_is_told_to_end_drains_and_is_replaced(host: Host) -> None:
    gateway, provider, asking = await both_busy(host)
    os.kill(children(gateway)[0], signal.SIGTERM)
    for _ in range(12):  # half of them were the drained one's
        assert (await (await connected(host, gateway)).get("/readyz")) == b'{"status":"ready"}'
    provider.go_on.set()
    assert all(each.events[-1] == "[DONE]" for each in await asyncio.gather(*asking))
    await said(gateway, "ended with exit code 0")
    await said(gateway, "serves again")
    again = await crew(host, gateway)
    assert await again[0].metric("thinkonce_requests_total") == 2


@pytest.mark.slow
async def test_a_worker_that_hangs_is_replaced(host: Host) -> None:
    gateway = await host.gateway(*TWO)
    os.kill(children(gateway)[0], signal.SIGSTOP)
    assert gateway.child.stderr is not None
    async with asyncio.timeout(120):
        while b"does not answer any more" not in await gateway.child.stderr.readline():
            pass
    await said(gateway, "serves again")
    assert len(await crew(host, gateway)) == 2


@pytest.mark.slow
async def test_requests_to_an_upstream_are_bounded_over_all_workers(host: Host) -> None:
    provider = Halfway(host.upstream)
    (host.folder / "thinkonce.toml").write_text(
        f'[upstreams.main]\nurls = ["{host.upstream.url}"]\nmax_concurrent = 1\n'
    )
    gateway = await host.started(*TWO)
    one, two = await crew(host, gateway)
    here = asyncio.create_task(one.chat("here", stream=True))
    await host.upstream.called()
    there = asyncio.create_task(two.chat("there", stream=True))
    await joined(gateway, 2)
    assert host.upstream.calls == 1
    provider.go_on.set()
    assert [(await each).status for each in (here, there)] == [200, 200]
    assert host.upstream.calls == 2
