"""Who is alive: judged by the name of a process, not by a number that is used again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec
import pytest

from thinkonce.host.process import is_alive, is_pid_taken, state_of, this_process

linux = pytest.mark.skipif(sys.platform != "linux", reason="start times are told by /proc")


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def named(pid):
    return msgspec.structs.replace(this_process(), pid=pid, started=state_of(pid)[1])


def test_this_process_is_alive():
    assert is_alive(this_process())
    assert this_process().pid == os.getpid()


def test_another_process_is_alive_until_it_ends():
    other = sleeper()
    name = named(other.pid)
    assert is_alive(name)
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    if sys.platform == "linux":
        assert not is_alive(name), "a zombie runs no more"
    other.wait()
    other.stdin.close()
    assert not is_alive(name)


@linux
def test_a_stopped_process_is_alive():
    other = sleeper()
    os.kill(other.pid, signal.SIGSTOP)
    assert is_alive(named(other.pid))
    other.kill()
    other.wait()
    other.stdin.close()


@linux
def test_the_same_number_with_another_start_or_boot_is_another_process():
    me = this_process()
    assert not is_alive(msgspec.structs.replace(me, started=me.started + 1))
    assert not is_alive(msgspec.structs.replace(me, boot=me.boot ^ 1))


@linux
def test_a_process_of_another_container_cannot_be_judged_and_counts_as_alive():
    me = this_process()
    assert is_alive(msgspec.structs.replace(me, space=me.space ^ 1, pid=2**22 - 1))


@linux
def test_a_process_whose_name_looks_like_its_state_is_read_right(tmp_path):
    odd = tmp_path / ") Z 1 2 3"
    odd.symlink_to("/bin/cat")
    other = subprocess.Popen([str(odd)], stdin=subprocess.PIPE)
    assert is_alive(named(other.pid))
    other.stdin.close()
    other.wait()


def test_without_proc_a_number_that_is_taken_counts_as_alive():
    assert is_pid_taken(os.getpid())
    other = sleeper()
    assert is_pid_taken(other.pid)
    other.kill()
    other.wait()
    other.stdin.close()
    assert not is_pid_taken(other.pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_name_of_its_own():
    me = this_process()
    child = os.fork()
    if child == 0:
        named_anew = this_process()
        os._exit(0 if named_anew.pid == os.getpid() != me.pid else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
