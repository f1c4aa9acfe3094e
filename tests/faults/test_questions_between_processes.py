"""Questions of processes that write and are killed, found by another one that only asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from faults.sqlite_writer import hint_of, key_of, partition_of, vector_of
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.meaning.index.packed import unpack
from thinkonce.meaning.index.spaces import Spaces
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.sqlite import SqliteTier

WRITER = Path(__file__).with_name("sqlite_writer.py")
ROOT = Path(__file__).parents[2]
WIDTH = 8
SETTLING = 20.0


class Silent:
    """The embedder that made the vectors; nobody asks it for any."""

    name, family, dimensions, concurrency = "an embedder", "", WIDTH, 1

    def embed(self, texts: object) -> np.ndarray:
        raise AssertionError(f"{texts!r} had a vector")

    def close(self) -> None:
        return None


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[tuple[SqliteTier, Spaces]]:
    path = tmp_path / "answers.db"
    host = HostFile(host_path(path))
    tier = SqliteTier(path, secret=b"s" * 32, host=host)
    spaces = Spaces(MemoryTier(purges=tier.purges), tier, Silent())
    yield tier, spaces
    spaces.close()
    tier.close()
    host.close()


def started(path: Path, seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(path), seed, "v1"],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def durable(lines: IO[str] | None, count: int) -> int:
    """Read what the writer says until at least `count` writes are durable; how many are."""
    assert lines is not None
    for line in lines:
        word, number, *_ = line.split()
        if word == "flushed" and int(number) >= count:
            return int(number)
    raise AssertionError("the writer ended by itself")


def found(spaces: Spaces, seed: str, number: int) -> bool:
    numbers, scale = unpack(vector_of(seed, number), WIDTH)
    vector = numbers.astype(np.float32) * scale
    space = spaces.space(partition_of(number))
    assert spaces.settle(SETTLING)
    near = space.nearest(vector / np.linalg.norm(vector), 1)
    named = space.alike(hint_of(seed, number).fingerprint)
    digest = key_of(seed, number).digest
    return [one.name for one in near] == [digest] == named


def test_what_another_process_stores_is_found_while_it_writes_and_after_it_was_killed(
    asking: tuple[SqliteTier, Spaces],
) -> None:
    tier, spaces = asking
    for round_ in range(3):
        seed = f"round {round_}"
        writer = started(tier.path, seed)
        try:
            count = durable(writer.stdout, 80)
            assert all(found(spaces, seed, number) for number in range(1, count + 1, 7))
        finally:
            writer.kill()
            writer.communicate()
    for partition in map(partition_of, range(3)):
        rows = tier.questions.newer(partition, 0, 10**6)
        assert len(rows) > 50
        space = spaces.space(partition)
        assert spaces.settle(SETTLING)
        assert len(space) == len(rows)
        for row in rows:
            entry = tier.peek(spaces.key_of(row.digest))
            assert entry is not None, "every question has its answer"
            assert entry.hint is not None
            assert entry.hint.partition == partition
