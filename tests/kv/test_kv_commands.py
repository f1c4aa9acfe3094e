"""`thinkonce kv ...` against a running model server, and against a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import httpx
import msgspec
import pytest
from openai import OpenAI
from small_model import Serve, Served

from thinkonce.cli.app import main
from thinkonce.cli.kv_explain import CAUSES, WHY_EXACT
from thinkonce.kv.prefix.causes import Cause, WhyExact
from thinkonce.settings import Kv

TEXT = "The quick brown fox jumps over the lazy dog. " * 12
CHAT: Any = {"messages": [{"role": "user", "content": TEXT}]}
Capture = pytest.CaptureFixture[str]


def batch(file: Path, *bodies: Any) -> Path:
    rows = [{"url": "/v1/chat/completions", "body": body, "custom_id": "it"} for body in bodies]
    file.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return file


def test_a_file_is_read_ahead_for_the_client_that_is_named(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_KEY", "sk-a")
    file = batch(tmp_path / "prompts.jsonl", CHAT, {**CHAT, "model": "other"})
    command = ["kv", "preload", str(file), "--url", served.url, "--api-key-env", "A_KEY"]
    assert main(command) == 1, "one line failed"
    out, err = capsys.readouterr()
    assert out.startswith("2 lines: 1 read, 0 there already, 1 failed; 128 tokens are kept")
    assert "line 2 (it): the model 'other' does not exist here" in err
    batch(file, CHAT)
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["already"], told["complete"], told["kept_tokens"]) == (1, True, 128)
    with OpenAI(base_url=f"{served.url}/v1", api_key="sk-a", max_retries=0) as client:
        usage = client.chat.completions.create(model="tiny", max_tokens=1, **CHAT).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 128


def test_behind_a_gateway_the_command_says_that_it_wants_a_tenant(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve(secret="s" * 64)
    file = batch(tmp_path / "prompts.jsonl", CHAT)
    assert main(["kv", "preload", str(file), "--url", served.url]) == 2
    assert "--tenant" in capsys.readouterr().err
    assert main(["kv", "preload", str(file), "--url", served.url, "--tenant", "t"]) == 0


def test_the_token_is_asked_for_and_taken_from_the_settings(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve(token="a token of the admin")
    file = batch(tmp_path / "prompts.jsonl", CHAT)
    command = ["kv", "preload", str(file), "--url", served.url]
    assert main(command) == 1
    assert (
        "set THINKONCE_ADMIN_TOKEN to the model server's [admin] token" in capsys.readouterr().err
    )
    monkeypatch.setenv("THINKONCE_ADMIN_TOKEN", "a token of the admin")
    assert main(command) == 0


def test_why_a_request_is_read_again_is_told_in_words(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_KEY", "sk-a")
    with OpenAI(base_url=f"{served.url}/v1", api_key="sk-a", max_retries=0) as client:
        client.chat.completions.create(model="tiny", max_tokens=1, **CHAT)
    file = tmp_path / "request.json"
    changed = [{"role": "user", "content": TEXT.replace("lazy", "hazy", 1)}]
    file.write_bytes(msgspec.json.encode({"body": {"messages": changed}, "url": "/v1/any"}))
    command = ["kv", "explain", str(file), "--url", served.url, "--api-key-env", "A_KEY"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "it says something else than the nearest prompt that is known (content)" in out
    assert "at message 0, character 35, token " in out
    assert "lazy" in out.split("known")[2]
    assert main([*command, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["prompts"]
    assert told["cause"] == "content"
    file.write_text("{")
    assert main(command) == 2


def test_every_cause_has_words() -> None:
    assert set(CAUSES) == set(get_args(Cause))
    assert set(WHY_EXACT) == set(get_args(WhyExact))


SYSTEM = {"role": "system", "content": "Answer as a dictionary would. " * 12}
FIRST, SECOND = "What is a fox? " * 20, "Why are dogs lazy? " * 20


def told(messages: Any, **kv_cache: Any) -> Any:
    return {"messages": messages, "max_tokens": 1, "kv_cache": kv_cache}


@pytest.fixture
def grown(serve: Serve, tmp_path: Path) -> Served:
    """A server with one system prompt, two conversations behind it, and one of another name."""
    served = serve(kv=Kv(chunk=64, store=str(tmp_path / "kept")))
    user = [{"role": "user", "content": text} for text in (FIRST, SECOND)]
    for body in (
        *(told([SYSTEM, each]) for each in (*user, user[1])),
        told([user[0]], namespace="n", tags=["t"], ttl="1h", priority="high"),
    ):
        httpx.post(f"{served.url}/v1/chat/completions", json=body).raise_for_status()
    assert served.engine.disk is not None
    assert served.engine.disk.flush(30)
    return served


def test_the_tree_shows_what_is_shared_once_and_how_each_goes_on(
    grown: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["kv", "ls", "--url", grown.url, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    stats = httpx.get(f"{grown.url}/kv/stats").json()
    assert sum(row["memory_bytes"] for row in rows) == stats["memory"]["bytes"]
    blocks = stats["memory"]["blocks"]
    assert sum(row["blocks"] for row in rows) == blocks == stats["disk"]["blocks"]
    named = [row for row in rows if row["namespace"]]
    assert [(row["tags"], row["priority"]) for row in named] == [(["t"], "high")]
    assert 3500 < named[0]["expires_in"] <= 3600
    (root,) = [row for row in rows if not row["depth"] and not row["namespace"]]
    below = [row for row in rows if row["parent"] == root["id"]]
    assert root["children"] == len(below) == 2
    assert root["hits"] == 2
    assert sorted(row["hits"] for row in below) == [0, 1]
    assert {row["start"] for row in below} == {root["tokens"]}
    assert main(["kv", "ls", "--url", grown.url]) == 0
    drawn = capsys.readouterr().out.splitlines()
    heads = "BLOCK TOKENS UP TO MEMORY DISK AGE USED HITS LIFE PRIORITY WHOSE"
    assert drawn[0].split() == heads.split()
    at = next(number for number, line in enumerate(drawn) if line.startswith(root["id"][:12]))
    assert [line[:3] for line in drawn[at + 1 : at + 3]] == ["├─ ", "└─ "]
    assert drawn[-1].startswith(f"{blocks} blocks in {len(rows)} branches of 2 roots")


def test_pages_of_the_tree_leave_nothing_out(grown: Served) -> None:
    whole = httpx.get(f"{grown.url}/kv/entries").json()["entries"]
    pages, after = list[Any](), ""
    for _ in whole:
        query = {"limit": "1"} | ({"after": after} if after else {})
        page = httpx.get(f"{grown.url}/kv/entries", params=query).json()
        pages += page["entries"]
        after = page["next"]
    assert [page["id"] for page in pages] == [row["id"] for row in whole]
    assert after == ""
    for query in ({"limit": "0"}, {"limit": "x"}, {"after": "00"}, {"page": "2"}):
        assert httpx.get(f"{grown.url}/kv/entries", params=query).status_code == 400


def test_one_chain_is_shown_with_the_beginning_of_its_text(
    grown: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = httpx.get(f"{grown.url}/kv/entries").json()["entries"]
    leaf = max(rows, key=lambda row: row["start"] + row["tokens"])
    assert main(["kv", "show", leaf["id"][:10], "--url", grown.url]) == 0
    out = capsys.readouterr().out
    assert str(SYSTEM["content"])[:60] in out
    assert f"{leaf['start'] + leaf['tokens']}" in out
    chain = httpx.get(f"{grown.url}/kv/entries/{leaf['id']}").json()
    assert sum(block["tokens"] for block in chain["blocks"]) == chain["tokens"]
    assert chain["text"].startswith("<|im_start|>system\nAnswer as a dictionary")
    for name, status in (("00000000", 404), ("zz", 400), (leaf["id"][:4], 400)):
        assert httpx.get(f"{grown.url}/kv/entries/{name}").status_code == status


def test_nobody_from_elsewhere_sees_the_tree_or_a_text(serve: Serve) -> None:
    served = serve()
    for path in ("/kv/entries", "/kv/entries/00000000"):
        answer = httpx.get(f"{served.url}{path}", headers={"x-forwarded-for": "10.0.0.1"})
        assert answer.status_code == 403
        assert httpx.post(f"{served.url}{path}", json={}).status_code == 405


def test_a_folder_is_listed_without_a_server(
    grown: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "kept")
    rows = httpx.get(f"{grown.url}/kv/entries").json()["entries"]
    assert main(["kv", "ls", "--kv-store", folder, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert model["fingerprint"] == httpx.get(f"{grown.url}/kv/stats").json()["fingerprint"]
    assert sum(row["tokens"] for row in model["entries"]) == sum(row["tokens"] for row in rows)
    assert {row["memory_bytes"] for row in model["entries"]} == {0}
    assert main(["kv", "ls", "--kv-store", folder]) == 0
    assert "llama, torch.float32, 64 tokens a block, raw" in capsys.readouterr().out
    leaf = max(model["entries"], key=lambda row: row["start"] + row["tokens"])
    assert main(["kv", "show", leaf["id"], "--kv-store", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == leaf["start"] + leaf["tokens"]
    assert main(["kv", "ls", "--kv-store", str(tmp_path)]) == 2
    assert "serve-model --kv-store DIR" in capsys.readouterr().err


def test_a_smaller_disk_pushes_out_at_once(grown: Served) -> None:
    disk = grown.engine.disk
    assert disk is not None
    before = disk.stats()
    assert before.blocks > 6
    limit = {"disk": before.bytes // 2}
    told = httpx.post(f"{grown.url}/kv/limits", json=limit).json()
    assert told["disk"]["max_bytes"] == before.bytes // 2
    assert disk.flush(30)
    after = disk.stats()
    assert 0 < after.bytes <= before.bytes // 2
    assert after.evicted == before.blocks - after.blocks
    for wrong in (1, "1GiB", 0):
        assert httpx.post(f"{grown.url}/kv/limits", json={"disk": wrong}).status_code == 400
    httpx.post(f"{grown.url}/kv/limits", json={"disk": 2**40}).raise_for_status()
    assert disk.stats().max_bytes == 2**40


def test_without_a_folder_there_is_no_disk_to_change(served: Served) -> None:
    answer = httpx.post(f"{served.url}/kv/limits", json={"disk": 2**30})
    assert answer.status_code == 400
    assert "there is no [kv] store" in answer.json()["error"]["message"]


def test_a_purge_forgets_what_is_named_and_needs_a_name(
    served: Served, client: OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    kept: Any = {"kv_cache": {"namespace": "n"}}

    def cached(**more: Any) -> int:
        answer = client.chat.completions.create(model="tiny", max_tokens=1, **CHAT, **more)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    for extra in ({}, {"extra_body": kept}):
        assert (cached(**extra), cached(**extra)) == (0, 128)
    assert main(["kv", "purge", "--namespace", "n", "--url", served.url]) == 0
    assert capsys.readouterr().out.startswith("2 blocks in memory")
    assert (cached(extra_body=kept), cached()) == (0, 128)
    rows = httpx.get(f"{served.url}/kv/entries").json()["entries"]
    (owner,) = {row["tenant"] for row in rows}
    assert main(["kv", "ls", "--url", served.url]) == 0
    shown = owner[:15]
    table = capsys.readouterr().out
    assert shown in table
    assert owner[:16] not in table
    assert main(["kv", "purge", "--tenant", shown, "--url", served.url]) == 0
    assert capsys.readouterr().out.startswith("4 blocks in memory")
    assert [cached() for _ in range(2)] == [0, 128]
    assert main(["kv", "purge", "--url", served.url]) == 2
    assert "--all" in capsys.readouterr().err
    assert main(["kv", "purge", "--all", "--json", "--url", served.url]) == 0
    assert json.loads(capsys.readouterr().out)["purged"] > 0
    assert cached() == 0
