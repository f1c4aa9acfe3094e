"""A process killed while it encrypts a store: the next one goes on, and nothing is lost."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.request.secret import load_secret
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.sqlite import SqliteTier

KEY, SECRET = b"k" * 32, "s" * 32
ENTRIES = 6_000
ROOT = Path(__file__).parents[2]


def make_plain(path, clock):
    host = HostFile(host_path(path))
    tier = SqliteTier(path, secret=load_secret(SECRET), host=host, clock=clock.clock)
    for number in range(ENTRIES):
        tier.put(key_of(str(number)), entry_of(clock, f"MarkedAnswer {number}"))
        if number % 2_000 == 0:
            assert tier.flush(30)
    assert tier.flush(30)
    tier.close()
    host.close()


def encrypting(path):
    told = {"THINKONCE_STORE_SECRET": SECRET, "THINKONCE_STORE_ENCRYPTION_KEY": KEY.hex()}
    return subprocess.Popen(
        [sys.executable, "-m", "thinkonce", "encrypt", "--store", f"sqlite:///{path}"],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_store_whose_encryption_was_killed_again_and_again_ends_encrypted_and_whole(tmp_path):
    path, clock, chance = tmp_path / "answers.db", FakeClock(), random.Random(11)
    make_plain(path, clock)
    cut_short = 0
    for _ in range(6):
        process = encrypting(path)
        log = Path(f"{path}-wal")
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            pass  # until it writes
        try:
            process.wait(chance.random() * 0.15)
        except subprocess.TimeoutExpired:
            process.kill()
            cut_short += 1
        process.communicate()
    assert cut_short >= 2, "it was never killed at work"
    process = encrypting(path)
    said, wrong = process.communicate(timeout=60)
    assert f"{ENTRIES:,} entries" in said, wrong
    assert not any(b"MarkedAnswer" in file.read_bytes() for file in tmp_path.glob("answers.db*"))
    host = HostFile(host_path(path))
    cipher = Cipher((KEY,))
    tier = SqliteTier(path, secret=load_secret(SECRET), host=host, clock=clock.clock, cipher=cipher)
    for number in range(ENTRIES):
        assert answer_of(tier.get(key_of(str(number)))) == f"MarkedAnswer {number}"
    tier.close()
    host.close()
