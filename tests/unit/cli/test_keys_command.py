"""`thinkonce keys`: what it writes, what it leaves as it was, and what it never shows."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path

import pytest

from thinkonce.cli import main
from thinkonce.settings import Sources

FILE = """# The company's gateway.
[gateway]   # reached by name
host = "127.0.0.1"

[upstreams.openai]
urls = ["https://api.openai.com"]  # theirs
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "thinkonce.toml"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["keys", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_key_is_shown_once_and_only_its_digest_is_written(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FILE)
    options = ["--group", "team", "--models", "gpt-*", "--models", "o3"]
    options += ["--rate-limit", "60", "--max-concurrent", "4", "--max-bytes", "256MiB"]
    code, out, _ = run(capsys, "add", "alice", *options)
    key = out.split()[0]
    assert (code, key[:3], len(key) > 40) == (0, "tk-", True)
    text = file.read_text()
    assert text.startswith(FILE), "comments and order stay"
    assert key not in text
    (client,) = Sources(environ={}).load().clients.values()
    assert client.key_sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert (client.group, client.models, client.rate_limit) == ("team", ["gpt-*", "o3"], 60)
    assert (client.max_concurrent, client.max_bytes) == (4, 256 * 2**20)
    for arguments in (["list"], ["list", "--json"]):
        _, out, _ = run(capsys, *arguments)
        assert "alice" in out
        assert key not in out


def test_without_a_file_one_is_made_that_nobody_else_may_read(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "add", "alice", "--json")
    assert (code, set(json.loads(out))) == (0, {"name", "key", "config"})
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    run(capsys, "add", "bob")
    assert file.stat().st_mode & 0o777 == 0o640, "its mode is the owner's business"
    assert list(tomllib.loads(file.read_text())["clients"]) == ["alice", "bob"]


def test_revoking_takes_one_client_out_and_nothing_else(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FILE)
    for name in ("alice", "bob smith"):
        run(capsys, "add", name)
    assert run(capsys, "revoke", "alice")[0] == 0
    assert list(Sources(environ={}).load().clients) == ["bob smith"]
    assert run(capsys, "revoke", "bob smith")[0] == 0
    assert file.read_text().rstrip() == FILE.rstrip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "alice"], "one that no client has"),
        (["revoke", "carol"], "a client's name: alice"),
        (["add", "bob", "--rate-limit", "0"], "a whole number >= 1"),
        (["add", "bob", "--max-bytes", "lots"], "such as 512KiB"),
        (["list", "--config", "elsewhere.toml"], "a TOML file that exists"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    run(capsys, "add", "alice")
    before = file.read_text()
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [file.name]


@pytest.mark.parametrize("text", ["[gateway\n", "clients = 3\n", "[gateway]\nport = 'x'\n"])
def test_a_file_that_does_not_load_is_left_as_it_is(
    file: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file.write_text(text)
    code, _, err = run(capsys, "add", "alice")
    assert (code, err.count("\n")) == (2, 1)
    assert file.read_text() == text


def test_a_link_stays_a_link(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "etc" / "real.toml"
    real.parent.mkdir()
    real.write_text(FILE)
    file.symlink_to(real)
    run(capsys, "add", "alice")
    assert file.is_symlink()
    assert "alice" in real.read_text()


def test_a_configuration_that_was_named_and_is_not_there_is_not_made(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = str(file.parent / "nope" / "x.toml")
    for arguments in (["add", "alice"], ["revoke", "alice"], ["list"]):
        code, out, err = run(capsys, *arguments, "--config", named)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "a TOML file that exists" in err
    assert not list(file.parent.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")
def test_a_file_stays_its_owner_s(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(FILE)
    os.chown(file, 4321, 1234)
    file.chmod(0o2640)
    assert run(capsys, "add", "alice")[0] == 0
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (4321, 1234, 0o2640)


def test_who_makes_a_key_hears_that_a_provider_s_key_will_be_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FILE)
    assert "a provider's key gets 401" in run(capsys, "add", "alice")[2]
    file.write_text(FILE + 'api_key_env = "OPENAI_API_KEY"\n')
    assert run(capsys, "add", "alice")[2] == ""
