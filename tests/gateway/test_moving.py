"""Entries to a file and back, over HTTP and from the command line: nothing is lost on the way."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Got, Running, Stage
from thinkonce import Cache, cached
from thinkonce.cli import main
from thinkonce.entry import Entry, Form, Meta
from thinkonce.freshness import Rules
from thinkonce.insight.carried import carried
from thinkonce.insight.moving import Importer, export_lines, read_opening
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.tiers.keyring import Keyring
from thinkonce.tiers.tier import Key

LINES = {"content-type": "application/jsonl"}
MINE, OTHER = "m" * 32, "o" * 32
SK = {"authorization": "Bearer sk-a"}
Out = pytest.CaptureFixture[str]


async def run(*arguments: str) -> int:
    """In a thread, because the gateway runs on this test's loop."""
    return await asyncio.to_thread(main, list(arguments))


def rows_of(got: Got) -> list[dict[str, Any]]:
    assert got.status == 200, got.body
    return [json.loads(row) for row in got.body.splitlines()]


async def put_in(
    gateway: Running, lines: bytes, headers: dict[str, str] | None = None, query: str = ""
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    sent = LINES | (headers or {})
    rows = rows_of(await gateway.send("POST", f"/cache/import{query}", lines, sent))
    return rows[:-1], rows[-1]


async def exported(gateway: Running, query: str = "") -> bytes:
    got = await gateway.get(f"/cache/export{query}")
    assert got.status == 200
    return got.body


async def filled(gateway: Running) -> None:
    """Entries that differ in all that an entry can say."""
    await gateway.chat("one", kv_cache={"tags": ["a", "b"], "namespace": "n", "priority": "high"})
    await gateway.chat("中文 \x00", stream=True, headers=SK, kv_cache={"cache_key": "label"})
    await gateway.chat("two", kv_cache={"preload": True, "ttl": 50}, temperature=0.3)
    await gateway.chat("t", kv_cache={"cache_key": "l", "key_mode": "override"})
    await gateway.chat("three", kv_cache={"context_aware": False})
    await gateway.chat("y" * 20_000)


def held(gateway: Running) -> dict[str, Any]:
    entries = gateway.assembly.shelf.entries(Selector(), 1000)
    return {entry.digest.hex(): carried(entry, None) for entry in entries}


@pytest.mark.parametrize("stored", [False, True])
async def test_a_round_trip_under_the_same_secret_loses_nothing(
    stage: Stage, tmp_path: Path, stored: bool
) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" if stored else "memory://" for name in "ab"]
    one, other = [
        await stage.gateway(store={"url": url, "secret": MINE}, clock=stage.moving.clock)
        for url in urls
    ]
    await filled(one)
    stage.moving.move(10)
    lines = await exported(one)
    first, *_, last = [json.loads(line) for line in lines.splitlines()]
    assert (first["thinkonce_export"], last["entries"], last["end"]) == (1, 6, True)
    assert first["secret"] == one.assembly.shelf.fingerprint
    wrong, sums = await put_in(other, lines)
    assert wrong == []
    assert (sums["imported"], sums["complete"], sums["failed"]) == (6, True, 0)
    assert held(other) == held(one)
    calls = stage.upstream.calls
    again = await other.chat("中文 \x00", headers=SK, kv_cache={"cache_key": "label"})
    assert (again.cache, again.headers["age"]) == ("HIT", "10")
    assert (await other.chat("y" * 20_000)).cache == "HIT"
    assert (await other.chat("else", kv_cache={"context_aware": False})).cache == "MISS"
    assert stage.upstream.calls == calls + 1
    assert (await put_in(other, lines))[1]["present"] == 6, "what is there already stays"
    stage.moving.move(45)
    assert (await other.chat("two", kv_cache={"ttl": 50}, temperature=0.3)).reason == "expired"


async def test_another_secret_s_entries_are_refused_until_a_tenant_is_named(stage: Stage) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": MINE})
    other = await stage.gateway(store={"url": "memory://", "secret": OTHER})
    await one.chat("one", headers=SK)
    await one.chat("y" * 20_000, headers=SK)
    lines = await exported(one)
    refused = await other.send("POST", "/cache/import", lines, LINES)
    assert (refused.status, refused.json["error"]["code"]) == (409, "foreign_secret")
    assert "into_tenant" in refused.json["error"]["message"]
    assert held(other) == {}
    named = {"x-thinkonce-client-authorization": "Bearer sk-b"}
    assert (await put_in(other, lines, named))[1]["imported"] == 2
    assert (await other.chat("one", headers={"authorization": "Bearer sk-b"})).cache == "HIT"
    assert (await other.chat("one", headers=SK)).cache == "MISS", "nobody else's"
    _, sums = await put_in(other, lines, query="?into_tenant=anonymous")
    assert sums["imported"] == 2
    assert (await other.chat("y" * 20_000)).cache == "HIT"
    assert {row.meta.tenant for row in held(other).values()} >= {"anonymous"}


async def test_requests_that_were_not_kept_cannot_change_hands(stage: Stage) -> None:
    keeps_none = {"keep_requests": False}
    one = await stage.gateway(store={"url": "memory://", "secret": MINE}, cache=keeps_none)
    other = await stage.gateway(store={"url": "memory://", "secret": OTHER})
    await one.chat("one")
    wrong, sums = await put_in(other, await exported(one), query="?into_tenant=anonymous")
    assert (sums["failed"], sums["imported"]) == (1, 0)
    assert (wrong[0]["line"], "request" in wrong[0]["error"]) == (2, True)


async def test_a_corrupt_line_is_named_and_the_rest_goes_on(stage: Stage) -> None:
    one, other = [await stage.gateway(store={"url": "memory://", "secret": MINE}) for _ in range(2)]
    for n in range(6):
        await one.chat(str(n))
    lines = (await exported(one)).splitlines()
    lines[1] = lines[1][:-20]
    lines[2] = re.sub(rb'"seconds":[0-9.e-]+', b'"seconds":77', lines[2])
    lines[3] = lines[3].replace(b'"model":"priced"', b'"model":"dearer"')
    lines.insert(5, b"")
    wrong, sums = await put_in(other, b"\n".join(lines[:-1]))
    assert [row["line"] for row in wrong] == [2, 3, 4]
    assert (sums["imported"], sums["failed"], sums["complete"]) == (3, 3, False)


@pytest.mark.parametrize("body", [b"", b"{}\n", b"[1]\n", b'{"thinkonce_export": 2, "secret": ""}'])
async def test_what_is_no_export_is_refused_as_a_whole(gateway: Running, body: bytes) -> None:
    got = await gateway.send("POST", "/cache/import", body, LINES)
    assert got.status == 400
    assert "export" in got.json["error"]["message"]


async def test_what_is_too_large_here_is_named(stage: Stage) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": MINE})
    small = await stage.gateway(
        store={"url": "memory://", "secret": MINE}, cache={"max_entry_bytes": 50}
    )
    await one.chat("one")
    wrong, sums = await put_in(small, await exported(one))
    assert sums["failed"] == 1
    assert "max_entry_bytes" in wrong[0]["error"]


async def test_expired_entries_are_left_out_and_counted(stage: Stage) -> None:
    store = {"url": "memory://", "secret": MINE}
    one, other = [await stage.gateway(store=store, clock=stage.moving.clock) for _ in range(2)]
    await one.chat("short", kv_cache={"ttl": 10})
    await one.chat("long", kv_cache={"ttl": 100})
    before = await exported(one)
    stage.moving.move(11)
    last = json.loads((await exported(one)).splitlines()[-1])
    assert (last["entries"], last["expired"]) == (1, 1)
    _, sums = await put_in(other, before)
    assert (sums["imported"], sums["expired"]) == (1, 1)


async def test_an_export_takes_what_it_is_asked_for_and_goes_on_behind_a_key(
    gateway: Running,
) -> None:
    await filled(gateway)

    async def keys(query: str) -> list[str]:
        return [
            json.loads(line)["key"] for line in (await exported(gateway, query)).splitlines()[1:-1]
        ]

    everything = await keys("")
    assert everything == sorted(held(gateway))
    assert await keys(f"?after={everything[3]}") == everything[4:]
    assert len(await keys("?tag=a")) == len(await keys("?namespace=n")) == 1
    assert len(await keys("?tenant=anonymous")) == 5
    assert await keys("?model=absent") == []
    assert (await gateway.get("/cache/export?colour=red")).status == 400


async def test_an_older_answer_does_not_replace_a_newer_one(stage: Stage) -> None:
    store = {"url": "memory://", "secret": MINE}
    one, other = [await stage.gateway(store=store, clock=stage.moving.clock) for _ in range(2)]
    await one.chat("one")
    stage.moving.move(5)
    await other.chat("one")
    assert (await put_in(other, await exported(one)))[1]["present"] == 1
    assert (await put_in(one, await exported(other)))[1]["imported"] == 1
    assert held(one) == held(other)


async def test_every_change_is_one_audit_line_without_secrets(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await stage.gateway(store={"url": "memory://", "secret": MINE})
    key = (await gateway.chat("one")).headers["x-cache-key"]
    line = {"url": "/v1/chat/completions", "body": {"model": "priced", "messages": []}}
    credential = LINES | {"x-thinkonce-client-authorization": "Bearer sk-hidden"}
    with caplog.at_level(logging.INFO, "thinkonce.audit"):
        lines = await exported(gateway, "?tag=a%0Ab")
        await put_in(gateway, lines, query="?into_tenant=anonymous")
        await gateway.send("POST", "/cache/preload", json.dumps(line).encode(), credential)
        await gateway.post(f"/cache/entries/{key}/feedback", {"wrong": True})
        await gateway.post("/cache/limits", {"max_size": 10})
        await gateway.post("/cache/explain", line)
    said = [record.getMessage() for record in caplog.records if record.name == "thinkonce.audit"]
    assert [text.split(": ")[1] for text in said] == [
        "exported",
        "import",
        "preload",
        f"feedback on {key}",
        "limits set",
    ]
    assert "into tenant anonymous" in said[1]
    caplog.clear()
    await exported(gateway, "?after=")
    assert caplog.messages[-1].endswith("exported: all entries")
    assert not [text for text in said if "sk-hidden" in text or "\n" in text]


def test_lines_that_the_store_does_not_keep_are_named(tmp_path: Path) -> None:
    def opened(name: str, max_bytes: int) -> Shelf:
        url = f"sqlite:///{tmp_path / name}.db"
        return open_shelf(
            url,
            Rules(),
            keys=Keyring(MINE),
            max_bytes=2**24,
            store_max_bytes=max_bytes,
            policy="cost",
        )

    one, other = opened("one", 2**30), opened("other", 2**20)
    for n, size in enumerate((10, 400_000, 20)):
        digest = bytes([n]) * 32
        entry = Entry(None, b"x" * size, Meta(), payload_size=size, form=Form.ENCODED)
        one.setting.tiers[1].put(Key(digest, digest), entry)
    lines = list(export_lines(one, Selector()))
    importer = Importer(other, read_opening(lines[0]), None, 2**20)
    assert [importer.take(n, line) for n, line in enumerate(lines[1:], start=2)] == [""] * 4
    assert [number for number, _ in importer.settle()] == [3]
    assert importer.told() == {
        "imported": 2,
        "present": 0,
        "expired": 0,
        "left_out": 0,
        "failed": 1,
        "complete": True,
    }
    one.close()
    other.close()


# -- the commands ---------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THINKONCE_STORE_SECRET", MINE)
    return tmp_path / "answers.jsonl"


async def test_a_gateway_s_entries_go_to_a_file_a_store_and_another_gateway(
    stage: Stage, file: Path, capsys: Out, tmp_path: Path
) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": MINE})
    await filled(one)
    assert await run("export", str(file), "--url", one.url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 6
    assert file.stat().st_mode & 0o077 == 0, "it holds what people asked"
    assert not file.with_name("answers.jsonl.part").exists()
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert await run("import", str(file), "--store", url) == 0
    assert "6 entries imported" in capsys.readouterr().out
    assert await run("import", str(file), "--store", url) == 0
    assert "6 there already" in capsys.readouterr().out
    other = await stage.gateway(store={"url": url, "secret": MINE})
    assert held(other) == held(one)
    third = await stage.gateway(store={"url": "memory://", "secret": MINE})
    assert await run("import", str(file), "--url", third.url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["imported"] == 6
    assert held(third) == held(one)


async def test_a_broken_export_is_gone_on_with(stage: Stage, file: Path, capsys: Out) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": MINE})
    await filled(one)
    assert await run("export", str(file), "--url", one.url) == 0
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    part = file.with_name(file.name + ".part")
    for begun in (b"".join(lines[:3]) + lines[3][:40], whole, lines[0], lines[0][:9], b""):
        part.write_bytes(begun)
        file.unlink()
        assert await run("export", str(file), "--url", one.url) == 0
        assert file.read_bytes().splitlines()[1:] == whole.splitlines()[1:]
    foreign = await stage.gateway(store={"url": "memory://", "secret": OTHER})
    part.write_bytes(b"".join(lines[:3]))
    assert await run("export", str(file), "--url", foreign.url) == 2
    assert "another store" in capsys.readouterr().err


async def test_import_asks_whose_entries_they_shall_be_under_another_secret(
    stage: Stage, file: Path, capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": OTHER})
    await one.chat("one", headers=SK)
    assert await run("export", str(file), "--url", one.url) == 0
    capsys.readouterr()
    mine = await stage.gateway(store={"url": "memory://", "secret": MINE})
    store = f"sqlite:///{tmp_path / 'mine.db'}"
    monkeypatch.setenv("KEY", "sk-b")
    for where in (("--url", mine.url), ("--store", store)):
        capsys.readouterr()
        assert await run("import", str(file), *where) == 2
        said = capsys.readouterr().err
        assert "--api-key-env" in said
        assert said.count("\n") == 1
        assert await run("import", str(file), *where, "--api-key-env", "KEY") == 0
        assert await run("import", str(file), *where, "--tenant", "anonymous") == 0
        assert await run("import", str(file), *where, "--tenant", "nobody") != 0
        assert await run("import", str(file), *where, "--group", "nobody") != 0
    assert (await mine.chat("one", headers={"authorization": "Bearer sk-b"})).cache == "HIT"
    brought = await stage.gateway(store={"url": store, "secret": MINE})
    assert held(brought).keys() == held(mine).keys()


async def test_entries_of_several_tenants_never_become_ones_unless_each_is_named(
    stage: Stage, file: Path, capsys: Out, tmp_path: Path
) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": OTHER})
    for content, headers in (("a", SK), ("b", SK), ("c", {}), ("d", {"x-api-key": "third"})):
        await one.chat(content, headers)
    assert await run("export", str(file), "--url", one.url) == 0
    tenants = [
        row["meta"]["tenant"] for row in map(json.loads, file.read_bytes().splitlines()[1:-1])
    ]
    mine = await stage.gateway(store={"url": "memory://", "secret": MINE})
    owner = next(tenant for tenant in tenants if tenants.count(tenant) == 2)
    for where in (("--url", mine.url), ("--store", f"sqlite:///{tmp_path / 'mine.db'}")):
        before = len(held(mine))
        capsys.readouterr()
        assert await run("import", str(file), *where, "--tenant", "anonymous") == 2
        assert len(held(mine)) == before
        said = capsys.readouterr().err
        assert "--from-tenant" in said
        assert f"3 tenants in {file}: {owner!r} (2), " in said
        assert "'anonymous' (1)" in said
        named = ("--tenant", "anonymous", "--from-tenant", owner)
        assert await run("import", str(file), *where, *named) == 0
        assert "2 entries imported" in (said := capsys.readouterr().out)
        assert "2 of other tenants left out" in said
    assert [(await mine.chat(content)).cache for content in "abcd"] == [
        "HIT",
        "HIT",
        "MISS",
        "MISS",
    ]
    both = ("--from-tenant", owner, "--from-tenant", "anonymous", "--json")
    assert await run("import", str(file), "--url", mine.url, "--tenant", "anonymous", *both) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["imported"], told["present"], told["left_out"]) == (0, 3, 1)


async def test_over_http_lines_of_a_second_tenant_fail_unless_named(stage: Stage) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": MINE})
    other = await stage.gateway(store={"url": "memory://", "secret": OTHER})
    await one.chat("a", SK)
    await one.chat("b")
    lines = await exported(one)
    wrong, sums = await put_in(other, lines, query="?into_tenant=anonymous")
    assert (sums["imported"], sums["failed"]) == (1, 1)
    assert "tenant" in wrong[0]["error"]
    query = "?into_tenant=anonymous&from_tenant=anonymous"
    wrong, sums = await put_in(other, lines, query=query)
    assert (sums["left_out"], sums["failed"], sums["imported"] + sums["present"]) == (1, 0, 1)
    assert (await other.chat("b")).cache == "HIT"


async def test_an_export_of_one_tenant_holds_nobody_elses_entries(
    stage: Stage, file: Path, capsys: Out, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    one = await stage.gateway(store={"url": url, "secret": MINE})
    await one.chat("a", SK)
    await one.chat("b")
    store = one.assembly.shelf.store
    assert store is not None
    store.flush(10)
    for where in (("--url", one.url), ("--store", url)):
        assert await run("export", str(file), *where, "--tenant", "anonymous") == 0
        opening, *rows, end = map(json.loads, file.read_bytes().splitlines())
        assert [row["meta"]["tenant"] for row in rows] == ["anonymous"]
        assert (opening["tenant"], end["entries"]) == ("anonymous", 1)
    file.with_name(file.name + ".part").write_bytes(
        b"".join(file.read_bytes().splitlines(True)[:2])
    )
    assert await run("export", str(file), "--url", one.url) == 2
    assert "another tenant" in capsys.readouterr().err


async def test_import_names_lines_by_their_place_in_a_long_file(
    stage: Stage, file: Path, capsys: Out, tmp_path: Path
) -> None:
    one = await stage.gateway(store={"url": "memory://", "secret": MINE})
    await one.chat("one")
    assert await run("export", str(file), "--url", one.url) == 0
    first, entry, last = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + entry * 1200 + b"{broken\n" + entry + last)
    other = await stage.gateway(store={"url": "memory://", "secret": MINE})
    for where in (("--url", other.url), ("--store", f"sqlite:///{tmp_path / 'n.db'}")):
        capsys.readouterr()
        assert await run("import", str(file), *where) == 1
        said = capsys.readouterr()
        assert "line 1202: failed while reading it" in said.err
        assert "1 entries imported, 1200 there already, 0 expired, 1 failed" in said.out
    file.write_bytes(first + entry)
    assert await run("import", str(file), "--url", other.url) == 1
    assert "cut off" in capsys.readouterr().err


async def test_values_of_functions_travel_under_the_same_secret(
    file: Path, capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("from", "to")]
    calls = []

    def answers(url: str) -> list[Any]:
        with Cache(store=url) as cache:

            @cached(cache=cache, tags=["t"], version="1")
            def ask(what: Any) -> Any:
                calls.append(what)
                return what

            return [ask(what) for what in ("text", {"a": [1, 2.5, None]}, None, b"\xff", 7)]

    before = answers(urls[0])
    assert await run("export", str(file), "--store", urls[0]) == 1
    assert "secret" in capsys.readouterr().err, "none of it can be read under another one"
    monkeypatch.delenv("THINKONCE_STORE_SECRET")
    shutil.copy(tmp_path / "from.db.secret", tmp_path / "to.db.secret")
    assert await run("export", str(file), "--store", urls[0]) == 0
    assert await run("import", str(file), "--store", urls[1]) == 0
    assert "5 entries imported" in capsys.readouterr().out
    assert answers(urls[1]) == before
    assert len(calls) == 5, "everything was there"
    assert await run("import", str(file), "--store", urls[1], "--tenant", "anonymous") == 1
    assert "request" in capsys.readouterr().err


async def test_files_and_stores_that_are_not_there_are_named(
    file: Path, capsys: Out, gateway: Running
) -> None:
    assert await run("import", str(file), "--url", gateway.url) == 2
    assert "answers.jsonl" in capsys.readouterr().err
    assert await run("export", str(file), "--store", "sqlite:///absent.db") == 2
    assert "absent.db" in capsys.readouterr().err
    assert await run("export", "no/such/folder.jsonl", "--url", gateway.url) == 2
    assert "folder.jsonl" in capsys.readouterr().err
