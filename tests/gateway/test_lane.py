"""The fast lane on real sockets: what it answers, what it hands on, and that neither can tell."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.asking import asking_of
from gateway.conftest import CHAT, Running, Stage, until
from gateway.test_clients import bearer, client
from gateway.upstream import Out, Seen, Upstream, completion, once
from gateway.wire import Line, asked, connections, held, line
from thinkonce.engine.asking import Asking
from thinkonce.engine.cached_path import _as_read_before
from thinkonce.engine.http import Call, Head
from thinkonce.freshness import Rules
from thinkonce.gateway import fastlane
from thinkonce.gateway.fastlane import FastLane
from thinkonce.selector import Selector
from thinkonce.shelf import open_shelf
from thinkonce.web.allowance import Allowance


@pytest.fixture
def way() -> str:
    return "lane"


@pytest.fixture
def lane(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> FastLane:
    return gateway.assembly.lane


@pytest.fixture
async def hits(gateway: Running, lane: FastLane, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that the lane has answered."""
    answered: list[bytes] = []
    plain = lane.answer

    def answer(door: fastlane.Door, body: bytes, headers: list[tuple[bytes, bytes]]) -> object:
        answer = plain(door, body, headers)
        if isinstance(answer, bytes):
            answered.append(body)
        return answer

    monkeypatch.setattr(lane, "answer", answer)
    return answered


async def test_the_second_request_of_a_connection_is_answered_by_the_lane(
    gateway: Running, hits: list[bytes]
) -> None:
    async with line(gateway) as client:
        assert await client.ask(asked()) == "MISS"
        assert hits == []
        assert await client.ask(asked()) == "HIT"
        assert len(hits) == 1


async def test_a_question_known_in_other_bytes_is_answered_by_the_lane(
    gateway: Running, hits: list[bytes]
) -> None:
    async with line(gateway) as client:
        await client.ask(asked("one"))
        await client.ask(asked("two"))  # whose head is the same
        body = json.dumps(
            {"messages": [{"content": "one", "role": "user"}], "model": "priced"}
        ).encode()
        head = asked("one").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert await client.ask(head + body) == "HIT"
        assert hits == [body], "parsed and found without a trip through the server"


async def test_a_miss_is_read_once(
    gateway: Running, hits: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    reader = gateway.assembly.gateway.cached[CHAT].reader
    plain = reader.read
    monkeypatch.setattr(reader, "read", lambda *args: (reads.append(1), plain(*args))[1])
    async with line(gateway) as client:
        await client.ask(asked("one"))
        assert await client.ask(asked("two")) == "MISS"
    assert len(reads) == 2


async def test_what_the_lane_hands_on_looks_as_if_the_parser_had_taken_it(
    gateway: Running, hits: list[bytes]
) -> None:
    """All but what is the connection's own, though its head came on another one before."""
    seen: list[dict[str, object]] = []

    async def note(scope: dict[str, object], receive: object, send: object) -> None:
        (link,) = (each for each in connections(gateway) if each.scope is scope)
        plain = {name: value for name, value in scope.items() if name not in ("client", "state")}
        seen.append({"plain": plain, "client": scope["client"], "link": link.client})
        await gateway.assembly.gateway(scope, receive, send)  # type: ignore[arg-type]

    async with line(gateway) as first, line(gateway) as second:
        await until(lambda: len(connections(gateway)) == 2)
        for link in connections(gateway):
            link.app = note
        assert await first.ask(asked("one")) == "MISS"
        assert await second.ask(asked("two")) == "MISS"
        parsed, handed = seen
        assert handed["plain"] == parsed["plain"]
        assert handed["client"] == handed["link"] != parsed["client"]


async def test_a_request_behind_one_that_the_lane_handed_on_is_answered_after_it(
    gateway: Running, upstream: Upstream
) -> None:
    async with line(gateway) as client:
        await client.ask(asked("known"))
        gate = asyncio.Event()
        upstream.script = once(gate, upstream.script)
        await client.send(asked("slow"))
        await until(lambda: len(upstream.seen) == 2)
        await client.send(asked("known") + asked("last"))
        gate.set()
        answers = [(await client.answer())[0] for _ in range(3)]
    assert answers == ["MISS", "HIT", "MISS"]


async def test_a_request_in_many_packets_is_answered_by_the_lane(
    gateway: Running, hits: list[bytes]
) -> None:
    async with line(gateway) as client:
        await client.ask(asked())
        whole = asked()
        end = whole.index(b"\r\n\r\n") + 4
        await client.send(whole[:end])  # as clients do that send head and body by themselves
        await until(lambda: held(gateway))
        for byte in whole[end:]:
            client.writer.write(bytes([byte]))
        assert (await client.answer())[0] == "HIT"
        assert len(hits) == 1


async def test_a_head_in_two_packets_goes_through_the_parser(
    gateway: Running, hits: list[bytes]
) -> None:
    async with line(gateway) as client:
        await client.ask(asked())
        await client.send(asked()[:30])
        await until(lambda: not all(link._between for link in connections(gateway)))
        assert await client.ask(asked()[30:]) == "HIT"
        assert hits == []
        assert await client.ask(asked()) == "HIT"
        assert len(hits) == 1


@pytest.mark.parametrize(
    "order", ["hh", "mhm", "hmh", "mmh", "hhm", "mhhm", "hehmh", "h" * 50], ids=lambda order: order
)
async def test_pipelined_requests_are_answered_in_order(gateway: Running, order: str) -> None:
    async with line(gateway) as client:
        await client.ask(asked("known"))
        texts = {"h": "known", "e": ""}
        sent = b""
        for number, kind in enumerate(order):
            text = texts.get(kind, f"new {number}")
            sent += asked(text) if text else asked("x").replace(b"{", b"[", 1)
        await client.send(sent)
        seen = [(await client.answer())[0] for _ in order]
        assert seen == [{"h": "HIT", "m": "MISS", "e": "400"}[kind] for kind in order]


async def test_thousands_of_requests_from_a_client_that_does_not_read_stay_bounded(
    gateway: Running, hits: list[bytes]
) -> None:
    count = 3000
    async with line(gateway) as client:
        await client.ask(asked("known"))
        (link,) = connections(gateway)
        for end, option in ((link.transport, SO_SNDBUF), (client.writer.transport, SO_RCVBUF)):
            end.get_extra_info("socket").setsockopt(SOL_SOCKET, option, 2**16)
        client.writer.transport.pause_reading()
        for _ in range(count):
            client.writer.write(asked("known"))
        await until(lambda: link.flow.write_paused)
        assert link.transport.get_write_buffer_size() < 2**20
        client.writer.transport.resume_reading()
        for _ in range(count):
            assert (await client.answer())[0] == "HIT"
    assert 0 < len(hits) < count, "while the client did not read, the server waited"


async def test_another_credential_never_gets_the_answer(
    gateway: Running, hits: list[bytes]
) -> None:
    async with line(gateway) as client:
        for key in ("one", "two"):
            more = f"authorization: Bearer {key}"
            assert await client.ask(asked(more=more)) == "MISS"
            assert await client.ask(asked(more=more)) == "HIT"
        assert len(hits) == 2


@pytest.mark.parametrize(
    "more",
    [
        "x-request-id: mine",
        "cache-control: no-cache",
        "x-thinkonce-namespace: other",
        "expect: 100-continue",
        "connection: close",
        "proxy-connection: close",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
async def test_heads_that_ask_for_more_are_not_learnt(
    gateway: Running, lane: FastLane, more: str
) -> None:
    async with line(gateway) as client:
        await client.send(asked(more=more))
        await client.reader.readuntil(b"\r\n\r\n")
        assert len(lane) == 0


async def test_a_head_whose_lines_end_oddly_is_not_learnt(gateway: Running, lane: FastLane) -> None:
    """Else bytes of the body could count as head, and the rest of it as the next request."""
    async with line(gateway) as client:
        hidden = asked("x", end="\n").replace(b"content-length", b"x-a: b\ncontent-length")
        await client.send(hidden + b"\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
    assert len(lane) == 0


async def test_blank_lines_before_a_request_are_no_head(
    gateway: Running, lane: FastLane, hits: list[bytes]
) -> None:
    """The parser skips them; remembered, they would answer anybody with this tenant's answers."""
    secret = asked(more="authorization: Bearer victim")
    async with line(gateway) as client:
        assert await client.ask(b"\r\n\r\n" + secret) == "MISS"
    assert len(lane) == 0
    async with line(gateway) as client:
        await client.send(b"\r\n\r\n" + secret.split(b"\r\n\r\n")[1])
        assert await client.status() == 400
    assert hits == []


UPGRADES = {
    "h2c": "connection: Upgrade, HTTP2-Settings\nupgrade: h2c\nhttp2-settings: AAMAAABk",
    "websocket": "connection: upgrade\nupgrade: websocket",
}
PURGE = b'POST /cache/purge HTTP/1.1\r\nhost: ::1\r\ncontent-length: 12\r\n\r\n{"all":true}'


@pytest.mark.parametrize("protocol", UPGRADES)
@pytest.mark.parametrize("pieces", ["whole", "head and body", "bytes"])
async def test_a_request_for_another_protocol_is_answered_as_if_it_had_not_asked(
    gateway: Running, upstream: Upstream, protocol: str, pieces: str
) -> None:
    """Java's client asks so by default; its body must not be taken for the next request."""
    more = f"x-forwarded-for: 203.0.113.9\n{UPGRADES[protocol]}"
    head, good = asked(PURGE.decode(), more).split(b"\r\n\r\n", 1)
    bad = head.replace(b"length: %d" % len(good), b"length: %d" % len(PURGE))
    whole = b"".join([head, b"\r\n\r\n", good] * 2 + [bad, b"\r\n\r\n", PURGE])
    cut = {"whole": len(whole), "head and body": len(head) + 4, "bytes": 1}[pieces]
    async with line(gateway) as client:
        for at in range(0, len(whole), cut):
            client.writer.write(whole[at : at + cut])
            await asyncio.sleep(0)
        assert [(await client.answer())[0] for _ in range(3)] == ["MISS", "HIT", "400"]
        assert await client.ask(asked("after")) == "MISS", "the connection is where it should be"
    said = [seen.json["messages"][0]["content"] for seen in upstream.seen]
    assert said == [PURGE.decode(), "after"]


async def test_chunks_behind_a_request_for_another_protocol_are_refused(gateway: Running) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\nhost: localhost\n{UPGRADES['h2c']}\ntransfer-encoding: chunked\n\n"
    )
    async with line(gateway) as client:
        await client.send(head.replace("\n", "\r\n").encode() + b"2\r\n{}\r\n0\r\n\r\n")
        assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")


async def test_two_lengths_are_refused_as_ever(gateway: Running, lane: FastLane) -> None:
    async with line(gateway) as client:
        await client.ask(asked())
        await client.send(asked(more="content-length: 3"))
        assert await client.status() == 400
    assert len(lane) == 1


async def test_what_the_lane_fails_at_is_answered_the_usual_way(
    gateway: Running, hits: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line(gateway) as client:
        await client.ask(asked())
        endpoint = gateway.assembly.gateway.cached[CHAT]
        with monkeypatch.context() as broken:
            broken.setattr(endpoint._teller.parts, "serving", None)
            got = await gateway.chat()
            assert (got.status, got.cache) == (200, "BYPASS"), "the cache is broken, not the answer"
        assert await client.ask(asked()) == "HIT"
        assert len(hits) == 1


async def test_what_was_read_of_one_request_is_never_anothers(
    gateway: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    endpoint = gateway.assembly.gateway.cached[CHAT]
    plain = endpoint.reader.read

    def read(head: Head, raw: bytes) -> Asking:
        asking = plain(head, raw)
        given.append(asking)
        return asking

    monkeypatch.setattr(endpoint.reader, "read", read)
    async with line(gateway) as client:
        await client.ask(asked("one"))
        # The lane reads the second one; the third comes in the same packet.
        await client.send(asked("two") + asked("three"))
        texts = [(await client.answer())[1] for _ in range(2)]
        (link,) = connections(gateway)
        assert link._learnable == b""
    asked_for = [seen.json["messages"][0]["content"] for seen in upstream.seen]
    assert len(texts) == 2
    assert asked_for == ["one", "two", "three"]
    assert [asking.raw for asking in given] == [
        asked(text).split(b"\r\n\r\n")[1] for text in ("one", "two", "three")
    ]


async def test_what_was_read_counts_only_for_the_same_bytes() -> None:
    asking = asking_of(b"one")
    call = cast(Call, SimpleNamespace(read=asking))  # nothing else of it is looked at
    assert _as_read_before(call, b"one") is asking
    assert _as_read_before(call, b"two") is None


async def test_a_request_half_sent_gets_its_answer_before_the_server_ends(
    gateway: Running,
) -> None:
    async with line(gateway) as client:
        await client.ask(asked())
        await client.send(asked()[:-5])
        await until(lambda: held(gateway))
        for link in connections(gateway):
            link.shutdown()
        assert await client.ask(asked()[-5:]) == "HIT"
        assert await client.ended()


async def test_an_idle_connection_is_closed_after_its_time_and_not_before(
    gateway: Running,
) -> None:
    async with line(gateway) as client:
        await client.ask(asked())
    async with line(gateway) as client:
        await client.ask(asked())  # by the lane, which never saw the parser here
        (link,) = connections(gateway)
        timer = link.timeout_keep_alive_task
        assert timer is not None
        assert 0 < timer.when() - link.loop.time() <= link.timeout_keep_alive
        await client.ask(asked())
        assert link.timeout_keep_alive_task is timer, "one timer for many answers"
        await client.send(asked()[:-5])
        await until(lambda: held(gateway))
        assert link.timeout_keep_alive_task is None, "a request on its way has another deadline"
        await client.ask(asked()[-5:])
        link._used_at = link.loop.time()
        link.timeout_keep_alive_handler()
        assert not link.transport.is_closing(), "it was used a moment ago"
        link._used_at -= link.timeout_keep_alive + 1
        link.timeout_keep_alive_handler()
        assert await client.ended()


async def test_a_purge_and_an_end_of_life_hold_in_the_lane(
    stage: Stage, upstream: Upstream
) -> None:
    gateway = await stage.gateway(cache={"ttl": 60.0}, clock=stage.moving.clock)
    async with line(gateway) as client:
        for _ in range(3):
            await client.ask(asked())
        await gateway.post("/cache/purge", {"all": True})
        assert await client.ask(asked()) == "MISS"
        assert await client.ask(asked()) == "HIT"
        stage.moving.move(61)
        assert await client.ask(asked()) == "MISS"
    assert upstream.calls == 3


async def test_heads_are_forgotten_the_oldest_first(
    gateway: Running, lane: FastLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastlane, "MAX_BYTES", 10 * (fastlane.OVERHEAD + 400))
    async with line(gateway) as client:
        for number in range(30):
            await client.ask(asked(more=f"user-agent: {number:03}"))
        assert 5 < len(lane) < 15
        lane.adopt(gateway.assembly.gateway.cached)
        assert len(lane) == 0
        assert await client.ask(asked()) == "HIT"
        assert len(lane) == 1


async def test_a_whole_request_that_came_before_is_looked_up_at_once(
    gateway: Running, lane: FastLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line(gateway) as client:
        assert [await client.ask(asked()) for _ in range(2)] == ["MISS", "HIT"]
        monkeypatch.setattr(lane, "door", lambda head: pytest.fail("it was looked for"))
        assert await client.ask(asked()) == "HIT"
        monkeypatch.undo()
        await client.send(asked() + asked())
        assert [(await client.answer())[0] for _ in range(2)] == ["HIT", "HIT"]


async def test_whole_requests_take_no_more_than_their_bound(
    gateway: Running, lane: FastLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastlane, "MAX_BYTES", 10 * (fastlane.WHOLE_OVERHEAD + 300))
    most = 0
    async with line(gateway) as client:
        for number in range(30):
            assert await client.ask(asked(f"{number:03}")) == "MISS"
            assert await client.ask(asked(f"{number:03}")) == "HIT"
            sizes = [len(request) + fastlane.WHOLE_OVERHEAD for request in lane._whole]
            assert lane._whole_bytes == sum(sizes) <= fastlane.MAX_BYTES
            most = max(most, len(sizes))
        assert 5 < most < 15
        lane.adopt(gateway.assembly.gateway.cached)
        assert lane._whole == {}


async def test_bytes_seen_for_the_first_time_are_not_kept_whole(
    gateway: Running, lane: FastLane
) -> None:
    async with line(gateway) as client:
        await client.ask(asked(max_tokens=7))
        head, _, body = asked(max_tokens=7).partition(b"\r\n\r\n")
        other = head + b"\r\n\r\n" + body.replace(b": 7", b" :7")
        assert other != asked(max_tokens=7)
        assert await client.ask(other) == "HIT"
        assert lane._whole == {}
        assert await client.ask(other) == "HIT"
        assert list(lane._whole) == [other]


async def test_a_whole_request_is_known_as_long_as_its_answer_lies_ready(
    gateway: Running, lane: FastLane
) -> None:
    async with line(gateway) as client:
        assert [await client.ask(asked()) for _ in range(3)] == ["MISS", "HIT", "HIT"]
        ((request, seen),) = lane._whole.items()
        (body,) = seen.door.known
        del seen.door.known[body]  # as the memo does for others' sake
        assert lane.again(seen, []) is not None
        gateway.assembly.gateway.cached[CHAT]._teller.parts._kept.clear()
        assert seen() is None
        assert lane.again(seen, []) is None
        assert [await client.ask(asked()) for _ in range(2)] == ["HIT", "HIT"], "it is read again"
        assert list(lane._whole) == [request]
        assert lane._whole[request]() is not None
        assert lane._whole_bytes == len(asked()) + fastlane.WHOLE_OVERHEAD


async def known_whole(client: Line, lane: FastLane) -> None:
    """Ask until the lane knows all of the request's bytes."""
    for _ in range(3):
        await client.ask(asked())
    assert asked() in lane._whole


async def test_a_whole_request_gets_the_answer_that_took_the_place_of_another(
    gateway: Running, lane: FastLane, upstream: Upstream
) -> None:
    async def numbered(seen: Seen, out: Out) -> None:
        await out.json(completion(f"answer {upstream.calls}"))

    upstream.script = numbered
    async with line(gateway) as client:
        await known_whole(client, lane)
        for text in ("answer 1", "answer 2"):
            await client.send(asked())
            cache, body = await client.answer()
            assert (cache, json.loads(body)["choices"][0]["message"]["content"]) == ("HIT", text)
            await gateway.chat("hi", headers={"cache-control": "no-cache"})


async def test_what_another_process_purges_a_whole_request_does_not_get(
    stage: Stage, tmp_path: Path, upstream: Upstream
) -> None:
    url = f"sqlite:///{tmp_path}/answers.db"
    gateway = await stage.gateway(store={"url": url})
    other = open_shelf(url, Rules(), max_bytes=2**20, store_max_bytes=2**24, policy="cost")
    try:
        async with line(gateway) as client:
            await known_whole(client, gateway.assembly.lane)
            assert await asyncio.to_thread(gateway.assembly.shelf.flush, 20)
            assert await asyncio.to_thread(other.purge, Selector()) == 1
            assert await client.ask(asked()) == "MISS"
    finally:
        await asyncio.to_thread(other.close)
    assert upstream.calls == 2


async def test_a_whole_request_whose_answer_was_evicted_is_a_miss(
    gateway: Running, lane: FastLane
) -> None:
    memory = gateway.assembly.shelf.memory
    async with line(gateway) as client:
        await known_whole(client, lane)
        for _ in range(6):
            await client.ask(asked("wanted more"))
        memory.resize(1, None)
        assert await client.ask(asked("wanted more")) == "HIT"
        assert await client.ask(asked()) == "MISS"


async def test_every_hit_of_a_whole_request_is_counted(gateway: Running, lane: FastLane) -> None:
    async with line(gateway) as client:
        await known_whole(client, lane)
        saved = await gateway.metric("thinkonce_saved_tokens_total") / 2
        for _ in range(5):
            assert await client.ask(asked()) == "HIT"
        assert await gateway.metric("thinkonce_requests_total") == 8
        assert await gateway.metric("thinkonce_request_seconds_count") == 8
        assert await gateway.metric("thinkonce_saved_tokens_total") == 7 * saved
        assert await gateway.metric("thinkonce_requests_total") == 8, "once"


async def test_a_request_in_two_packets_is_known_whole(
    gateway: Running, lane: FastLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line(gateway) as client:
        await known_whole(client, lane)
        end = asked().index(b"\r\n\r\n") + 4
        await client.send(asked()[:end])
        await until(lambda: held(gateway))
        monkeypatch.setattr(lane, "door", lambda head: pytest.fail("it was looked for"))
        assert await client.ask(asked()[end:]) == "HIT"


async def test_misses_do_not_count_a_head_again(gateway: Running, lane: FastLane) -> None:
    async with line(gateway) as client:
        for number in range(10):
            await client.ask(asked(f"{number}"))
    assert len(lane) == 1
    assert lane._bytes == sum(map(fastlane._size, lane._doors))


async def test_the_limits_of_the_gateway_hold_in_the_lane(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"body_limit": 1024, "header_limit": 1024})
    await gateway.chat()
    message = {"model": "priced", "messages": [{"role": "user", "content": "hi"}]}
    padded = json.dumps(message).encode().ljust(2000)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(padded)}\r\n\r\n".encode()
    )
    long = asked(more=f"x-long: {'y' * 2000}")
    for data, status in ((head + padded, 413), (long, 431)) * 2:
        async with line(gateway) as client:
            await client.send(data)
            assert await client.status() == status


async def test_hits_of_the_lane_are_counted_and_logged(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await stage.gateway(gateway={"access_log": True})
    async with line(gateway) as client:
        for _ in range(3):
            await client.ask(asked())
    assert await gateway.metric("thinkonce_requests_total") == 3
    assert await gateway.metric("thinkonce_saved_tokens_total") > 0
    gateway.assembly.access_log.flush()
    lines = [line for line in capsys.readouterr().err.splitlines() if CHAT in line]
    told = [line.split(" ", 2)[2].rsplit(" ", 1)[0] for line in lines]
    assert told == [f"POST {CHAT} 200 miss new", *[f"POST {CHAT} 200 hit -"] * 2]
    assert len({line.split(" ")[1] for line in lines}) == 3, "each has an id of its own"


async def test_a_hit_that_another_worker_was_faster_than_is_not_counted(
    stage: Stage,
) -> None:
    class Taken(Allowance):
        """Of two workers: the other one takes the last request between a look and a take."""

        def take(self) -> bool:
            return False

    gateway = await stage.gateway(
        clients={"alice": client("tk-a", rate_limit=60)}, cache={"samples": 2}
    )
    said = [await gateway.chat(headers=bearer("tk-a")) for _ in range(3)]
    assert [got.cache for got in said] == ["MISS", "MISS", "HIT"]
    (door,) = gateway.assembly.lane._doors.values()
    alice = door.head.client
    assert alice is not None
    mine, alice.allowance = alice.allowance, Taken(60, stage.moving.clock)
    assert (await gateway.chat(headers=bearer("tk-a"))).status == 429
    assert await gateway.metric("thinkonce_saved_calls_total") == 1
    alice.allowance = mine
    got = await gateway.chat(headers=bearer("tk-a"))
    assert got.headers["x-cache-key"] == said[1].headers["x-cache-key"], "it is still its turn"
