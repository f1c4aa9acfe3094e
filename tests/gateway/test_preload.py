"""Requests asked ahead of time, over HTTP and from the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.anthropic_upstream import answers
from gateway.conftest import Got, Running, Stage
from gateway.test_embeddings import embed
from gateway.upstream import Out as ScriptOut
from gateway.upstream import Seen, answer
from thinkonce.cli import main
from thinkonce.engine.endpoint import Endpoint
from thinkonce.gateway.admin.preload import Pace

LINES = {"content-type": "application/jsonl"}
ANONYMOUS = LINES | {"x-thinkonce-tenant": "anonymous"}
SK = {"authorization": "Bearer sk-a"}
Out = pytest.CaptureFixture[str]


def line(content: str, custom_id: str = "", url: str = "/v1/chat/completions", **more: Any) -> str:
    body = {"model": "priced", "messages": [{"role": "user", "content": content}], **more}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


async def send(
    gateway: Running, lines: list[str], headers: dict[str, str] = ANONYMOUS, query: str = ""
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    got = await gateway.send("POST", f"/cache/preload{query}", "\n".join(lines).encode(), headers)
    assert got.status == 200, got.body
    rows = rows_of(got)
    return sorted(rows[:-1], key=lambda row: row["line"]), rows[-1]


def rows_of(got: Got) -> list[dict[str, Any]]:
    return [json.loads(row) for row in got.body.splitlines()]


async def test_each_line_is_stored_under_the_key_of_the_client_s_own_request(
    gateway: Running, stage: Stage
) -> None:
    rows, sums = await send(gateway, [line("one", "a"), "", line("two", "b", stream=True)])
    assert [(row["line"], row["custom_id"], row["outcome"]) for row in rows] == [
        (1, "a", "miss"),
        (3, "b", "miss"),
    ]
    assert sums == {"done": True, "lines": 2, "stored": 2, "already": 0, "failed": 0}
    asked = await gateway.chat("one")
    assert (asked.cache, asked.headers["x-cache-key"]) == ("HIT", rows[0]["key"])
    assert (await gateway.chat("two")).cache == "HIT"
    assert stage.upstream.calls == 2


async def test_sent_again_it_asks_for_what_is_missing_only(gateway: Running, stage: Stage) -> None:
    lines = [line(str(n)) for n in range(4)]
    await send(gateway, lines[:2])
    rows, sums = await send(gateway, lines)
    assert [row["outcome"] for row in rows] == ["hit", "hit", "miss", "miss"]
    assert (sums["already"], sums["stored"], stage.upstream.calls) == (2, 2, 4)
    assert gateway.assembly.metrics.counted.requests == {}, "no client asked"
    assert await gateway.metric("thinkonce_saved_tokens_total") == 0


async def test_a_bad_line_is_named_and_the_rest_goes_on(gateway: Running, stage: Stage) -> None:
    async def script(seen: Seen, out: ScriptOut) -> None:
        if seen.json["messages"][0]["content"] == "cut off":
            await out.json(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "priced",
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": "a"},
                            "finish_reason": "length",
                        }
                    ],
                }
            )
        elif seen.json["messages"][0]["content"] == "refused":
            await out.json({"error": {"message": "no such thing"}}, 429)
        else:
            await answer(seen, out)

    stage.upstream.script = script
    wrong = {
        "{not json": "Batch format",
        '{"url": "/v1/chat/completions"}': "body",
        line("x", url="/v1/files"): "/v1/chat/completions",
        line("x", url="/v1/chat/completions").replace("POST", "GET"): "GET",
        line("x", url="http://[x"): "/v1/chat/completions",
        line("cut off"): "length",
        line("refused"): "no such thing",
        line("x", kv_cache={"enabled": False}): "disabled",
        line("x", kv_cache={"colour": "red"}): "colour",
        line("x", cache={"no-store": True}): "no-store",
        line("x", n="\ud800"): "Batch format",
        line("x").replace('"model"', '"n": 1, "n": 2, "model"'): "unkeyable",
        '{"url": "/v1/chat/completions", "body": []}': "object",
        line("y" * 300_000): "body_limit",
    }
    gateway = await stage.gateway(gateway={"body_limit": 200_000})
    rows, sums = await send(gateway, [*wrong, line("fine")])
    assert [row["stored"] for row in rows] == [False] * len(wrong) + [True]
    for row, expected in zip(rows, wrong.values(), strict=False):
        assert expected in row["error"], row
    assert (sums["failed"], sums["stored"]) == (len(wrong), 1)


async def test_whose_entries_they_are_is_always_named(stage: Stage) -> None:
    digest = "f8cba45d9bfa2e0e1b30b2e3ed26f2c2f97c1d1ba4a4a0e7fe9d2c1f8f4f8b1e"
    gateway = await stage.gateway(groups={"team": [digest]})
    unnamed = await gateway.send("POST", "/cache/preload", line("one").encode(), LINES)
    assert unnamed.status == 400
    assert unnamed.json["error"]["code"] == "tenant_needed"
    await send(gateway, [line("one")], LINES | {"x-thinkonce-client-authorization": "Bearer sk-a"})
    assert (await gateway.chat("one", headers=SK)).cache == "HIT"
    assert (await gateway.chat("one", headers={"authorization": "Bearer sk-b"})).cache == "MISS"
    tenant = (await gateway.get("/cache/entries?limit=1")).json["entries"][0]["tenant"]
    await send(gateway, [line("two")], LINES | {"x-thinkonce-tenant": tenant})
    for headers, status in (
        ({"x-thinkonce-tenant": "somebody"}, 400),
        ({"x-thinkonce-group": "nobody"}, 400),
        ({"x-thinkonce-group": "team", "x-thinkonce-tenant": "anonymous"}, 400),
    ):
        got = await gateway.send("POST", "/cache/preload", line("x").encode(), LINES | headers)
        assert got.status == status
    _, sums = await send(gateway, [line("three")], LINES | {"x-thinkonce-group": "team"})
    assert sums["stored"] == 1


async def test_without_a_name_it_is_the_only_tenant_there_is(gateway: Running) -> None:
    await gateway.chat("first", headers=SK)
    _, sums = await send(gateway, [line("two")], LINES)
    assert sums["stored"] == 1
    assert (await gateway.chat("two", headers=SK)).cache == "HIT"
    assert (await gateway.chat("two")).cache == "MISS", "nobody else's"
    got = await gateway.send("POST", "/cache/preload", line("three").encode(), LINES)
    assert got.status == 400, "now there are two tenants"


async def test_a_named_tenant_is_never_remembered_for_a_client(gateway: Running) -> None:
    """Two requests of the same bytes and headers, one of them an administrator's for another."""
    other = LINES | {"x-thinkonce-tenant": "0" * 32}
    body = json.loads(line("secret"))["body"]
    await send(gateway, [line("secret")] * 2, other)
    for _ in range(3):
        got = await gateway.send(
            "POST",
            "/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        tenants = {row["tenant"] for row in (await gateway.get("/cache/entries")).json["entries"]}
        assert tenants == {"0" * 32, "anonymous"}
    assert got.cache == "HIT"
    claimed = await gateway.chat("secret", headers={"x-thinkonce-tenant": "0" * 32} | SK)
    assert claimed.cache == "MISS", "a client cannot name a tenant"


async def test_pins_are_pinned_until_their_ttl(stage: Stage) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock)
    await send(gateway, [line("faq", kv_cache={"preload": True, "ttl": 60})])
    (row,) = (await gateway.get("/cache/entries")).json["entries"]
    assert (row["priority"], row["ttl"]) == ("pinned", 60)
    stage.moving.move(61)
    assert (await gateway.chat("faq")).reason == "expired"


async def test_messages_are_asked_as_anthropic_s_client_asks_them(
    gateway: Running, stage: Stage
) -> None:
    stage.upstream.script = answers()
    headers = LINES | {
        "x-thinkonce-client-authorization": "Bearer sk-ant",
        "x-thinkonce-client-api-key": "sk-ant",
    }
    asked = line("hi", url="/v1/messages", max_tokens=10)
    rows, _ = await send(gateway, [asked], headers)
    assert rows[0]["stored"], rows
    got = await gateway.send(
        "POST",
        "/v1/messages",
        json.dumps(json.loads(asked)["body"]).encode(),
        {
            "content-type": "application/json",
            "x-api-key": "sk-ant",
            "anthropic-version": "2023-06-01",
        },
    )
    assert got.cache == "HIT"


async def test_no_more_lines_are_held_than_may_be_under_way(gateway: Running, stage: Stage) -> None:
    under_way, most = 0, 0
    go = asyncio.Event()

    async def script(seen: Seen, out: ScriptOut) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            go.set()
        await go.wait()
        await answer(seen, out)
        under_way -= 1

    stage.upstream.script = script
    _, sums = await send(gateway, [line(str(n)) for n in range(20)], query="?concurrency=3")
    assert (sums["stored"], most) == (20, 3)
    for wrong in ("concurrency=0", "concurrency=x", "rate=0", "rate=fast", "speed=1"):
        got = await gateway.send("POST", f"/cache/preload?{wrong}", b"", ANONYMOUS)
        assert got.status == 400, wrong


async def test_results_come_while_the_batch_is_still_being_sent(gateway: Running) -> None:
    """And who goes away in the middle leaves what is done, and nothing under way."""
    seen = asyncio.Event()

    async def body() -> Any:
        yield line("one").encode() + b"\n"
        await seen.wait()
        yield line("two").encode() + b"\n"
        await asyncio.Event().wait()

    async with gateway.session.post(
        gateway.url + "/cache/preload", data=body(), headers=ANONYMOUS
    ) as response:
        first = json.loads(await response.content.readline())
        assert (first["line"], first["stored"]) == (1, True)
        seen.set()
        assert json.loads(await response.content.readline())["line"] == 2
        response.close()
    assert (await gateway.chat("two")).cache == "HIT"


async def test_a_compressed_batch_is_refused_before_anything_is_said(gateway: Running) -> None:
    for path in ("preload", "import"):
        got = await gateway.send(
            "POST", f"/cache/{path}", b"x", ANONYMOUS | {"content-encoding": "gzip"}
        )
        assert got.status == 415, got.body


async def test_a_pace_gives_turns_evenly_and_saves_none_up() -> None:
    now, slept = 100.0, []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(2.0, lambda: now, sleep)
    for _ in range(3):
        await pace.turn()
    assert slept == [0.5, 1.0]
    now = 200.0
    await pace.turn()
    await pace.turn()
    assert slept == [0.5, 1.0, 0.5], "a pause before is no reason to hurry after it"
    await Pace(None, lambda: now, sleep).turn()


async def test_a_batch_of_embeddings_is_stored_input_by_input(
    gateway: Running, stage: Stage
) -> None:
    stage.upstream.script = embed

    def inputs(*given: str) -> str:
        body = {"model": "priced", "input": list(given)}
        return json.dumps({"method": "POST", "url": "/v1/embeddings", "body": body})

    _, sums = await send(gateway, [inputs("a", "b")])
    assert sums["stored"] == 1
    rows, _ = await send(gateway, [inputs("b", "a"), inputs("b", "c")], query="?concurrency=1")
    assert [row["outcome"] for row in rows] == ["hit", "miss"]
    told = await gateway.post("/cache/explain", json.loads(inputs("a", "z", "b")), ANONYMOUS)
    assert (told.json["would"], told.json["note"]) == (
        "miss",
        "2 of 3 inputs would be hits; this is number 2",
    )
    assert told.json["nearest"]["differences"][0]["field"] == "input"
    told = await gateway.post("/cache/explain", json.loads(inputs("a", "b")), ANONYMOUS)
    assert told.json["would"] == "hit"


@pytest.mark.parametrize(
    "whose",
    [
        {"x-thinkonce-tenant": "anonymous"},
        {"x-thinkonce-client-authorization": "Bearer sk-a"},
        {"x-thinkonce-client-api-key": "sk-a"},
    ],
    ids=lambda named: next(iter(named)),
)
async def test_a_preload_saves_nothing_and_is_not_remembered_whoever_is_named(
    gateway: Running, stage: Stage, whose: dict[str, str]
) -> None:
    stage.upstream.script = embed

    def inputs(*given: str) -> str:
        body = {"model": "priced", "input": list(given)}
        return json.dumps({"method": "POST", "url": "/v1/embeddings", "body": body})

    rows, _ = await send(gateway, [inputs("a"), inputs("a", "b")], LINES | whose, "?concurrency=1")
    assert [row["stored"] for row in rows] == [True, True]
    stage.upstream.script = answer
    rows, _ = await send(gateway, [line("one")], LINES | whose)
    assert rows[0]["stored"]
    assert (await gateway.get("/cache/stats")).json["savings"]["totals"]["calls"] == 0
    assert await gateway.metric("thinkonce_saved_tokens_total") == 0, "a vector was there already"
    chat = gateway.assembly.service.cached["/v1/chat/completions"]
    assert isinstance(chat, Endpoint)
    assert len(chat.memo) == 0, "what it asked is no client's question"


async def test_an_organisation_and_a_project_are_part_of_whose_they_are(
    gateway: Running, stage: Stage
) -> None:
    project = {"openai-organization": "org", "openai-project": "p1"}
    mine = LINES | {"x-thinkonce-client-authorization": "Bearer sk-a"} | project
    await send(gateway, [line("one")], mine)
    assert stage.upstream.seen[0].headers["openai-project"] == "p1"
    assert (await gateway.chat("one", headers=SK | project)).cache == "HIT"
    body = json.loads(line("one"))["body"]
    for headers in (mine, SK | project):
        assert (await gateway.post("/cache/explain", body, headers)).json["would"] == "hit"
    assert (await gateway.chat("one", headers=SK)).cache == "MISS"


# -- the command ----------------------------------------------------------------------------


async def run(*arguments: str) -> int:
    """In a thread, because the gateway runs on this test's loop."""
    return await asyncio.to_thread(main, list(arguments))


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    file = tmp_path / "faq.jsonl"
    file.write_text("".join(line(str(n), f"q{n}") + "\n" for n in range(30)), encoding="utf-8")
    return file


async def test_the_command_preloads_a_file_and_again_for_nothing(
    gateway: Running, stage: Stage, batch: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-mine")
    arguments = ("preload", str(batch), "--url", gateway.url, "--api-key-env", "MY_KEY")
    assert await run(*arguments, "--rate", "10000", "--concurrency", "4") == 0
    assert "30 stored" in capsys.readouterr().out
    assert {seen.headers["authorization"] for seen in stage.upstream.seen} == {"Bearer sk-mine"}
    hit = await gateway.chat("7", headers={"authorization": "Bearer sk-mine"})
    assert hit.cache == "HIT"
    assert await run(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["already"], told["stored"], stage.upstream.calls) == (30, 0, 30)


async def test_the_command_names_lines_that_fail_and_exits_1(
    gateway: Running, batch: Path, capsys: Out
) -> None:
    with batch.open("a", encoding="utf-8") as file:
        file.write("{oops\n")
    assert await run("preload", str(batch), "--url", gateway.url, "--tenant", "anonymous") == 1
    said = capsys.readouterr()
    assert "line 31" in said.err
    assert "30 stored" in said.out


async def test_the_command_asks_whose_entries_they_shall_be(
    gateway: Running, batch: Path, capsys: Out
) -> None:
    assert await run("preload", str(batch), "--url", gateway.url) == 2
    said = capsys.readouterr().err
    for choice in ("--api-key-env", "--tenant", "--group"):
        assert choice in said
    assert said.count("\n") == 1
    assert await run("preload", str(batch), "--url", gateway.url, "--api-key-env", "ABSENT") == 2
    assert "ABSENT" in capsys.readouterr().err
    both = ("--tenant", "anonymous", "--group", "x")
    assert await run("preload", str(batch), "--url", gateway.url, *both) == 2
    assert await run("preload", "absent.jsonl", "--url", gateway.url, "--tenant", "x") == 2
    assert "absent.jsonl" in capsys.readouterr().err


async def test_the_command_takes_a_batch_of_any_length(
    gateway: Running, tmp_path: Path, capsys: Out
) -> None:
    """Both directions at once: neither side waits for the other to have finished."""
    file = tmp_path / "long.jsonl"
    file.write_text((line("same") + "\n") * 5000, encoding="utf-8")
    assert await run("preload", str(file), "--url", gateway.url, "--tenant", "anonymous") == 0
    assert "5000 lines" in capsys.readouterr().out
