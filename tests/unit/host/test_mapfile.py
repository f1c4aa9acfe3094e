"""The mapped file between real processes: epochs only rise, and nothing in it can stop a start."""

import errno
import gc
import os
import stat
import subprocess
import sys
import threading

import pytest

from leaks import open_files
from thinkonce.errors import TierError
from thinkonce.host.mapfile import EPOCH_AT, MAGIC, SIZE, HostFile, host_path

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture
def path(tmp_path):
    return host_path(tmp_path / "answers.db")


@pytest.fixture
def host(path):
    with_file = HostFile(path)
    yield with_file
    with_file.close()


def test_it_lies_beside_its_store(tmp_path):
    assert host_path(tmp_path / "answers.db") == tmp_path / "answers.db.host"


def test_a_new_file_is_private_and_begins_at_epoch_zero(host, path):
    assert host.epoch[0] == 0
    assert len(host.epoch) == 1
    assert path.stat().st_size == SIZE
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@unix
def test_it_has_its_place_on_the_disk_from_the_start(path):
    """A hole touched on a full disk would kill the process."""
    path.touch()
    os.truncate(path, SIZE)  # as versions before this one made it
    HostFile(path).close()
    assert path.stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize("size", [0, 100, SIZE - 1])
def test_without_preallocation_it_is_written_in_full(path, size, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path.write_bytes(bytes(size))
    HostFile(path).close()
    assert path.stat().st_size == SIZE


@unix
def test_a_full_disk_is_a_tier_error_at_the_start(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TierError, match="mapping"):
        HostFile(path)


def bump(host):
    """A change that needs the lock: without it, some get lost."""
    with host.lock:
        host.epoch[0] += 1
        return host.epoch[0]


def test_the_epoch_only_rises(host):
    assert host.raise_epoch(7) == 7
    assert host.raise_epoch(3) == 7, "an older purge must not undo a newer one"
    assert bump(host) == 8
    assert host.epoch[0] == 8


def test_a_second_open_in_the_same_process_sees_the_purge_at_once(host, path):
    other = HostFile(path)
    host.raise_epoch(41)
    assert other.epoch[0] == 41
    other.close()
    assert bump(host) == 42, "closing one open must not free or break the other's lock"


def test_a_view_taken_before_close_still_reads(path):
    host = HostFile(path)
    epoch = host.epoch
    host.raise_epoch(5)
    host.close()
    host.close()
    assert (epoch[0], host.epoch[0]) == (5, 5)
    other = HostFile(path)
    other.raise_epoch(6)
    other.close()
    assert epoch[0] == 6, "and it still learns of purges"
    del host
    gc.collect()
    assert epoch[0] == 6, "a wrapper that outlives its cache must not crash"


def test_a_closed_file_refuses_to_be_changed(path):
    host = HostFile(path)
    host.close()
    for use in (lambda: bump(host), lambda: host.raise_epoch(1)):
        with pytest.raises(TierError, match="has been closed"):
            use()


def test_closing_gives_the_descriptors_back(path):
    before = open_files()
    host = HostFile(path)
    assert len(open_files()) > len(before)
    host.close()
    assert len(open_files()) == len(before)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"not ours at all" * 10_000,
        os.urandom(SIZE),
        os.urandom(SIZE * 2),
        MAGIC + b"\x63" + bytes(SIZE),
    ],
    ids=["empty", "short", "text", "noise", "longer noise", "other version"],
)
def test_a_file_that_is_not_ours_is_rewritten(path, content):
    path.write_bytes(content)
    host = HostFile(path)
    assert bump(host) == 1
    assert not any(host.flights), "calls of another layout mean nothing here"
    assert path.stat().st_size >= max(SIZE, len(content)), "shrinking would kill who maps it"
    host.close()


def test_another_version_keeps_the_epoch(path):
    HostFile(path).raise_epoch(99)
    content = bytearray(path.read_bytes())
    content[8] = 77
    content[5000] = 1
    path.write_bytes(content)
    host = HostFile(path)
    assert host.epoch[0] == 99, "a purge stays in force through an upgrade"
    assert host.flights[5000 - 4096] == 0
    assert content[EPOCH_AT] == 99
    host.close()


def test_what_cannot_be_opened_is_a_tier_error_that_names_it(tmp_path):
    with pytest.raises(TierError, match=r"opening .*missing"):
        HostFile(tmp_path / "missing" / "answers.db.host")
    with pytest.raises(TierError, match="opening"):
        HostFile(tmp_path)


@unix
def test_a_link_is_not_followed(tmp_path, path):
    target = tmp_path / "precious"
    target.write_text("keep me")
    path.symlink_to(target)
    with pytest.raises(TierError):
        HostFile(path)
    assert target.read_text() == "keep me"


RAISER = """
import sys
from thinkonce.host.mapfile import HostFile
host = HostFile(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with host.lock:
        host.epoch[0] += 1
print(host.epoch[0])
"""


def start(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_no_number_is_given_twice_by_four_processes_that_open_it_together(path):
    workers = [start(RAISER, path, 500) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    for worker in workers:
        worker.stdout.close()
    host = HostFile(path)
    assert host.epoch[0] == 2000
    host.close()


def test_no_number_is_given_twice_by_threads(host):
    def work():
        for _ in range(200):
            bump(host)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.epoch[0] == 1600


@unix
def test_a_forked_child_shares_the_epoch_and_locks_for_itself(host):
    before = host.epoch
    with host.lock:  # held by the parent while it forks: the child must not inherit the hold
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.read(ready, 1)
                for _ in range(300):
                    bump(host)
            finally:
                os._exit(0 if before[0] >= 300 else 1)
    os.write(go, b"x")
    for _ in range(300):
        bump(host)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert before[0] == 600, "parent and child excluded each other"
    os.close(ready)
    os.close(go)


@unix
def test_a_stopped_lock_holder_costs_a_bounded_delay(path, host):
    other = HostFile(path)
    other.lock._patience = 0.05
    with host.lock, pytest.raises(TierError, match="another process's lock"):
        other.raise_epoch(1)
    assert other.raise_epoch(1) == 1
    other.close()
