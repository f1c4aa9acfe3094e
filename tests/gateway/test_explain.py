"""Would a request hit, and if not, why not: over HTTP, from the command line, against a store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.anthropic_upstream import answers
from gateway.conftest import Running, Stage
from gateway.upstream import Out as ScriptOut
from gateway.upstream import Seen
from thinkonce.cli import main

SK = {"authorization": "Bearer sk-a"}
Out = pytest.CaptureFixture[str]


def asked(content: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "priced", "messages": [{"role": "user", "content": content}], **more}


async def explained(
    gateway: Running, body: Any, headers: dict[str, str] | None = None, query: str = ""
) -> dict[str, Any]:
    got = await gateway.post(f"/cache/explain{query}", body, headers)
    assert got.status == 200, got.body
    return dict(got.json)


async def test_what_would_hit_is_said_and_nothing_is_counted_or_called(
    gateway: Running, stage: Stage
) -> None:
    key = (await gateway.chat()).headers["x-cache-key"]
    before = gateway.assembly.metrics.counted.summary()
    told = await explained(gateway, asked())
    assert (told["would"], told["key"], told["tier"]) == ("hit", key, "memory")
    assert told["nearest"] is None
    batch = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": asked()}
    assert (await explained(gateway, batch))["key"] == key
    assert (await explained(gateway, asked(stream=True)))["would"] == "hit"
    assert (await explained(gateway, asked("other")))["would"] == "miss"
    assert gateway.assembly.metrics.counted.summary() == before
    assert stage.upstream.calls == 1


async def test_who_asks_as_the_wrong_tenant_is_told_to_give_the_client_s_key(
    gateway: Running,
) -> None:
    await gateway.chat(headers=SK)
    told = await explained(gateway, asked(), {"x-thinkonce-tenant": "anonymous"})
    assert "give the client's key" in told["note"]


async def test_the_first_field_message_and_character_that_differ(gateway: Running) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Oslo?"}]
    await gateway.chat("something else entirely")
    key = (await gateway.chat(messages=turns, temperature=0.5)).headers["x-cache-key"]
    changed = [turns[0], {"role": "user", "content": "Os1o?"}]
    told = await explained(gateway, asked(messages=changed, temperature=0.7, user="u1"))
    assert (told["would"], told["reason"], told["nearest"]["key"]) == ("miss", "new", key)
    differences = told["nearest"]["differences"]
    assert [(item["field"], item["character"]) for item in differences] == [
        ("messages[1].content", 2),
        ("temperature", 2),
        ("user", None),
    ]
    assert (differences[0]["asked"], differences[0]["stored"]) == ("Os1o?", "Oslo?")
    assert (differences[2]["asked"], differences[2]["stored"]) == ("u1", None)
    assert told["counts"] == {
        "compared": 2,
        "same_model": 2,
        "same_tenant": 2,
        "same_namespace": 2,
        "without_request": 0,
    }


@pytest.mark.parametrize(
    ("control", "field"),
    [
        ({"namespace": "v2"}, "namespace"),
        ({"cache_key": "mine"}, "cache_key"),
        ({"context_aware": False}, "context_aware"),
    ],
)
async def test_a_control_that_partitions_is_named(
    gateway: Running, control: dict[str, Any], field: str
) -> None:
    await gateway.chat()
    told = await explained(gateway, asked(kv_cache=control))
    assert [item["field"] for item in told["nearest"]["differences"]] == [field]
    assert field in told["partitions"]


async def test_a_credential_or_a_header_that_partitions_is_named(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"forward_headers": ["x-region"]})
    await gateway.chat(headers=SK)
    told = await explained(gateway, asked(), {"authorization": "Bearer sk-b"})
    assert [item["field"] for item in told["nearest"]["differences"]] == ["tenant"]
    told = await explained(gateway, asked(), SK | {"x-region": "eu"})
    assert [item["field"] for item in told["nearest"]["differences"]] == ["header x-region"]
    assert (await explained(gateway, asked()))["would"] == "hit", "there is one tenant only"
    named = {"x-thinkonce-client-authorization": "Bearer sk-a"}
    assert (await explained(gateway, asked(), named))["would"] == "hit"
    other = await explained(gateway, asked(), {"x-thinkonce-tenant": "0" * 32})
    assert other["partitions"]["tenant"] == "0" * 32


async def test_why_it_was_not_stored_last_time(stage: Stage) -> None:
    async def script(seen: Seen, out: ScriptOut) -> None:
        if seen.json["messages"][0]["content"] == "refused":
            await out.json({"error": {"message": "slow down"}}, 429)
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": "a"}}
        reply = {"id": "x", "object": "chat.completion", "created": 1, "model": "priced"}
        await out.json(reply | {"choices": [choice | {"finish_reason": finish}]})

    stage.upstream.script = script
    gateway = await stage.gateway(clock=stage.moving.clock)
    finish = "length"
    await gateway.chat("long")
    await gateway.chat("refused")
    stage.moving.move(30)
    told = (await explained(gateway, asked("long")))["not_stored"]
    assert (told["reason"], told["ago"], told["detail"]) == ("length", 30.0, "")
    told = (await explained(gateway, asked("refused")))["not_stored"]
    assert (told["reason"], told["detail"]) == ("error", "the upstream answered 429")
    finish = "stop"
    await gateway.chat("long")
    told = await explained(gateway, asked("long"))
    assert (told["would"], told["not_stored"]) == ("hit", None), "stored since then"


async def test_what_became_of_an_entry_that_is_gone(stage: Stage) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock)
    await gateway.chat("purged", kv_cache={"tags": ["t"]})
    await gateway.post("/cache/purge", {"tags": ["t"]})
    assert (await explained(gateway, asked("purged")))["reason"] == "purged"
    await gateway.chat("evicted")
    await gateway.post("/cache/limits", {"max_size": 1})
    await gateway.chat("another")
    reasons = [
        (await explained(gateway, asked("evicted")))["reason"],
        (await explained(gateway, asked("another")))["reason"],
    ]
    assert sorted(map(str, reasons)) == ["None", "evicted"]
    await gateway.post("/cache/limits", {"max_size": 10})
    await gateway.chat("short", kv_cache={"ttl": 5})
    stage.moving.move(6)
    told = await explained(gateway, asked("short"))
    assert (told["would"], told["reason"], told["ttl"]) == ("miss", "expired", -1.0)
    assert "may not be given" in told["note"]
    assert (await explained(gateway, asked("never")))["reason"] == "new"


async def test_what_has_no_key_bypasses_and_what_is_wrong_is_a_400(gateway: Running) -> None:
    told = await explained(gateway, asked(kv_cache={"enabled": False}))
    assert (told["would"], told["reason"], told["key"]) == ("bypass", "disabled", "")
    for body, query in (
        ([], ""),
        (asked(kv_cache={"colour": "red"}), ""),
        (asked(), "?endpoint=files"),
        (asked(), "?colour=red"),
        ({"url": "/v1/files", "body": asked()}, ""),
    ):
        assert (await gateway.post(f"/cache/explain{query}", body)).status == 400


async def test_where_requests_are_not_kept_it_says_so(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"keep_requests": False})
    assert "nothing is stored" in (await explained(gateway, asked()))["note"]
    await gateway.chat("hi")
    told = await explained(gateway, asked("ho"))
    assert "keep_requests" in told["note"]
    assert (told["nearest"], told["counts"]["without_request"]) == (None, 1)
    assert (await explained(gateway, asked("hi")))["would"] == "hit"


async def test_anthropic_s_messages_are_read_with_the_headers_their_clients_send(
    gateway: Running, stage: Stage
) -> None:
    stage.upstream.script = answers()
    body = asked(max_tokens=5)
    sent = {"content-type": "application/json", "x-api-key": "k", "anthropic-version": "2023-06-01"}
    await gateway.send("POST", "/v1/messages", json.dumps(body).encode(), sent)
    told = await explained(gateway, body, {"x-api-key": "k"}, "?endpoint=messages")
    assert told["would"] == "hit"
    assert (await explained(gateway, body, sent))["would"] == "hit", "told by its header"


# -- the command ----------------------------------------------------------------------------


async def run(*arguments: str) -> int:
    """In a thread, because the gateway runs on this test's loop."""
    return await asyncio.to_thread(main, list(arguments))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "request.json"
    file.write_text(json.dumps(asked("What is the capital of Nauru?")), encoding="utf-8")
    return file


async def test_the_command_marks_the_character(gateway: Running, file: Path, capsys: Out) -> None:
    await gateway.chat("What is the capital of Norway?")
    assert await run("explain", str(file), "--url", gateway.url) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith("differs in")]
    assert lines[at] == "differs in messages[0].content, character 24"
    asked_line, stored_line, mark = lines[at + 1 : at + 4]
    place = mark.index("^")
    assert (asked_line[place], stored_line[place]) == ("a", "o")
    assert "miss (new)" in lines[0]


async def test_the_command_takes_a_credential_and_prints_json(
    gateway: Running, file: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.chat("What is the capital of Nauru?", headers=SK)
    await gateway.chat("else", headers={"authorization": "Bearer sk-b"})
    monkeypatch.setenv("KEY", "sk-a")
    arguments = ("explain", str(file), "--url", gateway.url, "--json")
    assert await run(*arguments, "--api-key-env", "KEY") == 0
    assert json.loads(capsys.readouterr().out)["would"] == "hit"
    assert await run(*arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nearest"]["differences"][0]["field"] == "tenant"
    assert await run(*arguments, "--header", "authorization: Bearer sk-a") == 0
    assert json.loads(capsys.readouterr().out)["would"] == "hit"
    assert await run(*arguments, "--header", "nonsense") == 2


async def test_a_store_is_asked_as_the_gateway_that_fills_it_would_ask(
    stage: Stage, file: Path, capsys: Out, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    gateway = await stage.gateway(store={"url": url})
    assert await run("explain", str(file), "--store", url) == 2
    assert "[upstreams]" in capsys.readouterr().err, "an empty store does not tell the pool"
    key = (await gateway.chat("What is the capital of Nauru?")).headers["x-cache-key"]
    await asyncio.to_thread(gateway.assembly.shelf.flush, 10)
    assert await run("explain", str(file), "--store", url, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["would"], told["key"], told["tier"]) == ("hit", key, "sqlite")
    file.write_text(json.dumps(asked("What is the capital of Norway?")), encoding="utf-8")
    assert await run("explain", str(file), "--store", url) == 0
    assert "messages[0].content, character 24" in capsys.readouterr().out


async def test_a_request_that_is_none_is_one_line(
    gateway: Running, file: Path, capsys: Out, tmp_path: Path
) -> None:
    file.write_text("not json", encoding="utf-8")
    assert await run("explain", str(file), "--url", gateway.url) == 1
    assert await run("explain", str(file), "--store", f"sqlite:///{tmp_path / 'no.db'}") == 2
    assert await run("explain", "absent.json", "--url", gateway.url) == 2
    assert capsys.readouterr().err.count("\n") == 3


async def test_what_a_terminal_would_act_on_is_escaped(
    gateway: Running, file: Path, capsys: Out
) -> None:
    await gateway.chat("a\x1b[2Jb")
    file.write_text(json.dumps(asked("a\x1b[2Jc")), encoding="utf-8")
    assert await run("explain", str(file), "--url", gateway.url) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    mark = next(line for line in told.splitlines() if line.strip() == "^")
    shown = next(line for line in told.splitlines() if line.startswith("  asked"))
    assert shown[mark.index("^")] == "c"
