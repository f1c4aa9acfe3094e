"""The commands that look into a running gateway, empty it, and measure it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Out as ScriptOut
from gateway.upstream import Seen, answer
from thinkonce.cli import main
from thinkonce.cli.compare import read_prompts
from thinkonce.errors import ConfigError

Out = pytest.CaptureFixture[str]


async def run(*arguments: str) -> int:
    """In a thread, because the gateway runs on this test's loop."""
    return await asyncio.to_thread(main, list(arguments))


async def told(capsys: Out, *arguments: str) -> Any:
    assert await run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
async def filled(gateway: Running) -> Running:
    await gateway.chat("one", kv_cache={"tags": ["faq"]})
    await gateway.chat("two", kv_cache={"namespace": "v2"})
    return gateway


async def test_ls_lists_what_a_gateway_holds(filled: Running, capsys: Out) -> None:
    rows = await told(capsys, "ls", "--url", filled.url)
    assert {row["scope"] for row in rows} == {"chat/completions"}
    assert {row["model"] for row in rows} == {"priced"}
    (row,) = await told(capsys, "ls", "--url", f"{filled.url}/v1", "--namespace", "v2")
    assert row["tokens"] == 18
    (row,) = await told(capsys, "ls", "--url", filled.url, "--tag", "faq")
    assert await run("ls", "--url", filled.url) == 0
    assert row["key"][:16] in capsys.readouterr().out


async def test_show_gives_the_recorded_answer_when_asked(filled: Running, capsys: Out) -> None:
    (row,) = await told(capsys, "ls", "--url", filled.url, "--tag", "faq")
    found = await told(capsys, "show", row["key"][:9], "--url", filled.url)
    assert found["key"] == row["key"]
    assert "content" not in found
    found = await told(capsys, "show", row["key"], "--url", filled.url, "--content")
    assert found["content"]["choices"][0]["message"]["content"] == "hello"


async def test_stats_say_what_keeps_requests_apart(gateway: Running, capsys: Out) -> None:
    for number in range(3):
        await gateway.chat("opening hours?", user=f"user-{number}")
    await gateway.chat("something else")
    found = await told(capsys, "stats", "--url", gateway.url)
    assert found["apart"] == {"compared": 4, "only_in": {"user": 0.75}}
    await gateway.chat("something else")
    assert await run("stats", "--url", gateway.url) == 0
    said = capsys.readouterr().out
    assert "fingerprint of secret" in said
    assert "\n\nsaved by model\nMODEL " in said
    assert "75% of 4 stored requests differ from another only in user\n" in said


async def test_doctor_says_what_keeps_the_requests_of_a_store_apart(
    stage: Stage, tmp_path: Path, capsys: Out
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    gateway = await stage.gateway(store={"url": url})
    for number in range(2):
        await gateway.chat("opening hours?", user=f"user-{number}")
    assert gateway.assembly.shelf.store is not None
    assert await asyncio.to_thread(gateway.assembly.shelf.store.flush, 5)
    await run("doctor", "--store", url, "--json")
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["hit rate"]["says"].endswith("differ from another only in user")
    assert "ignore_fields" in rows["hit rate"]["todo"]


async def test_stats_name_the_tiers(filled: Running, capsys: Out) -> None:
    found = await told(capsys, "stats", "--url", filled.url)
    assert found["tiers"]["memory"]["entries"] == 2


async def test_purge_takes_effect_before_it_returns(filled: Running, capsys: Out) -> None:
    assert (await told(capsys, "purge", "--tag", "faq", "--url", filled.url))["purged"] == 1
    assert (await filled.chat("one", kv_cache={"tags": ["faq"]})).cache == "MISS"
    assert (await filled.chat("two", kv_cache={"namespace": "v2"})).cache == "HIT"
    assert (await told(capsys, "purge", "--all", "--url", filled.url))["purged"] == 2
    assert (await filled.chat("two", kv_cache={"namespace": "v2"})).cache == "MISS"


async def test_purge_by_age_expiry_model_and_key(stage: Stage, capsys: Out) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock)
    await gateway.chat("old")
    await gateway.chat("short", kv_cache={"ttl": 5000})
    stage.moving.move(4000)
    await gateway.chat("expired", kv_cache={"ttl": 10})
    await gateway.chat("other", model="b")
    key = (await gateway.chat("keyed")).headers["x-cache-key"]
    await gateway.chat("young")
    stage.moving.move(20)
    for chosen, left in (
        (("--expired",), 4),
        (("--older-than", "1h"), 3),
        (("--model", "b"), 2),
        (("--key", key[:9]), 1),
    ):
        before = len(await told(capsys, "ls", "--url", gateway.url))
        purged = (await told(capsys, "purge", *chosen, "--url", gateway.url))["purged"]
        assert len(await told(capsys, "ls", "--url", gateway.url)) == before - purged == left
    assert (await gateway.chat("young")).cache == "HIT"


async def test_what_a_gateway_refuses_is_said_in_one_line(filled: Running, capsys: Out) -> None:
    assert await run("show", "0" * 16, "--url", filled.url) == 1
    said = capsys.readouterr().err
    assert "no entry begins with" in said
    assert said.count("\n") == 1


async def test_a_token_is_needed_where_one_is_set(
    stage: Stage, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await stage.gateway(admin={"token": "open sesame"})
    assert await run("stats", "--url", gateway.url) == 1
    assert "THINKONCE_ADMIN_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("THINKONCE_ADMIN_TOKEN", "open sesame")
    assert await run("stats", "--url", gateway.url) == 0


async def test_doctor_compares_a_gateway_s_secret_with_the_store_s(
    stage: Stage, capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine, other = "m" * 32, "o" * 32
    gateway = await stage.gateway(store={"url": "memory://", "secret": mine})
    for secret, code, grade in ((mine, 0, "ok"), (other, 1, "fail")):
        monkeypatch.setenv("THINKONCE_STORE_SECRET", secret)
        assert await run("doctor", "--json", "--compare", gateway.url) == code
        found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert found["compare"]["grade"] == grade
        assert secret not in str(found)


async def test_a_server_that_is_no_gateway_is_named_as_such(
    stage: Stage, capsys: Out, tmp_path: Path
) -> None:
    assert await run("ls", "--url", stage.upstream.url) == 1
    assert "no thinkonce gateway" in capsys.readouterr().err
    (tmp_path / "p").write_text("hi\n", encoding="utf-8")
    arguments = ("--prompts", str(tmp_path / "p"), "--url", stage.upstream.url)
    assert await run("bench", *arguments) == 1
    assert "choose one with --model" in capsys.readouterr().err
    assert await run("bench", *arguments, "--model", "m") == 1
    assert "no x-cache header" in capsys.readouterr().err


async def test_bench_compares_one_s_own_prompts_without_cache_and_with_it(
    gateway: Running, stage: Stage, tmp_path: Path, capsys: Out
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("营业时间是几点？\n\nwhen?\nwhen?\n", encoding="utf-8")
    arguments = ("bench", "--prompts", str(prompts), "--url", gateway.url, "--model", "priced")
    found = await told(capsys, *arguments)
    assert found["prompts"] == 3
    assert found["with_cache"]["hits"] == 1, "the second `when?` is known by then"
    assert found["again"]["hits"] == 3
    assert stage.upstream.calls == 3 + 2, "each once without the cache, each distinct one with it"
    assert set(found["without_cache"]) == {"total", "p50", "p90", "p99"}
    assert await run(*arguments) == 0
    assert "3/3" in capsys.readouterr().out


async def test_bench_sends_the_credential_the_official_client_would(
    gateway: Running, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p").write_text("hi\n", encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    arguments = ("--prompts", str(tmp_path / "p"), "--url", gateway.url, "--model", "priced")
    assert await run("bench", *arguments) == 0
    assert {seen.headers["authorization"] for seen in stage.upstream.seen} == {"Bearer sk-mine"}


async def test_bench_asks_the_gateway_s_first_model_where_a_prompt_names_none(
    gateway: Running, stage: Stage, tmp_path: Path
) -> None:
    async def provider(seen: Seen, out: ScriptOut) -> None:
        if seen.path.endswith("/models"):
            await out.json({"object": "list", "data": [{"id": "first"}, {"id": "second"}]})
        else:
            await answer(seen, out)

    stage.upstream.script = provider
    (tmp_path / "p").write_text("hi\n", encoding="utf-8")
    assert await run("bench", "--prompts", str(tmp_path / "p"), "--url", gateway.url) == 0
    asked = [seen.json["model"] for seen in stage.upstream.seen if seen.method == "POST"]
    assert set(asked) == {"first"}


async def test_bench_says_what_the_upstream_refused(
    gateway: Running, stage: Stage, tmp_path: Path, capsys: Out
) -> None:
    async def provider(seen: Seen, out: ScriptOut) -> None:
        await out.json({"error": {"message": "no such model"}}, 404)

    stage.upstream.script = provider
    (tmp_path / "p").write_text("hi\n", encoding="utf-8")
    arguments = ("--prompts", str(tmp_path / "p"), "--url", gateway.url, "--model", "m")
    assert await run("bench", *arguments) == 1
    assert capsys.readouterr().err.endswith("answered 404: no such model\n")


LINES = [
    ("plain text", "plain text"),
    ('{"prompt": "p"}', "p"),
    ('{"messages": [{"role": "user", "content": "m"}], "model": "x"}', "m"),
    (
        '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": '
        '{"model": "x", "messages": [{"role": "user", "content": "b"}]}}',
        "b",
    ),
]


@pytest.mark.parametrize(("line", "content"), LINES)
def test_a_prompt_is_a_line_of_text_a_body_or_a_batch_line(
    line: str, content: str, tmp_path: Path
) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(line + "\n", encoding="utf-8")
    (body,) = read_prompts(file)
    assert body["messages"][0]["content"] == content
    assert body.get("model") == ("x" if '"x"' in line else None)
    assert "prompt" not in body


@pytest.mark.parametrize("line", ["{not json", '{"input": "x"}', '{"body": 3}', ""])
def test_a_line_that_is_no_request_is_named_with_its_number(line: str, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_prompts(file)
    assert "p.jsonl" in str(caught.value)
