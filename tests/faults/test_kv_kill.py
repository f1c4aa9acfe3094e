"""Processes killed while they write attention state: what was kept is there, and as it was."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from faults.kv_writer import BUDGET, LENGTH, MODEL, chain, state_of
from thinkonce.kv.disk.tier import DiskTier

WRITER = Path(__file__).with_name("kv_writer.py")
# Chains that may have been evicted by their own process: half of what the budget holds is sure.
SURE = BUDGET // 2 // (LENGTH * 24_576)


def killed(folder, seed, after):
    """Run a writer until it has kept `after` chains; all that it said it kept."""
    command = [sys.executable, str(WRITER), str(folder), seed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(1 + after)]
        process.kill()
        rest = process.stdout.read()
    whole = "".join(lines) + rest[: rest.rfind("\n") + 1]
    return [int(line.split()[2]) for line in whole.splitlines() if line.startswith("kept")]


def check(folder, seed, kept):
    """What lies there is right, and the last that were kept are there. Returns how many lie."""
    tier = DiskTier(folder, MODEL, BUDGET)
    try:
        found = 0
        for number in range(max(kept) + 2):
            for block in chain(seed, number):
                state = tier.load(block)
                assert state in (None, state_of(block)), f"chain {number} came back as another"
                found += state is not None
        for number in kept[-SURE:]:
            blocks = chain(seed, number)
            assert tier.known(blocks) == LENGTH, f"chain {number} was kept and is lost"
        assert tier.stats().bytes <= BUDGET
        return found
    finally:
        tier.close()


def run(folder, rounds):
    chance = random.Random(7)
    for number in range(rounds):
        kept = killed(folder, f"round-{number}", chance.randrange(1, 60))
        assert check(folder, f"round-{number}", kept)


def test_what_was_kept_outlives_a_killed_process(tmp_path):
    run(tmp_path, 4)
    assert len(list(tmp_path.rglob("*.rows"))) == 1, "who comes later goes on with the files"


@pytest.mark.slow
def test_what_was_kept_outlives_fifty_killed_processes(tmp_path):
    run(tmp_path, 50)


def test_two_processes_killed_at_once_leave_both_their_blocks(tmp_path):
    commands = [[sys.executable, str(WRITER), str(tmp_path), seed] for seed in "ab"]
    writers = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in commands]
    said = []
    for writer in writers:
        said.append([writer.stdout.readline() for _ in range(4)])
    for writer in writers:
        writer.kill()
        writer.stdout.close()
        writer.wait()
    tier = DiskTier(tmp_path, MODEL, BUDGET)
    try:
        for seed, lines in zip("ab", said, strict=True):
            last = int(lines[-1].split()[2])
            assert tier.known(chain(seed, last)) == LENGTH
            for block in chain(seed, last):
                assert tier.load(block) == state_of(block)
    finally:
        tier.close()
