"""Several servers in one pool: who is asked, who is left alone, and what the client sees."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage, until
from gateway.upstream import Out, Script, Seen, Upstream, chunks, completion, endless
from thinkonce.settings import Upstream as Pool


async def silent(seen: Seen, out: Out) -> None:
    await asyncio.Event().wait()


def saying(status: int, **headers: str) -> Script:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": f"no: {status}"}}, status, **headers)

    return refuse


async def cut(seen: Seen, out: Out) -> None:
    out.cut()


async def garbage(seen: Seen, out: Out) -> None:
    await out.raw(b"not http at all\r\n\r\n")
    out.writer.close()


class Pair:
    """A gateway with two servers in its pool; the first is asked first."""

    def __init__(self, gateway: Running, first: Upstream, second: Upstream) -> None:
        self.gateway, self.first, self.second = gateway, first, second

    @property
    def calls(self) -> tuple[int, int]:
        return self.first.calls, self.second.calls


async def pair(stage: Stage, gateway: dict[str, Any] | None = None, **pool: Any) -> Pair:
    second = await stage.another_upstream()
    declared = Pool(urls=[stage.upstream.url, second.url], **({"choice": "ordered"} | pool))
    clock = stage.moving.clock
    running = await stage.gateway(upstreams={"main": declared}, gateway=gateway or {}, clock=clock)
    return Pair(running, stage.upstream, second)


@pytest.mark.parametrize(
    "script",
    [saying(429), saying(500), saying(503), saying(529), cut, garbage, silent],
    ids=["429", "500", "503", "529", "cut off", "garbage", "silence"],
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_another_server_answers_where_nothing_of_an_answer_has_come(
    stage: Stage, script: Script, streaming: bool
) -> None:
    two = await pair(stage, {"first_byte_timeout": 0.5 if script is silent else 60.0})
    two.first.script = script
    got = await two.gateway.chat(stream=streaming)
    text = got.streamed_text if streaming else got.text
    assert (got.status, text, got.cache) == (200, "hello", "MISS")
    assert two.calls == (1, 1)
    assert (await two.gateway.chat(stream=streaming)).cache == "HIT"
    assert two.gateway.assembly.pools.all[0].servers[0].busy == 0


@pytest.mark.parametrize("status", [400, 401, 404, 422, 307])
async def test_what_the_request_is_to_blame_for_is_not_tried_elsewhere(
    stage: Stage, status: int
) -> None:
    two = await pair(stage)
    two.first.script = saying(status, location="http://elsewhere.invalid/")
    assert (await two.gateway.chat()).status == status
    assert two.calls == (1, 0)


async def test_where_nobody_can_serve_the_last_refusal_passes_unchanged(stage: Stage) -> None:
    two = await pair(stage)
    two.first.script, two.second.script = saying(500), saying(429, retry_after="7")
    got = await two.gateway.chat()
    assert (got.status, got.json) == (429, {"error": {"message": "no: 429"}})
    assert got.headers["retry-after"] == "7"
    two.second.script = cut
    got = await two.gateway.chat("more")
    assert (got.status, got.json) == (500, {"error": {"message": "no: 500"}}), "said, not guessed"
    assert [server.busy for server in two.gateway.assembly.pools.all[0].servers] == [0, 0]


async def test_half_a_stream_then_silence_is_never_asked_for_again(stage: Stage) -> None:
    two = await pair(stage, {"read_timeout": 0.05})

    two.first.script = endless(chunks("a")[1])
    got = await two.gateway.chat(stream=True)
    assert got.events[-1]["error"]["code"] == "upstream_timeout"
    await two.first.left()
    assert two.calls == (1, 0)
    assert len(two.gateway.assembly.shelf.memory) == 0


async def test_half_a_body_is_never_asked_for_again(stage: Stage) -> None:
    two = await pair(stage)

    async def half(seen: Seen, out: Out) -> None:
        await out.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
        out.writer.close()

    two.first.script = half
    got = await two.gateway.chat()
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_broken")
    assert two.calls == (1, 0)


async def test_a_server_that_fails_is_left_alone_and_taken_back_when_it_works_again(
    stage: Stage,
) -> None:
    two = await pair(stage, breaker_failures=2, breaker_pause=5.0)
    two.first.script = saying(500)
    for content in "abcd":
        assert (await two.gateway.chat(content)).status == 200
    assert two.calls == (2, 4), "two failures in a row, then nobody asks it"
    stage.moving.move(5)
    for content in "ef":
        assert (await two.gateway.chat(content)).status == 200
    assert two.calls == (3, 6), "one request tries it"
    two.first.script = Upstream().script
    stage.moving.move(5)
    for content in "ghi":
        assert (await two.gateway.chat(content)).status == 200
    assert two.calls == (6, 6), "it works again"


async def test_who_said_retry_after_is_left_alone_for_that_long(stage: Stage) -> None:
    two = await pair(stage)
    two.first.script = saying(429, retry_after="30")
    for content in "abc":
        assert (await two.gateway.chat(content)).status == 200
    assert two.calls == (1, 3)
    stage.moving.move(29)
    await two.gateway.chat("d")
    assert two.calls == (1, 4)
    assert await two.gateway.metric("thinkonce_upstream_open") == 1
    stage.moving.move(1)
    assert await two.gateway.metric("thinkonce_upstream_open") == 0
    await two.gateway.chat("e")
    assert two.calls == (2, 5)


async def test_a_clients_own_limit_leaves_the_server_to_the_others(stage: Stage) -> None:
    two = await pair(stage)

    async def limited(seen: Seen, out: Out) -> None:
        if seen.headers["authorization"] == "Bearer k1":
            await out.json({"error": {"message": "slow down"}}, 429, retry_after="30")
        else:
            await out.json(completion("quota left"))

    two.first.script = limited
    for key, text in (("k1", "hello"), ("k2", "quota left"), ("k1", "hello"), ("k2", "quota left")):
        got = await two.gateway.chat(f"{two.calls}", {"authorization": f"Bearer {key}"})
        assert (got.status, got.text) == (200, text)
    assert two.calls == (4, 2)
    assert await two.gateway.metric("thinkonce_upstream_open") == 0


async def test_a_limit_of_the_gateways_own_key_leaves_the_server_alone_for_everybody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_UPSTREAM_KEY", "sk-shared")
    two = await pair(stage, api_key_env="TEST_UPSTREAM_KEY")
    two.first.script = saying(429, retry_after="30")
    for key in ("k1", "k2"):
        got = await two.gateway.chat(key, {"authorization": f"Bearer {key}"})
        assert (got.status, got.text) == (200, "hello")
    assert two.calls == (1, 2)


async def test_where_all_are_left_alone_the_one_who_is_soonest_ready_is_asked(
    stage: Stage,
) -> None:
    two = await pair(stage)
    two.first.script, two.second.script = (saying(429, retry_after=s) for s in ("30", "9"))
    await two.gateway.chat()
    got = await two.gateway.chat()
    assert (got.status, two.calls) == (429, (1, 2))


async def test_retries_are_a_share_of_the_requests(stage: Stage) -> None:
    two = await pair(stage, retry_budget=0.5, breaker_failures=1000)
    two.first.script = saying(503)
    statuses = [(await two.gateway.chat(str(number))).status for number in range(40)]
    assert two.calls[0] == 40
    assert 25 <= two.calls[1] <= 30, "ten in reserve and half of forty"
    assert statuses.count(503) == 40 - two.calls[1]


async def test_the_deadline_is_for_all_attempts_together(stage: Stage) -> None:
    two = await pair(stage, {"first_byte_timeout": 0.4}, deadline=0.6)
    two.first.script = two.second.script = silent
    got = await two.gateway.chat()
    assert (got.status, got.json["error"]["code"]) == (504, "upstream_timeout")
    assert two.calls == (1, 1)
    said = got.json["error"]["message"]
    assert float(said.split()[-2]) <= 0.2, f"the second gets what the first has left: {said}"


async def test_shares_follow_the_weights(stage: Stage) -> None:
    two = await pair(stage, choice="weighted", weights=[3.0, 1.0])
    for number in range(8):
        await two.gateway.chat(str(number))
    assert two.calls == (6, 2)


async def test_a_server_gets_no_more_requests_at_a_time_than_it_takes(stage: Stage) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        await gate.wait()
        await out.json(completion())

    two = await pair(stage, max_concurrent=1, max_waiting=1)
    two.first.script = two.second.script = slow
    asking = [asyncio.create_task(two.gateway.chat(str(number))) for number in range(2)]
    await two.first.called()
    await two.second.called()
    line = two.gateway.assembly.pools.all[0].line
    waiting = asyncio.create_task(two.gateway.chat("waits"))
    await until(lambda: len(line) == 1)
    beyond = await two.gateway.chat("too many")
    assert (beyond.status, beyond.json["error"]["code"]) == (503, "upstream_busy")
    assert two.calls == (1, 1)
    gate.set()
    assert [got.status for got in await asyncio.gather(*asking, waiting)] == [200, 200, 200]
    assert sum(two.calls) == 3
    assert [server.busy for server in two.gateway.assembly.pools.all[0].servers] == [0, 0]


async def test_who_waits_for_a_place_waits_no_longer_than_the_deadline(stage: Stage) -> None:
    declared = Pool(urls=[stage.upstream.url], max_concurrent=1, deadline=0.5)
    gateway = await stage.gateway(upstreams={"main": declared})
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        first, *rest = [*chunks("hello"), "[DONE]"]
        await out.begin_stream()
        await out.event(first)
        await gate.wait()
        for event in rest:
            await out.event(event)
        await out.end()

    stage.upstream.script = slow
    asking = asyncio.create_task(gateway.chat("first", stream=True))
    await until(lambda: gateway.assembly.world.following == 1)
    await stage.upstream.called()
    got = await gateway.chat("second")
    assert (got.status, got.json["error"]["code"]) == (503, "upstream_busy")
    gate.set()
    assert (await asking).streamed_text == "hello", "a deadline is for the first byte"
    assert stage.upstream.calls == 1


async def test_a_client_that_leaves_gives_its_place_back(stage: Stage) -> None:
    declared = Pool(urls=[stage.upstream.url], max_concurrent=1)
    gateway = await stage.gateway(upstreams={"main": declared})
    (server,) = gateway.assembly.pools.all[0].servers
    stage.upstream.script = silent
    asking = [asyncio.create_task(gateway.chat(content)) for content in "ab"]
    await until(lambda: len(gateway.assembly.pools.all[0].line) == 1)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await until(lambda: server.busy == 0 and gateway.assembly.metrics.inflight == 0)
    stage.upstream.script = Upstream().script
    assert (await gateway.chat("c")).status == 200


async def test_a_certificate_nobody_vouches_for_is_a_502_or_another_server(stage: Stage) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("selfsigned.pem"))

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("a credential went to somebody unknown")

    server = await asyncio.start_server(never, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    alone = Pool(urls=[url], models=["alone"])
    helped = Pool(urls=[url, stage.upstream.url], models=["helped"], choice="ordered")
    gateway = await stage.gateway(
        upstreams={"alone": alone, "helped": helped}, gateway={"retries": 0}
    )
    got = await gateway.chat(model="alone")
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_unreachable")
    assert "certificate" in got.json["error"]["message"].lower()
    assert (await gateway.chat(model="helped")).status == 200
    server.close()
    await server.wait_closed()


async def test_what_does_something_when_asked_twice_is_asked_once(stage: Stage) -> None:
    two = await pair(stage)
    two.first.script = saying(500)
    assert (await two.gateway.post("/v1/batches", {"input_file_id": "f"})).status == 500
    assert two.calls == (1, 0)
    assert (await two.gateway.post("/v1/embeddings", {"model": "e", "input": "x"})).status == 200
    assert (await two.gateway.get("/v1/models")).status == 200
    assert two.calls == (3, 2)


async def test_a_server_that_fails_its_health_check_gets_no_requests(stage: Stage) -> None:
    healthy = asyncio.Event()

    async def ailing(seen: Seen, out: Out) -> None:
        if seen.path == "/health":
            await out.whole(b"", 200 if healthy.is_set() else 503)
        else:
            await out.json(completion("first"))

    stage.upstream.script = ailing
    two = await pair(stage, health_path="/health", health_interval=0.01)
    server = two.gateway.assembly.pools.all[0].servers[0]
    await until(lambda: server.down)
    assert (await two.gateway.chat("a")).text == "hello", "the second answers"
    assert not any(seen.path != "/health" for seen in two.first.seen)
    healthy.set()
    await until(lambda: not server.down)
    assert (await two.gateway.chat("b")).text == "first"
    assert "authorization" not in two.first.seen[0].headers


async def test_a_client_is_not_told_where_an_upstream_lies_and_the_log_is(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pool = Pool(urls=[f"http://127.0.0.1:{port}"])
    gateway = await stage.gateway(upstreams={"main": pool}, gateway={"retries": 0})
    got = await gateway.chat()
    assert got.status == 502
    assert str(port) not in got.body.decode()
    assert str(port) in caplog.text
