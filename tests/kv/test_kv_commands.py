"""`thinkonce kv ...` against a running model server, and against a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from openai import OpenAI
from small_model import Serve, Served

from thinkonce.cli.app import main
from thinkonce.cli.kv_explain import CAUSES
from thinkonce.kv.prefix.causes import Cause

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
