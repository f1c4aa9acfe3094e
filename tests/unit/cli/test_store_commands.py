"""`stats ls show purge doctor` on a real store, filled as a user fills it."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from thinkonce import Cache, cached
from thinkonce.cli import main
from thinkonce.cli.look import COLUMNS, for_people
from thinkonce.cli.store_view import StoreFileView
from thinkonce.cli.view import Chosen
from thinkonce.errors import ConfigError
from thinkonce.settings import Store


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two answers about geography, tagged, and one in another namespace."""
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with Cache(store=url, ttl="1h") as cache:

        @cached(cache=cache, tags=["faq"])
        def capital(country: str) -> dict[str, str]:
            return {"capital of": country}

        @cached(cache=cache, namespace="v2")
        def translate(text: str) -> str:
            return f"{text}: 你好"

        capital("France")
        capital("中国")
        translate("hello")
    return url


Out = pytest.CaptureFixture[str]


def told(capsys: Out, *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_stats_count_what_lies_in_the_store(store: str, capsys: Out) -> None:
    found = told(capsys, "stats", "--store", store)
    assert found["entries"] == 3
    assert 0 < found["bytes"] <= found["file_bytes"]
    assert main(["stats", "--store", store]) == 0
    rows = dict(row.split(maxsplit=1) for row in capsys.readouterr().out.splitlines())
    assert rows["entries"] == "3"
    assert rows["size"].endswith("KiB")


def test_numbers_of_a_gateway_have_units_for_people() -> None:
    shown = for_people(
        {"hit_rate": 0.5, "saved_usd": 0.00012, "saved_seconds": 90.0, "tiers": {"m": {"bytes": 9}}}
    )
    assert shown == {
        "hit_rate": "50.0%",
        "money saved": "$0.000120",
        "time saved": "1.5m",
        "tiers": {"m": {"size": "9B"}},
    }


def test_ls_lists_by_tag_and_namespace(store: str, capsys: Out) -> None:
    assert len(told(capsys, "ls", "--store", store)) == 3
    assert len(told(capsys, "ls", "--store", store, "--limit", "2")) == 2
    tagged = told(capsys, "ls", "--store", store, "--tag", "faq")
    assert [row["tags"] for row in tagged] == [["faq"], ["faq"]]
    (row,) = told(capsys, "ls", "--store", store, "--namespace", "v2")
    assert row["scope"].endswith("translate")
    assert 3000 < row["ttl"] <= 3600
    assert told(capsys, "ls", "--store", store, "--model", "absent") == []


def test_ls_in_a_pipe_shows_enough_of_a_key_for_show(store: str, capsys: Out) -> None:
    assert main(["ls", "--store", store, "--namespace", "v2"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.startswith("KEY")
    assert "translate" in line
    assert main(["show", line.split()[0], "--store", store, "--content"]) == 0
    assert "hello: 你好" in capsys.readouterr().out


def test_show_takes_a_prefix_and_gives_the_answer_only_when_asked(store: str, capsys: Out) -> None:
    (row,) = told(capsys, "ls", "--store", store, "--namespace", "v2")
    for digits in (8, 9, 64):
        found = told(capsys, "show", row["key"][:digits], "--store", store)
        assert found["key"] == row["key"]
        assert "content" not in found
    assert told(capsys, "show", row["key"], "--store", store, "--content")["content"] == (
        "hello: 你好"
    )


def test_show_has_units_for_people(store: str, capsys: Out) -> None:
    (row,) = told(capsys, "ls", "--store", store, "--namespace", "v2")
    assert main(["show", row["key"], "--store", store]) == 0
    rows = {line[:24].strip(): line[24:] for line in capsys.readouterr().out.splitlines()}
    assert rows["ttl"].strip().endswith("m")
    assert rows["age"].strip().endswith("s")


def test_looking_where_there_is_no_store_names_the_other_way(capsys: Out) -> None:
    assert main(["stats", "--store", "sqlite:///absent.db"]) == 2
    assert "or --url of a running gateway" in capsys.readouterr().err


def test_show_of_an_unknown_key_exits_2(store: str, capsys: Out) -> None:
    assert main(["show", "0" * 12, "--store", store]) == 2
    assert f"no entry begins with {'0' * 12} in " in capsys.readouterr().err


def test_purge_forgets_what_matches_and_nothing_else(store: str, capsys: Out) -> None:
    assert told(capsys, "purge", "--store", store, "--tag", "absent")["purged"] == 0
    assert told(capsys, "purge", "--store", store, "--older-than", "1h")["purged"] == 0
    assert told(capsys, "purge", "--store", store, "--expired")["purged"] == 0
    assert told(capsys, "purge", "--store", store, "--tag", "faq")["purged"] == 2
    (row,) = told(capsys, "ls", "--store", store)
    key = row["key"][:9]
    assert told(capsys, "purge", "--store", store, "--key", key)["purged"] == 1
    assert told(capsys, "ls", "--store", store) == []


def test_purge_by_an_odd_prefix_takes_no_neighbour(store: str, capsys: Out) -> None:
    (row,) = told(capsys, "ls", "--store", store, "--namespace", "v2")
    digit = "0" if row["key"][8] != "0" else "1"
    assert main(["purge", "--store", store, "--key", row["key"][:8] + digit]) == 2
    assert len(told(capsys, "ls", "--store", store)) == 3


def test_purge_all_empties_and_says_how_much(store: str, capsys: Out) -> None:
    assert main(["purge", "--all", "--store", store]) == 0
    assert capsys.readouterr().out.startswith("purged 3 entries from ")


@pytest.mark.parametrize("named", [".", "", "sub"])
def test_an_export_to_a_folder_is_one_line(
    store: str, empty_folder: Path, capsys: Out, named: str
) -> None:
    (empty_folder / "sub").mkdir()
    assert main(["export", named, "--store", store]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), "a file's path" in said) == (1, True)


def test_a_purge_reaches_a_cache_that_is_open(store: str, capsys: Out) -> None:
    with Cache(store=store) as cache:
        cache.set("question", "answer")
        assert cache.get("question") == "answer"
        assert cache.store is not None
        assert cache.store.flush(5)
        assert told(capsys, "purge", "--store", store, "--all")["purged"] == 4
        assert cache.get("question") is None, "an open cache forgets at once, memory included"


def test_the_configured_store_is_looked_into_when_none_is_named(
    store: str, empty_folder: Path, capsys: Out
) -> None:
    (empty_folder / "thinkonce.toml").write_text(f'[store]\nurl = "{store}"\n', encoding="utf-8")
    assert told(capsys, "stats")["entries"] == 3


def test_looking_does_not_trim_a_store_to_the_looker_s_own_bound(store: str) -> None:
    with Cache(store=store) as cache:
        for number in range(12):
            cache.set(number, "x" * 500_000)
    with StoreFileView(Store(url=store, max_bytes=2**20)) as view:
        assert view.purge(Chosen(tags=("absent",))).purged == 0, "this one writes"
        assert view.stats()["entries"] == 15


END = "-- end of what was written --"


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[list[str]]:
    """A real one in place of stdout; the lines written to it, once it is closed."""
    ours, theirs = os.openpty()
    lines: list[str] = []
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as stdout:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", stdout)
        yield lines
        print(END, file=stdout, flush=True)
        read = b""
        while END not in read.decode(errors="ignore"):  # it comes in as many pieces as it likes
            read += screen.read(65536)
        lines += re.sub(r"\x1b\[\d*m", "", read.decode().partition(END)[0]).splitlines()


@pytest.mark.skipif(os.name != "posix", reason="a terminal is a POSIX matter")
def test_ls_keeps_keys_and_heads_whole_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with Cache(store=url) as cache:

        @cached(cache=cache, namespace="a-long-namespace", tags=["faq", "opening-hours", "中文"])
        def a_function_with_a_name_that_takes_much_room(text: str) -> str:
            return text

        a_function_with_a_name_that_takes_much_room("hello")
    (row,) = told(capsys, "ls", "--store", url)
    for columns in (80, 40):
        with terminal(monkeypatch, columns) as lines:
            assert main(["ls", "--store", url]) == 0
        head, line, note = lines
        assert head.split() == [name for name in COLUMNS if name not in note]
        assert head.split()[:3] == ["KEY", "SCOPE", "MODEL"]
        assert line.split()[0] == row["key"][:16]
        assert max(map(cell_len, (head, line))) <= columns
    with terminal(monkeypatch, 250) as lines:
        assert main(["ls", "--store", url]) == 0
    assert lines[0].split() == list(COLUMNS), "there is room for all"
    assert len(lines) == 2


# -- doctor ---------------------------------------------------------------------------------


def findings(capsys: Out, code: int, *arguments: str) -> dict[str, dict[str, str]]:
    assert main(["doctor", "--json", *arguments]) == code
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_doctor_is_content_with_a_good_store(store: str, capsys: Out) -> None:
    found = findings(capsys, 0, "--store", store)
    assert found["store integrity"]["says"] == "ok"
    assert found["store content"]["says"].startswith("3 entries")
    assert found["secret"]["grade"] == "ok"
    assert all(row["todo"] == "" for row in found.values() if row["grade"] == "ok")
    assert main(["doctor", "--store", store]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_doctor_makes_no_store_where_there_is_none(empty_folder: Path, capsys: Out) -> None:
    found = findings(capsys, 0, "--store", "sqlite:///sub/new.db")
    assert found["store"]["grade"] == "note"
    assert not (empty_folder / "sub").exists()


def test_doctor_says_what_to_do_about_a_file_that_is_no_database(
    empty_folder: Path, capsys: Out
) -> None:
    (empty_folder / "notes.db").write_text("not a database " * 100, encoding="utf-8")
    found = findings(capsys, 1, "--store", "sqlite:///notes.db")
    assert found["store integrity"]["grade"] == "fail"
    assert "move" in found["store integrity"]["todo"]


def test_doctor_notices_a_damaged_page(store: str, capsys: Out) -> None:
    path = Path(store.removeprefix("sqlite:///"))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    raw = bytearray(path.read_bytes())
    raw[16384 + 8 : 16384 + 400] = os.urandom(392)  # in the second page, past its first bytes
    path.write_bytes(raw)
    assert main(["doctor", "--store", store]) == 1
    (line,) = [row for row in capsys.readouterr().out.splitlines() if "store integrity" in row]
    assert line.startswith("FAIL")


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    """A folder where nobody else puts anything."""
    folder = tmp_path / "aside"
    folder.mkdir()
    return folder


WRONG = {
    "a text": b"not a database " * 100,
    "a short text": b"hi",
    "a database of another program": b"",
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("command", ["stats", "ls", "purge --all", "doctor", "show 00000000"])
def test_nothing_is_left_beside_a_file_that_is_not_a_store(
    aside: Path, capsys: Out, kind: str, command: str
) -> None:
    path = aside / "notes.db"
    path.write_bytes(WRONG[kind])
    if not WRONG[kind]:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE theirs(x)")
        database.close()
    before = path.read_bytes()
    assert main([*command.split(), "--store", f"sqlite:///{path}"]) in (1, 2)
    assert "thinkonce" in "".join(capsys.readouterr())
    with pytest.raises(ConfigError, match="store"):
        Cache(store=f"sqlite:///{path}")
    assert list(aside.iterdir()) == [path]
    assert path.read_bytes() == before


def read_only_mount(folder: Path) -> Iterator[None]:
    for more in (["--bind"], ["-o", "remount,ro,bind"]):
        try:
            done = subprocess.run(
                ["mount", *more, str(folder), str(folder)], capture_output=True, check=False
            )
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"may not mount a file system: {done.stderr.decode().strip()}")
    yield
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def copied(store: str, aside: Path) -> Iterator[str]:
    """The store alone, with its secret, in a folder that nobody can write to."""
    path = Path(store.removeprefix("sqlite:///"))
    for name in (path.name, f"{path.name}.secret"):
        shutil.copy(path.with_name(name), aside / name)
    mounted = read_only_mount(aside)
    next(mounted)
    yield f"sqlite:///{aside / path.name}"
    next(mounted, None)


def test_a_copy_in_a_read_only_folder_can_be_looked_into(copied: str, capsys: Out) -> None:
    assert told(capsys, "stats", "--store", copied)["entries"] == 3
    rows = told(capsys, "ls", "--store", copied)
    found = told(capsys, "show", rows[0]["key"], "--content", "--store", copied)
    assert found["content"] == "hello: 你好", "the newest comes first"
    found = findings(capsys, 1, "--store", copied)
    assert "cannot be written" in found["store"]["says"]
    assert found["store integrity"]["grade"] == "ok", "it is a good store"
    assert main(["purge", "--all", "--store", copied]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_looking_makes_no_file(store: str, capsys: Out) -> None:
    path = Path(store.removeprefix("sqlite:///"))
    for name in (f"{path.name}.host", f"{path.name}.secret"):
        path.with_name(name).unlink()
    shutil.rmtree(path.with_name(f"{path.name}.host.flights"), ignore_errors=True)
    before = sorted(path.parent.iterdir())
    assert told(capsys, "stats", "--store", store)["entries"] == 3
    assert told(capsys, "ls", "--store", store) == [], "its entries cannot be checked"
    main(["doctor", "--store", store])
    assert sorted(path.parent.iterdir()) == before


def test_doctor_says_that_entries_were_made_with_another_secret(store: str, capsys: Out) -> None:
    secret = Path(store.removeprefix("sqlite:///") + ".secret")
    kept = secret.read_text()
    secret.unlink()
    for _ in range(2):  # none, then a new one
        found = findings(capsys, 1, "--store", store)
        assert "3 entries" in found["store content"]["says"]
        assert "made with another secret" in found["store content"]["says"]
        assert str(secret) in found["store content"]["todo"]
        Cache(store=store).close()
    secret.write_text(kept)
    assert findings(capsys, 0, "--store", store)["store content"]["grade"] == "ok"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder where none can write")
def test_doctor_knows_where_no_store_can_be_made(capsys: Out) -> None:
    found = findings(capsys, 1, "--store", "sqlite:////proc/answers.db")
    assert "cannot be made" in found["store"]["says"]


@pytest.mark.skipif(os.name != "posix", reason="modes are a POSIX matter")
def test_doctor_notices_a_secret_that_others_can_read(store: str, capsys: Out) -> None:
    secret = Path(store.removeprefix("sqlite:///") + ".secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o644)
    assert main(["doctor", "--store", store]) == 1
    said = capsys.readouterr().out
    assert "0644" in said
    assert f"chmod 600 {secret}" in said


def test_doctor_compares_the_secrets_of_two_stores(
    store: str, empty_folder: Path, capsys: Out
) -> None:
    other = f"sqlite:///{empty_folder / 'other.db'}"
    Cache(store=other).close()
    assert findings(capsys, 1, "--store", store, "--compare", other)["compare"]["grade"] == "fail"
    assert findings(capsys, 0, "--store", store, "--compare", store)["compare"]["grade"] == "ok"


def test_doctor_says_which_upstream_cannot_be_reached(
    store: str, empty_folder: Path, capsys: Out, port: int
) -> None:
    (empty_folder / "thinkonce.toml").write_text(
        f'[upstreams.here]\nurls = ["http://127.0.0.1:{port}/v1"]\n', encoding="utf-8"
    )
    found = findings(capsys, 1, "--store", store)
    assert "cannot be reached" in found["upstream here"]["says"]


KEYLESS = '[upstreams.a]\nurls = ["http://127.0.0.1:9/v1"]\n'


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("tls", '[gateway]\ntls_cert = "absent.pem"\n', "absent.pem"),
        ("encryption", '[store]\nencryption_key_file = "absent.key"\n', "absent.key"),
        ("encryption", '[store]\nencryption_key_file = "open.key"\n', "chmod 600"),
        ("key of a", 'api_key_env = "NO_SUCH_KEY"\n', "NO_SUCH_KEY"),
        ("tracing", "[tracing]\nenabled = true\n", "thinkonce[otel]"),
    ],
)
def test_doctor_finds_what_serve_refuses(
    name: str,
    written: str,
    said: str,
    empty_folder: Path,
    capsys: Out,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "thinkonce.gateway.tracing", raising=False)
    (empty_folder / "open.key").write_text("ab" * 32, encoding="ascii")
    (empty_folder / "open.key").chmod(0o644)
    (empty_folder / "thinkonce.toml").write_text(KEYLESS + written, encoding="utf-8")
    found = findings(capsys, 1, "--store", "sqlite:///new.db")
    assert found[name]["grade"] == "fail"
    assert said in found[name]["says"]
    assert main(["serve", "--store", "sqlite:///new.db", "--port", "0"]) == 2
    assert said in capsys.readouterr().err


def test_doctor_and_serve_warn_of_a_pool_that_no_model_leads_to(
    empty_folder: Path, capsys: Out, caplog: pytest.LogCaptureFixture
) -> None:
    more = "".join(
        f'[upstreams.{name}]\nurls = ["http://127.0.0.1:9/v1"]\nmodels = ["{models}"]\n'
        for name, models in (("late", "gpt-*"), ("named", "gpt-4o"))
    )
    broken = '[gateway]\nhost = "not an address"\n'  # so that it ends after its checks
    (empty_folder / "thinkonce.toml").write_text(KEYLESS + more + broken, encoding="utf-8")
    found = findings(capsys, 1, "--store", "sqlite:///new.db")
    assert (found["models of late"]["grade"], "models of named" in found) == ("note", False)
    assert main(["serve", "--store", "sqlite:///new.db", "--port", "0"]) == 2
    assert [record.args for record in caplog.records if "never asked" in record.msg] == [
        ("late", "a")
    ]


def test_doctor_notes_a_pool_without_a_key_where_clients_are_known(
    empty_folder: Path, capsys: Out
) -> None:
    clients = f'[clients.ann]\nkey_sha256 = "{"ab" * 32}"\n'
    (empty_folder / "thinkonce.toml").write_text(KEYLESS + clients, encoding="utf-8")
    found = findings(capsys, 1, "--store", "sqlite:///new.db")
    assert (found["key of a"]["grade"], "api_key_env" in found["key of a"]["todo"]) == (
        "note",
        True,
    )


def test_doctor_exits_2_on_a_configuration_that_cannot_work(
    empty_folder: Path, capsys: Out
) -> None:
    (empty_folder / "thinkonce.toml").write_text("[store]\nurll = 1\n", encoding="utf-8")
    found = findings(capsys, 2)
    assert "did you mean url?" in found["configuration"]["says"]


def test_doctor_knows_when_the_local_model_is_missing(
    empty_folder: Path, store: str, capsys: Out
) -> None:
    (empty_folder / "thinkonce.toml").write_text('[local]\nmodel = "gpt-5"\n', encoding="utf-8")
    found = findings(capsys, 1, "--store", store)
    assert "SmolLM2-135M-Instruct" in found["model"]["says"]


def test_ls_lists_an_answer_of_a_class_that_is_not_here_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Answer:\n    text: str\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs = importlib.import_module("theirs")
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with Cache(store=url) as cache:
        cache.set("question", theirs.Answer("42"))
    monkeypatch.delitem(sys.modules, "theirs")
    (tmp_path / "theirs.py").rename(tmp_path / "gone.py")
    for _ in range(2):  # the first look must not have removed it
        (row,) = told(capsys, "ls", "--store", url)
        assert row["form"] == "encoded"
        assert told(capsys, "show", row["key"], "--store", url)["key"] == row["key"]
        assert main(["show", row["key"], "--content", "--store", url]) == 1
        assert "theirs" in capsys.readouterr().err
    (tmp_path / "gone.py").rename(tmp_path / "theirs.py")
    importlib.invalidate_caches()
    with Cache(store=url) as cache:
        assert cache.get("question").text == "42"
    sys.modules.pop("theirs", None)


def test_a_store_whose_host_file_cannot_be_opened_exits_2_with_one_line(
    store: str, tmp_path: Path, capsys: Out
) -> None:
    host = tmp_path / "answers.db.host"
    host.unlink()
    host.mkdir()
    assert main(["purge", "--all", "--store", store]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["ls", "--store", store]) == 0, "looking needs none"
    with pytest.raises(ConfigError) as raised:
        Cache(store=store)
    assert raised.value.__suppress_context__, "one traceback: its line says it all"
