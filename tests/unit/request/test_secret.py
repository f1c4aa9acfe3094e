"""The installation's secret: made once, kept private, agreed on by processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import thinkonce
from thinkonce.errors import ConfigError
from thinkonce.request import secret as module
from thinkonce.request.secret import fingerprint, load_secret, others_may_read, secret_path


def test_a_secret_is_made_once_beside_the_store_and_only_its_owner_may_read_it(
    tmp_path: Path,
) -> None:
    path = secret_path(tmp_path / "deep" / "answers.db")
    first = load_secret(path=path)
    assert path.name == "answers.db.secret"
    assert len(first) == 32
    assert load_secret(path=path) == first
    assert [file.name for file in path.parent.iterdir()] == ["answers.db.secret"], "no draft stays"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert not others_may_read(path)
        path.chmod(0o644)
        assert others_may_read(path)


def test_two_stores_have_two_secrets(tmp_path: Path) -> None:
    assert load_secret(path=tmp_path / "a.secret") != load_secret(path=tmp_path / "b.secret")


def test_without_a_store_a_secret_lives_as_long_as_the_process() -> None:
    assert load_secret() != load_secret()


def test_a_setting_gives_the_same_secret_everywhere_and_touches_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.secret"
    assert load_secret("correct horse battery", path) == load_secret("correct horse battery")
    assert load_secret("correct horse battery") != load_secret("correct horse batterz")
    assert not path.exists()


def test_a_short_setting_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="at least 16 characters") as caught:
        load_secret("hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "abcd\n", "zz" * 32, "00" * 33, "é" * 64])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.secret"
    path.write_text(content)
    with pytest.raises(ConfigError, match="64 hex digits"):
        load_secret(path=path)
    assert path.read_text() == content


def test_a_place_that_cannot_hold_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="secret file"):
        load_secret(path=tmp_path / "file" / "a.secret")


def test_the_first_of_two_that_start_at_once_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.secret"
    theirs = "11" * 32
    publish = module._publish

    def beaten(draft: Path, target: Path) -> None:
        target.write_text(theirs)
        publish(draft, target)

    monkeypatch.setattr(module, "_publish", beaten)
    assert load_secret(path=path).hex() == theirs
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links_still_gets_one_whole_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.secret"
    assert load_secret(path=path) == load_secret(path=path)
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.secret"
    program = (
        "import sys; from pathlib import Path; from thinkonce.request.secret import load_secret; "
        "sys.stdin.read(); print(load_secret(path=Path(sys.argv[1])).hex())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(thinkonce.__file__).parents[1])}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:  # all wait for their input to end, then run
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    made = {child.communicate(timeout=60)[0].strip() for child in children}
    assert made == {load_secret(path=path).hex()}


def test_a_fingerprint_tells_secrets_apart_and_nothing_more() -> None:
    one, other = bytes(32), bytes(31) + b"\x01"
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)
    assert len(fingerprint(one)) == 16
    assert fingerprint(one) not in one.hex()
