"""Audits of several processes add up, and a killed one loses none that it reported stored."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from faults.audit_worker import account_of, opened

WORKER = Path(__file__).with_name("audit_worker.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    started = []

    def start(count):
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(tmp_path / "answers.db"), str(count)],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()


def audits_in(path):
    tier, audits = opened(path)
    with closing(tier), closing(audits):
        account = account_of(audits)
        return sum(sum(one.right) + sum(one.wrong) for one in account._budget.stretches), account


def test_audits_of_processes_at_once_add_up(start, tmp_path):
    workers = [start(60) for _ in range(3)]
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    count, account = audits_in(tmp_path / "answers.db")
    assert count == 180
    assert account.entries == 7


def test_a_killed_process_loses_nothing_that_was_stored(start, tmp_path):
    other, worker = start(100), start(0)
    stored = 0
    for _ in range(12):
        line = worker.stdout.readline()
        assert line, "the worker ended by itself"
        stored = int(line.split()[1])
    worker.kill()
    for line in worker.stdout.read().splitlines():
        stored = int(line.split()[1]) if len(line.split()) == 2 else stored
    other.communicate(timeout=60)
    assert other.returncode == 0
    count, _ = audits_in(tmp_path / "answers.db")
    assert stored >= 60
    assert count >= stored + 100
