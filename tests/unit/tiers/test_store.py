"""Store URLs, and what is said about a store that cannot be opened."""

import logging
import os
import sys
from pathlib import Path

import apsw
import pytest

from thinkonce.errors import ConfigError
from thinkonce.host.mapfile import HostFile
from thinkonce.testing import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers import schema
from thinkonce.tiers.store import open_store, store_path


@pytest.fixture
def host(tmp_path):
    host = HostFile(tmp_path / "the.host")
    yield host
    host.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opened(host, clock):
    stores = []

    def opened(path):
        stores.append(open_store(path, secret=b"s" * 32, host=host, clock=clock.clock))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def test_urls_name_files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store_path("sqlite:///answers.db") == tmp_path / "answers.db"
    assert store_path(f"sqlite:///{tmp_path}/deep/a b.db") == tmp_path / "deep" / "a b.db"
    assert store_path("sqlite:///~/answers.db") == tmp_path / "home" / "answers.db"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "answers.db",
        "sqlite:",
        "sqlite://host/answers.db",
        "sqlite:///",
        "mysql:///x",
        "memory:",
    ],
)
def test_other_urls_are_refused_with_what_would_work(url):
    with pytest.raises(ConfigError, match=r"use .*sqlite:///relative\.db"):
        store_path(url)


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h", "redis+cluster://h"])
def test_redis_is_not_built_yet_and_says_so(url):
    with pytest.raises(ConfigError, match="not built yet"):
        store_path(url)


def test_a_folder_is_not_a_store(tmp_path):
    with pytest.raises(ConfigError, match="this is a folder"):
        store_path(f"sqlite:///{tmp_path}")


def test_a_missing_folder_is_made(opened, tmp_path, clock):
    path = tmp_path / "not" / "yet" / "answers.db"
    store = opened(path)
    store.put(key_of("a"), entry_of(clock, "there"))
    assert store.flush(5)
    assert answer_of(store.get(key_of("a"))) == "there"
    assert (store.tier.path, store.tier.purges.epoch[0]) == (path, 0)


# -- refused, in one line that names the store ----------------------------------------------------


def refused(opened, path, pattern):
    with pytest.raises(ConfigError, match=pattern) as caught:
        opened(path)
    line = str(caught.value)
    assert line.startswith(f"store={str(path)!r} does not work; use "), line
    assert "\n" not in line


def test_a_file_that_is_no_database_is_refused_and_left_alone(opened, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, dear to me\n" * 100)
    refused(opened, path, "not a database of thinkonce")
    assert path.read_text().startswith("my notes")
    assert sorted(tmp_path.glob("notes*")) == [path]


def test_another_programs_database_is_refused_and_left_alone(opened, tmp_path):
    path = tmp_path / "other.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE mine(x); INSERT INTO mine VALUES('dear')")
    other.close()
    refused(opened, path, "another program")
    other = apsw.Connection(str(path))
    assert other.execute("SELECT x FROM mine").get == "dear"
    other.close()


def test_a_path_below_a_file_is_refused(opened, tmp_path):
    (tmp_path / "file").write_text("")
    refused(opened, tmp_path / "file" / "answers.db", "a path where a database can be made")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(opened, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refused(opened, folder / "answers.db", "may write")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_file_system_that_takes_no_files_is_refused(opened):
    refused(opened, Path("/proc/thinkonce/answers.db"), "a path where a database can be made")


def test_a_locked_store_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "OPENING_PATIENCE_MS", 50)
    path = tmp_path / "answers.db"
    opened(path).close()
    holder = apsw.Connection(str(path))
    holder.execute("PRAGMA journal_mode=delete")  # only then does it exclude readers too
    holder.execute("BEGIN EXCLUSIVE")
    refused(opened, path, "no other process has locked")
    holder.execute("ROLLBACK")
    holder.close()


def test_a_later_format_is_refused_with_what_to_do(opened, tmp_path):
    path = tmp_path / "answers.db"
    opened(path).close()
    set_version(path, 99)
    refused(opened, path, "format 99: use the release that wrote it")


def test_an_older_format_is_read_as_empty_with_one_line(opened, tmp_path, clock, caplog):
    path = tmp_path / "answers.db"
    store = opened(path)
    store.put(key_of("a"), entry_of(clock))
    store.close()
    set_version(path, 0)
    with caplog.at_level(logging.WARNING, "thinkonce"):
        store = opened(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"store {path} has an older format and is read as empty"
    ]
    assert store.get(key_of("a")) is None
    store.put(key_of("b"), entry_of(clock, "new"))
    assert store.flush(5)
    assert answer_of(store.get(key_of("b"))) == "new"


def set_version(path, version):
    database = apsw.Connection(str(path))
    database.execute(f"PRAGMA user_version={version}")
    database.close()


def test_an_empty_file_becomes_a_store(opened, tmp_path):
    path = tmp_path / "answers.db"
    path.touch()
    assert opened(path).stats().entries == 0
