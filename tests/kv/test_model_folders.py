"""Folders of models that nobody serves any more: told by `kv models`, removed by `kv drop`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from thinkonce.cli.app import main
from thinkonce.kv.disk import holdings, model_folders
from thinkonce.kv.disk.folder import DROPPED, kept_key, settled
from thinkonce.kv.disk.models import describe
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.fingerprint import Fingerprint

CONFIG = json.dumps({"model_type": "llama"})
DAY = 86400.0
Capture = pytest.CaptureFixture[str]
Serving = Callable[[str], DiskTier]


def fingerprint(weights: str) -> Fingerprint:
    return Fingerprint(
        weights=weights,
        config=CONFIG,
        dtype="torch.float32",
        rope="",
        attention="sdpa",
        chunk_tokens=128,
        tokenizer="",
        runtime="",
    )


def named(weights: str) -> str:
    return fingerprint(weights).digest().hex()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "kv"
    folder.mkdir()
    kept_key(folder, "kv")
    return folder


@pytest.fixture
def serving(root: Path) -> Iterator[Serving]:
    """Begins to use a model's folder, as a server does, and keeps a block there."""
    with ExitStack() as stack:

        def begin(weights: str) -> DiskTier:
            tier = DiskTier(root, fingerprint(weights).digest(), 2**20)
            stack.callback(tier.close)
            describe(root, fingerprint(weights), f"name of {weights}")
            block = Block(b"b" * 16, bytes(16), b"t" * 64)
            assert tier.offer(block, memoryview(bytes(5000)))
            assert tier.flush(20)
            return tier

        yield begin


def age(root: Path, weights: str, seconds: float) -> None:
    for file in (root / named(weights)).iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))


def told(capsys: Capture) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert main(["kv", "models", "--kv-store", "kv", "--json"]) == 0
    return {str(each["name"]): each for each in json.loads(capsys.readouterr().out)}


def test_each_is_told_with_its_name_bytes_and_age_and_who_uses_it(
    root: Path, serving: Serving, capsys: Capture
) -> None:
    serving("old").close()
    serving("new")
    age(root, "old", 3 * DAY)
    found = told(capsys)
    old, new = found["name of old"], found["name of new"]
    assert old["fingerprint"] == named("old")
    assert old["kind"] == "llama, torch.float32, 128 tokens a block, raw"
    assert old["bytes"] == sum(f.stat().st_size for f in (root / named("old")).iterdir())
    assert old["age"] == pytest.approx(3 * DAY, abs=60)
    assert (old["in_use"], new["in_use"]) == (False, True)
    assert main(["kv", "models", "--kv-store", "kv"]) == 0
    out = capsys.readouterr().out
    assert f"{named('old')[:12]}  name of old  llama" in out
    assert "2 models, " in out
    assert main(["kv", "ls", "--kv-store", "kv"]) == 0
    assert "(name of old, llama, torch.float32" in capsys.readouterr().out


def test_what_a_server_uses_is_not_removed_and_nothing_else_with_it(
    root: Path, serving: Serving, capsys: Capture
) -> None:
    serving("old").close()
    serving("new")
    both = [named("old")[:8], named("new")[:12].upper()]
    assert main(["kv", "drop", *both, "--kv-store", "kv"]) == 1
    assert f"a running server uses kv/{named('new')}; end that first" in capsys.readouterr().err
    assert main(["kv", "drop", "--older-than", "0", "--kv-store", "kv"]) == 0
    assert "1 model, " in capsys.readouterr().out
    assert list(told(capsys)) == ["name of new"]


def test_what_was_dropped_is_gone_and_the_folder_serves_on(
    root: Path, serving: Serving, capsys: Capture
) -> None:
    serving("old").close()
    (root / f"{DROPPED}cut off").mkdir()
    assert main(["kv", "drop", named("old")[:8], "--kv-store", "kv"]) == 0
    assert f"removed {named('old')[:12]}" in capsys.readouterr().out
    assert sorted(file.name for file in root.iterdir()) == ["models.lock", "owners.key"]
    assert main(["kv", "models", "--kv-store", "kv"]) == 0
    assert capsys.readouterr().out == "nothing is kept in kv\n"
    assert serving("old").stats().blocks == 1


def test_only_what_was_not_written_to_for_so_long_goes(
    root: Path, serving: Serving, capsys: Capture
) -> None:
    for weights in ("young", "old"):
        serving(weights).close()
    age(root, "old", 31 * DAY)
    for gone in (["name of old"], []):
        assert main(["kv", "drop", "--older-than", "30d", "--kv-store", "kv", "--json"]) == 0
        assert [each["name"] for each in json.loads(capsys.readouterr().out)] == gone
    assert list(told(capsys)) == ["name of young"]


def test_a_server_that_begins_meanwhile_waits_and_finds_the_folder_gone(
    root: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving("old").close()
    found, at_the_door = list[DiskTier](), threading.Event()
    beginning = threading.Thread(target=lambda: found.append(serving("old")))
    look = model_folders._in_use

    def knocking(path: Path) -> AbstractContextManager[None]:
        at_the_door.set()
        return settled(path)

    def looked(path: Path) -> bool:
        used = look(path)
        beginning.start()
        assert at_the_door.wait(20)
        return used

    with monkeypatch.context() as patched:
        patched.setattr(holdings, "settled", knocking)
        patched.setattr(model_folders, "_in_use", looked)
        model_folders.drop(root, named("old"))
        beginning.join(20)
    assert found[0].stats().written == 1, "what was there before was not found"
    with pytest.raises(model_folders.InUse):
        model_folders.drop(root, named("old"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drop"], "what to remove is missing; use digits of models, or --older-than 30d"),
        (["drop", "abcdefgh", "--older-than", "1d"], "what to remove=['abcdefgh'] does not work"),
        (["drop", "abcdefgh"], "MODEL: got 'abcdefgh'; it accepts 8 or more digits"),
        (["drop", "--older-than", "soon"], "--older-than='soon' does not work"),
        (["models", "--kv-store", "."], "--kv-store='.' does not work; use a folder that"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    root: Path, capsys: Capture, arguments: list[str], said: str
) -> None:
    where = [] if "--kv-store" in arguments else ["--kv-store", "kv"]
    assert main(["kv", *arguments, *where]) == 2
    assert said in capsys.readouterr().err


def test_the_folder_of_the_settings_is_meant_where_none_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["kv", "models"]) == 2
    assert "--kv-store is missing" in capsys.readouterr().err
    monkeypatch.setenv("THINKONCE_KV_STORE", "kv")
    assert main(["kv", "models"]) == 0
    monkeypatch.setenv("THINKONCE_KV_STORE", "elsewhere")
    assert main(["kv", "models"]) == 2
    assert "[kv] store='elsewhere' does not work" in capsys.readouterr().err
