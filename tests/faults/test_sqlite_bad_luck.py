"""Full disks, locks, damage, deletion, forks and sudden exits: a miss at worst, never an error."""

import logging
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from thinkonce.errors import TierError
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.selector import Selector
from thinkonce.testing import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers.sqlite import SqliteTier

ROOT = Path(__file__).parents[2]
SOON = 0.1  # seconds after which a write that cannot be carried out is dropped


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def make(folder=tmp_path):
        path = folder / "answers.db"
        host = HostFile(host_path(path))
        tier = SqliteTier(path, secret=b"s" * 32, host=host, clock=clock.clock, commit_within=SOON)
        made.append((tier, host))
        return tier

    yield make
    for tier, host in made:
        tier.close()
        host.close()


def put(tier, clock, name, value="x"):
    tier.put(key_of(name), entry_of(clock, value))


# -- a disk that takes no more ---------------------------------------------------------------


def switched_off_and_back_on(tier, clock, caplog, make_room):
    """`tier` lies on a disk that just became full."""
    with caplog.at_level(logging.WARNING, "thinkonce"):
        for number in range(40):
            put(tier, clock, f"more {number}", os.urandom(60_000))
            tier.flush(5)
    stats = tier.stats()
    assert stats.dropped_writes > 0
    assert stats.errors >= 5
    assert [line for line in caplog.messages if "switched off for now" in line], caplog.messages
    assert answer_of(tier.get(key_of("before"))) == "kept", "what is there is still read"

    make_room()
    caplog.clear()
    put(tier, clock, "too early")
    assert tier.get(key_of("too early")) is None, "nobody hammers on a full disk"
    clock.advance(5)
    with caplog.at_level(logging.WARNING, "thinkonce"):
        put(tier, clock, "after", "kept too")
        assert tier.flush(10)
    assert "works again" in caplog.text
    assert answer_of(tier.get(key_of("after"))) == "kept too"
    database = apsw.Connection(str(tier.path))
    assert database.execute("PRAGMA integrity_check").get == "ok"
    database.close()


def test_a_file_that_may_not_grow_costs_writes_not_answers(make, clock, caplog, tmp_path):
    tier = make()
    put(tier, clock, "before", "kept")
    assert tier.flush(10)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The log beside the file is what grows; 1 MiB is more than any other file here needs.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, usual[1]))
    try:
        switched_off_and_back_on(
            tier, clock, caplog, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"may not mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_writes_not_answers(make, clock, caplog, small_disk):
    tier = make(small_disk)
    put(tier, clock, "before", "kept")
    assert tier.flush(10)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    switched_off_and_back_on(tier, clock, caplog, ballast.unlink)


# -- a lock that somebody holds ----------------------------------------------------------------


def test_a_locked_store_drops_what_it_cannot_write_in_time_and_reads_on(make, clock):
    tier = make()
    put(tier, clock, "before", "kept")
    assert tier.flush(10)
    holder = apsw.Connection(str(tier.path))
    holder.execute("BEGIN IMMEDIATE")
    for name in "abc":
        put(tier, clock, name)
        assert tier.get(key_of(name)) is not None, "found while it waits"
    assert tier.flush(10) is False, "dropped, and flush says so"
    assert tier.stats().dropped_writes == 3
    assert answer_of(tier.get(key_of("before"))) == "kept"
    holder.execute("ROLLBACK")
    holder.close()
    clock.advance(5)
    put(tier, clock, "after")
    assert tier.flush(10)


def test_a_purge_that_cannot_be_done_is_an_error_and_removes_nothing(make, clock, monkeypatch):
    from thinkonce.tiers import sqlite_purges

    monkeypatch.setattr(sqlite_purges, "PURGING_PATIENCE", 0.05)
    tier = make()
    put(tier, clock, "a")
    assert tier.flush(10)
    holder = apsw.Connection(str(tier.path))
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(TierError, match="writing"):
        tier.purges.append(Selector())
    holder.execute("ROLLBACK")
    holder.close()
    assert tier.purges.epoch[0] == 0
    assert tier.get(key_of("a")) is not None


# -- damage ------------------------------------------------------------------------------------


def fill(tier, clock, count=200):
    for number in range(count):
        put(tier, clock, str(number), "x" * 2000)
    assert tier.flush(20)


def damage(path, start, length):
    """Overwrite part of the file behind SQLite's back."""
    script = (
        "import sys; path, start, length = sys.argv[1], *map(int, sys.argv[2:])\n"
        "with open(path, 'r+b') as file:\n"
        "    file.seek(start)\n"
        "    file.write(b'\\xa5' * length)\n"
    )
    # In a process of its own: closing the file here would drop SQLite's locks.
    subprocess.run([sys.executable, "-c", script, path, str(start), str(length)], check=True)


def moved_aside(path):
    found = path.parent.glob(f"{path.name}.corrupt-*")
    return [file for file in found if not file.name.endswith(("-wal", "-shm"))]


def test_a_store_damaged_while_in_use_is_moved_aside_and_begun_anew(make, clock, caplog):
    tier = make()
    fill(tier, clock)
    checkpoint(tier.path)
    size = tier.path.stat().st_size
    damage(tier.path, 16384, size - 16384)
    with caplog.at_level(logging.ERROR, "thinkonce"):
        for number in range(200):
            try:
                assert tier.get(key_of(str(number))) is None, "nothing wrong is served"
            except TierError:
                break
        else:
            pytest.fail("the damage was not noticed")
        tier.tidy()
    assert len(moved_aside(tier.path)) == 1
    assert len([line for line in caplog.messages if "is corrupt; it was moved" in line]) == 1
    assert tier.get(key_of("1")) is None
    put(tier, clock, "new", "kept")
    assert tier.flush(10)
    assert answer_of(tier.get(key_of("new"))) == "kept"
    assert tier.stats().entries == 1


def test_a_store_that_is_corrupt_at_the_start_is_moved_aside(make, clock, caplog):
    tier = make()
    fill(tier, clock)
    tier.close()
    damage(tier.path, 100, 16384 - 100)  # the tables' own table; the header still says whose
    with caplog.at_level(logging.ERROR, "thinkonce"):
        again = make()
    assert len(moved_aside(tier.path)) == 1
    assert [line for line in caplog.messages if "a new one begun" in line]
    put(again, clock, "new")
    assert again.flush(10)


def test_a_store_damaged_in_its_middle_is_moved_aside_at_the_start(make, clock, caplog):
    tier = make()
    fill(tier, clock)
    tier.close()
    damage(tier.path, 16384, tier.path.stat().st_size - 16384)  # head and tables' table are good
    with caplog.at_level(logging.ERROR, "thinkonce"):
        again = make()
    assert len(moved_aside(tier.path)) == 1
    assert len([line for line in caplog.messages if "a new one begun" in line]) == 1
    put(again, clock, "new", "kept")
    assert again.flush(10)
    assert answer_of(again.get(key_of("new"))) == "kept"


def test_two_tiers_on_a_damaged_store_end_up_on_the_same_new_one(make, clock):
    first, second = make(), make()
    fill(first, clock)
    checkpoint(first.path)
    damage(first.path, 16384, first.path.stat().st_size - 16384)
    for tier in (first, second):
        for number in range(200):
            try:
                assert tier.get(key_of(str(number))) is None
            except TierError:
                break
        tier.tidy()
    assert len(moved_aside(first.path)) == 1, "the second finds that the first was there"
    put(first, clock, "new", "kept")
    assert first.flush(10)
    assert answer_of(second.get(key_of("new"))) == "kept"


def test_a_file_deleted_while_in_use_is_begun_anew(make, clock):
    tier = make()
    fill(tier, clock, 5)
    for ending in ("", "-wal", "-shm"):
        Path(f"{tier.path}{ending}").unlink()
    put(tier, clock, "new", "kept")
    assert tier.flush(10)
    assert tier.path.exists()
    assert answer_of(tier.get(key_of("new"))) == "kept"
    assert tier.get(key_of("1")) is None
    other = make()
    assert answer_of(other.get(key_of("new"))) == "kept"


def checkpoint(path):
    database = apsw.Connection(str(path))
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()


# -- forks and exits ---------------------------------------------------------------------------


def in_child(work):
    """Run `work` in a forked child; its truth is the child's exit status."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_reads_and_writes_the_store_again(make, clock):
    tier = make()
    put(tier, clock, "parent", 1)
    assert tier.flush(10)

    def work():
        put(tier, clock, "child", 2)
        seen = answer_of(tier.get(key_of("parent"))) == 1
        _, removed = tier.purges.append(Selector(key=key_of("unwanted").digest))
        return seen and tier.flush(10) and removed == 1

    put(tier, clock, "unwanted")
    assert tier.flush(10)
    assert in_child(work) == 0
    assert answer_of(tier.get(key_of("child"))) == 2
    assert tier.get(key_of("unwanted")) is None
    put(tier, clock, "again", 3)
    assert tier.flush(10)


def test_a_fork_in_the_middle_of_everything_leaves_both_sides_working(make, clock):
    tier = make()
    stop, failures = threading.Event(), []

    def busy(worker):
        number = 0
        while not stop.is_set():
            number += 1
            try:
                put(tier, clock, f"{worker} {number % 50}", number)
                tier.get(key_of(f"{worker} {number % 50}"))
            except Exception as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=busy, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()

    def work():
        put(tier, clock, f"child {os.getpid()}", "x")
        return tier.flush(10) and tier.get(key_of(f"child {os.getpid()}")) is not None

    try:
        statuses = [in_child(work) for _ in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 10
    assert failures == []
    assert tier.flush(10)
    assert tier.stats().errors == 0


def put_and_return(path):
    host = HostFile(host_path(path))
    tier = SqliteTier(path, secret=b"s" * 32, host=host)
    tier.put(key_of("at exit"), entry_of(FakeClock(), "kept"))


def test_a_worker_process_that_ends_writes_what_it_had_queued(make, tmp_path):
    process = multiprocessing.get_context("fork").Process(
        target=put_and_return, args=(tmp_path / "answers.db",)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert answer_of(make().get(key_of("at exit"))) == "kept"


def test_a_script_that_ends_without_closing_loses_nothing(make, tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from faults.test_sqlite_bad_luck import put_and_return\n"
        "put_and_return(Path(sys.argv[1]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "answers.db"), str(ROOT / "tests")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        timeout=60,
    )
    assert answer_of(make().get(key_of("at exit"))) == "kept"
