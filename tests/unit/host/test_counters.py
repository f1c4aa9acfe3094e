"""Counts of several processes: nothing is lost when a process dies, is killed or comes late."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from thinkonce.host import counters as module
from thinkonce.host.counters import MAX_NAMES, Counters
from thinkonce.host.mapfile import HostFile

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture
def host(tmp_path):
    file = HostFile(tmp_path / "a.host")
    yield file
    file.close()


@pytest.fixture
def counters(host):
    return Counters(host)


def in_child(body):
    """Run `body` in a forked child; its exit status, or the signal's number negated."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_was_added_is_the_total(counters):
    counters.add("hits")
    counters.add("hits", 4)
    counters.add("misses", 2)
    assert counters.totals() == {"hits": 5, "misses": 2}


def test_a_new_file_has_no_totals(counters):
    assert counters.totals() == {}


def test_what_goes_down_again_may_be_below_zero_in_between(counters):
    counters.add("inflight", -1)
    assert counters.totals() == {"inflight": -1}
    counters.add("inflight")
    assert counters.totals() == {"inflight": 0}


def test_two_in_one_process_have_a_row_each(host, counters):
    other = Counters(host)
    counters.add("hits")
    other.add("hits", 2)
    assert counters.totals() == other.totals() == {"hits": 3}


def test_closing_keeps_the_counts_and_gives_the_row_back(host, counters):
    counters.add("hits", 3)
    counters.close()
    counters.close()
    assert counters._owner(0) is None
    assert Counters(host).totals() == {"hits": 3}
    assert counters.totals(of_the_living=True) == {"hits": 0}
    counters.add("hits")
    assert counters.totals() == {"hits": 4}, "a closed one may be used again"


@forks
def test_the_counts_of_a_killed_process_stay(counters):
    counters.add("hits")

    def count_and_die():
        counters.add("hits", 10)
        counters.add("misses", 1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(count_and_die) == -signal.SIGKILL
    assert counters.totals() == {"hits": 11, "misses": 1}
    assert counters.totals(of_the_living=True) == {"hits": 1, "misses": 0}


@forks
def test_more_processes_than_rows_lose_nothing(host, counters, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 3)
    counters.add("hits")
    for _ in range(8):
        assert in_child(lambda: counters.add("hits")) == 0
    assert counters.totals() == {"hits": 9}
    late = Counters(host)
    late.add("hits")
    assert late._row != module.RETIRED, "it has the row of a dead process"
    assert counters.totals() == {"hits": 10}
    assert counters.totals(of_the_living=True) == {"hits": 2}, "and not the dead's counts"


@forks
def test_a_process_without_a_row_counts_all_the_same(host, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    crowd = [Counters(host) for _ in range(5)]
    for turn, counters in enumerate(crowd):
        counters.add("hits", turn)
        counters.add("hits", turn)
    assert crowd[0].totals() == {"hits": 20}


@forks
def test_processes_that_count_at_the_same_time_lose_nothing(host, counters):
    def count():
        for _ in range(500):
            counters.add("hits")
            counters.add(f"of {os.getpid() % 7}")

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                count()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    count()
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    totals = counters.totals()
    assert totals.pop("hits") == 2500
    assert sum(totals.values()) == 2500


def test_threads_lose_nothing(counters):
    threads = [
        threading.Thread(target=lambda: [counters.add("hits") for _ in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.totals() == {"hits": 4000}


def test_names_beyond_the_last_place_are_told_not_mixed_up(counters):
    for number in range(MAX_NAMES + 5):
        counters.add(f"n{number}", number)
    totals = counters.totals()
    assert len(totals) == MAX_NAMES
    assert all(totals[f"n{number}"] == number for number in range(MAX_NAMES))
    assert counters.lost == 5


def test_a_name_that_does_not_fit_says_so(counters):
    counters.add("ü" * 63)
    with pytest.raises(ValueError, match="127 fit"):
        counters.add("ü" * 64)
    assert counters.totals() == {"ü" * 63: 1}
