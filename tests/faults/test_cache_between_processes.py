"""Caches of real processes over one file: hits, purges and calls under way are shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("cache_worker.py")


class Process:
    def __init__(self, url, name):
        self.popen = subprocess.Popen(
            [sys.executable, str(WORKER), url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def tell(self, command):
        self.popen.stdin.write(json.dumps(command) + "\n")
        self.popen.stdin.flush()

    def hear(self):
        line = self.popen.stdout.readline()
        assert line, f"the worker is gone (exit status {self.popen.wait()})"
        return json.loads(line)

    def __call__(self, *command):
        self.tell(command)
        return self.hear()["gave"]

    def end(self):
        self.popen.stdin.close()
        assert self.popen.wait(20) == 0
        self.popen.stdout.close()


@pytest.fixture
def pair(tmp_path):
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    both = Process(url, "a"), Process(url, "b")
    yield both
    for process in both:
        process.end()


def test_a_second_process_sees_the_answer(pair):
    a, b = pair
    assert a("ask", "hi") == "hi, answered by a"
    assert a("flush")
    assert b("ask", "hi") == "hi, answered by a"
    assert b("explain", "hi") == ["hit", "memory"]


@pytest.mark.parametrize("forget", [("purge", "faq"), ("invalidate", "hi")])
def test_a_purge_is_seen_by_the_very_next_probe_of_the_other_process(pair, forget):
    a, b = pair
    a("ask", "hi")
    a("flush")
    for _ in range(3):
        b("ask", "hi")
    assert b("stats")["hits"] == 3
    assert a(*forget)
    assert b("ask", "hi") == "hi, answered by b"


def test_a_purge_during_a_slow_call_elsewhere_is_not_undone(pair):
    a, b = pair
    a.tell(("ask", "slow"))
    assert a.hear() == {"begun": "slow"}
    b("purge", "faq")
    a.tell("go on")
    assert a.hear()["gave"] == "slow, answered by a"
    assert a("flush")
    assert a("explain", "slow")[0] == b("explain", "slow")[0] == "miss"


def test_the_other_process_follows_the_call_under_way(pair):
    a, b = pair
    a.tell(("ask", "slow"))
    a.hear()
    b.tell(("ask", "slow"))
    a.tell("go on when followed")
    assert a.hear()["gave"] == "slow, answered by a"
    assert b.hear() == {"gave": "slow, answered by a"}


def test_whoever_asks_after_a_purge_does_not_take_an_answer_from_before_it(pair):
    a, b = pair
    a.tell(("ask", "slow"))
    a.hear()
    b("purge", "faq")
    b.tell(("ask", "slow"))
    a.tell("go on when followed")
    assert a.hear()["gave"] == "slow, answered by a"
    assert b.hear() == {"begun": "slow"}
    b.tell("go on")
    assert b.hear() == {"gave": "slow, answered by b"}
