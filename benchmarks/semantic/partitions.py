"""Questions of a store in memory: one large partition, and very many small ones.

    python benchmarks/semantic/partitions.py              # a million rows, 50,000 partitions
    python benchmarks/semantic/partitions.py --rows 100000

Rows are random directions around a thousand centres, in 8 bits, 512 dimensions. Writing them takes
three minutes for a million and is not what is measured.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from thinkonce.entry import Entry, Form, Meta
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.likeness import Hint
from thinkonce.meaning.index.spaces import Spaces
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.rows import Rows
from thinkonce.tiers.sqlite import SqliteTier
from thinkonce.tiers.tier import Key

WIDTH, CENTRES, SPREAD = 512, 1000, 0.6
WRITTEN = 2000  # rows in a transaction
SEARCHES = 51
PARTITION = bytes(32)
ROOM = 2**33


class Named:
    """The embedder that made the vectors; nobody asks it for any."""

    name, dimensions, concurrency = "random", WIDTH, 1

    def embed(self, texts: object) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        return None


def main(argv: Iterable[str]) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--partitions", type=int, default=50_000)
    given = options.parse_args(list(argv))
    with tempfile.TemporaryDirectory() as folder:
        one_large(Path(folder) / "answers.db", given.rows)
    many_small(given.partitions)


def vectors(seed: int, count: int) -> npt.NDArray[np.float32]:
    centres = np.random.default_rng(0).standard_normal((CENTRES, WIDTH))
    dice = np.random.default_rng(seed)
    found = centres[dice.integers(0, CENTRES, count)]
    found = found + SPREAD * dice.standard_normal((count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def hints(start: int, count: int, partition: bytes = PARTITION) -> Iterator[tuple[bytes, Hint]]:
    """Digests and hints; vectors are packed as `meaning.packed` does, many at once."""
    found = vectors(start + 1, count)
    numbers = np.rint(found * (127 / np.abs(found).max(1, keepdims=True))).astype(np.int8)
    scales = (1 / np.linalg.norm(numbers.astype(np.float32), axis=1)).astype(np.float32)
    for at in range(count):
        digest = struct.pack("<Q", start + at) * 4
        packed = scales[at].tobytes() + numbers[at].tobytes()
        yield digest, Hint(partition or digest, f"question {start + at}", "random", packed, digest)


def write(tier: SqliteTier, start: int, count: int) -> None:
    with tier._database.writing(10.0) as database:
        rows = Rows(database)
        for digest, hint in hints(start, count):
            entry = Entry(None, b"", Meta(), digest, Form.ENCODED, payload_size=100, hint=hint)
            rows.put(digest, entry, b"x" * 100, ROOM)


def resident() -> float:
    """MiB of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20


def timed(work: Callable[[], object], times: int = SEARCHES) -> tuple[float, float]:
    """Median and 90th percentile, in ms."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1e3)
    return median(taken), sorted(taken)[int(times * 0.9)]


def one_large(path: Path, count: int) -> None:
    host = HostFile(host_path(path))
    tier = SqliteTier(path, secret=bytes(32), host=host, max_bytes=ROOM)
    for start in range(0, count, WRITTEN):
        write(tier, start, min(WRITTEN, count - start))
    questions = vectors(7, SEARCHES)
    before, began, slowest = resident(), time.perf_counter(), 0.0
    spaces = Spaces(MemoryTier(purges=tier.purges), tier, Named(), max_bytes=ROOM)
    space = spaces.space(PARTITION)
    print(f"{count} rows: the first {len(space)} after {time.perf_counter() - began:.3f} s")
    while not space.complete:
        start = time.perf_counter()
        spaces.space(PARTITION).nearest(questions[0], 5)
        slowest = max(slowest, time.perf_counter() - start)
        time.sleep(0.05)
    print(
        f"all after {time.perf_counter() - began:.1f} s, {resident() - before:.0f} MiB "
        f"(counted {space.nbytes / 2**20:.0f}); slowest look meanwhile {slowest * 1e3:.0f} ms"
    )
    looks(spaces, questions)
    moved(spaces, questions)
    spaces.close()
    tier.close()
    host.close()


def looks(spaces: Spaces, questions: npt.NDArray[np.float32]) -> None:
    space, at = spaces.space(PARTITION), iter(questions)
    for what, work in (
        ("reading on", lambda: spaces.space(PARTITION)),
        ("nearest", lambda: space.nearest(next(at), 5)),
        ("alike", lambda: space.alike(struct.pack("<Q", 5) * 4)),
    ):
        print("  {:12} {:8.3f} ms, p90 {:8.3f}".format(what, *timed(work)))


def moved(spaces: Spaces, questions: npt.NDArray[np.float32], seconds: float = 30.0) -> None:
    """What searches take while rows move into the graph, and how fast they do."""
    space, began = spaces.space(PARTITION), time.perf_counter()
    while space.is_to_be_moved and time.perf_counter() - began < seconds:
        time.sleep(0.2)
    rows = 0 if space._graph is None else len(space._graph)
    print(f"{rows} rows moved into a graph after {time.perf_counter() - began:.0f} s")
    looks(spaces, questions)


def many_small(count: int) -> None:
    spaces = Spaces(MemoryTier(max_entries=10), None, Named(), max_bytes=ROOM)
    found = [Key(digest, digest) for digest, _ in hints(0, count)]
    made = [hint for _, hint in hints(0, count, b"")]
    before, began = resident(), time.perf_counter()
    for key, hint in zip(found, made, strict=True):
        spaces.add(key, hint)
    each = (time.perf_counter() - began) / count
    taken = (resident() - before) * 2**20 / count
    print(
        f"{len(spaces)} partitions of one row: {taken:.0f} bytes each "
        f"(counted {spaces.nbytes / count:.0f}), {each * 1e6:.0f} us to add one"
    )
    question, names = vectors(7, 1)[0], iter(found)
    look = timed(lambda: spaces.space(next(names).digest).nearest(question, 3), 1001)
    print("  a look       {:8.3f} ms, p90 {:8.3f}".format(*look))
    spaces.close()


if __name__ == "__main__":
    main(sys.argv[1:])
