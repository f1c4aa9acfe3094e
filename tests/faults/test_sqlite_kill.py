"""Processes killed while they write: nothing that was promised is lost, nothing is corrupt."""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from faults.sqlite_writer import FLUSH_EVERY, answer, key_of
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.selector import Selector
from thinkonce.testing.entries import answer_of
from thinkonce.tiers.sqlite import SqliteTier

WRITER = Path(__file__).with_name("sqlite_writer.py")
ROOT = Path(__file__).parents[2]
PROMISE_SECONDS = 1.0


@dataclass
class Writer:
    """One process, and what it said."""

    seed: str
    process: subprocess.Popen
    puts: list[tuple[int, float, int]] = field(default_factory=list)  # number, when, epoch
    durable: int = 0

    def hear(self, line):
        word, number, *more = line.split()
        if word == "put":
            self.puts.append((int(number), float(more[0]), int(more[1])))
        else:
            self.durable = int(number)

    def hear_lines(self, count):
        for _ in range(count):
            line = self.process.stdout.readline()
            assert line, "the writer ended by itself"
            self.hear(line)

    def kill(self):
        self.process.kill()
        for line in self.process.stdout.read().split("\n"):
            # The last line may have been cut off: then it was not said.
            if len(line.split()) in (2, 4):
                self.hear(line)
        self.process.stdout.close()
        assert self.process.wait() == -9


@pytest.fixture
def start(tmp_path):
    writers = []

    def start(seed, namespace="v1"):
        process = subprocess.Popen(
            [sys.executable, str(WRITER), str(tmp_path / "answers.db"), seed, namespace],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        writers.append(Writer(seed, process))
        return writers[-1]

    yield start
    for writer in writers:
        if writer.process.poll() is None:
            writer.kill()


@pytest.fixture
def open_tier(tmp_path):
    opened = []

    def open_tier():
        path = tmp_path / "answers.db"
        host = HostFile(host_path(path))
        tier = SqliteTier(path, secret=b"s" * 32, host=host)
        opened.append((tier, host))
        return tier

    yield open_tier
    for tier, host in opened:
        tier.close()
        host.close()


def check_whole(tier):
    database = apsw.Connection(str(tier.path))
    assert database.execute("PRAGMA integrity_check").get == "ok"
    orphans = "SELECT count(*) FROM answers WHERE id NOT IN (SELECT id FROM entries)"
    assert database.execute(orphans).get == 0
    alone = (
        "SELECT count(*) FROM questions q FULL JOIN answers a USING (id) "
        "WHERE q.digest IS NOT a.digest"
    )
    assert database.execute(alone).get == 0, "a question without its answer, or the reverse"
    assert database.execute("SELECT count(*) FROM questions").get > 0
    database.close()


def check_kept(tier, seed, numbers):
    for number in numbers:
        found = tier.get(key_of(seed, number))
        assert found is not None, f"{seed} {number} was promised and is lost"
        assert answer_of(found) == answer(seed, number)


def test_twenty_kills_under_load_lose_nothing_that_was_flushed(start, open_tier):
    seed = random.randrange(2**32)
    print("random seed", seed)
    dice = random.Random(seed)
    killed = []
    for round_ in range(5):
        # Four at a time on one file: each dies while the others write.
        writers = [start(f"round {round_} writer {number}") for number in range(4)]
        for writer in dice.sample(writers, 4):
            writer.hear_lines(dice.randrange(1, 4 * FLUSH_EVERY))
            writer.kill()
        killed += writers
        tier = open_tier()
        check_whole(tier)
        tier.close()
    assert len(killed) == 20
    assert sum(writer.durable for writer in killed) > 100, "the test must hold them to something"
    tier = open_tier()
    for writer in killed:
        check_kept(tier, writer.seed, range(1, writer.durable + 1))
    total = 0
    for entry in tier.entries(Selector(), 10**6):
        found = answer_of(entry)
        assert found == answer(found["seed"], found["number"]), "what was not promised is whole too"
        total += 1
    assert total >= sum(writer.durable for writer in killed)
    assert tier.stats().errors == 0


@pytest.mark.slow
def test_what_was_given_more_than_a_second_before_the_kill_is_there(start, open_tier):
    dice = random.Random(20)
    for round_ in range(20):
        writer = start(f"round {round_}")
        writer.hear_lines(1)
        until = writer.puts[0][1] + 1.1 + dice.random()
        while writer.puts[-1][1] < until:
            writer.hear_lines(1)
        killed_at = time.monotonic()
        writer.kill()
        tier = open_tier()
        check_whole(tier)
        promised = [n for n, when, _ in writer.puts if when < killed_at - PROMISE_SECONDS]
        assert promised
        check_kept(tier, writer.seed, promised)
        assert tier.stats().errors == 0
        tier.close()


def test_a_purge_holds_against_a_process_that_writes_all_the_time(start, open_tier):
    tier = open_tier()
    writer, bystander = start("purged", "v1"), start("spared", "v2")
    last = 0
    for _ in range(8):
        writer.hear_lines(60)
        before = len(writer.puts)
        purge, _ = tier.purges.append(Selector(namespace="v1"))
        last = purge.epoch
        for number, _, epoch in writer.puts[:before]:
            if epoch < last:
                assert tier.get(key_of("purged", number)) is None
    bystander.hear_lines(2 * FLUSH_EVERY)
    writer.kill()
    bystander.kill()
    check_whole(tier)
    began = {number: epoch for number, _, epoch in writer.puts}
    for entry in tier.entries(Selector(namespace="v1"), 10**6):
        number = answer_of(entry)["number"]
        assert began.get(number, last) >= last, "nothing asked for before the purge came back"
    check_kept(tier, "spared", range(1, bystander.durable + 1))
    assert tier.stats().errors == 0
