"""What the tiers cost: SQLite's get, put and bytes on disk; the memory tier's set when it is large.

Times are CPU time of this process, the writer thread included. The answers are 2 KB of text that
does not repeat, so that nothing compresses.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from blake3 import blake3
from record import Goal, Table, interleaved, record, spread

from thinkonce.backing import open_backing
from thinkonce.clock import SYSTEM
from thinkonce.entry import Entry, Form, Meta
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.keyring import Keyring
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.schema import connect
from thinkonce.tiers.sqlite import GET
from thinkonce.tiers.tier import Key, Tier

T = TypeVar("T")
VALUE_BYTES = 2_048
GET_GOAL, DISK_GOAL, SET_GOAL = 10.0, 1.25, 2.0
CLAIM = (
    "The store reads an answer, its keyed checksum included, in microseconds, keeps it in little "
    "more than its own size, and the memory tier's set does not depend on how much it holds."
)
META = Meta(scope="chat/completions", tenant="t", namespace="bench", model="m")


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="small; nothing is recorded")
    quick = options.parse_args(argv).quick
    answers, large = (2_000, 100_000) if quick else (20_000, 10_000_000)
    disk_tables, disk_goals = sqlite_costs(answers)
    memory_table, memory_goals = memory_costs(10_000, large)
    goals = [*disk_goals, *memory_goals]
    notes = [
        "Answers that just miss an even share of a 16 KiB page cost more: 1.26 at 1,996 bytes. "
        "The get is the whole path: circuit breaker, queue of unwritten answers, one query, "
        "keyed BLAKE3, decoding, a note for eviction."
    ]
    if not quick:
        tables = [*disk_tables, memory_table]
        record("store", CLAIM, tables, goals, notes, packages=["apsw", "blake3"])
    for goal in goals:
        print(f"{goal.what}: {goal.measured:.2f} (wanted {goal.goal})")
    return 0


# -- SQLite ------------------------------------------------------------------------------------


def sqlite_costs(answers: int) -> tuple[list[Table], list[Goal]]:
    with tempfile.TemporaryDirectory(prefix="thinkonce-bench-") as folder:
        path = Path(folder) / "answers.db"
        backing = open_backing(f"sqlite:////{path}", clock=SYSTEM, max_bytes=2**32, lease=60.0)
        assert backing.tier is not None
        keys = [key_of(number) for number in range(answers)]
        put = puts(backing.tier, keys)
        get = gets(backing.tier, keys)
        miss = gets(backing.tier, [key_of(answers + number) for number in range(answers)])
        parts = parts_of_a_get(path, backing.secret, backing.tier, keys[:1_000])
        backing.close()
        encrypted = encrypted_costs(Path(folder) / "encrypted.db", keys)
        files = path.parent.glob("answers.db*")
        on_disk = sum(file.stat().st_blocks * 512 for file in files)  # the host file is sparse
    share = on_disk / (answers * VALUE_BYTES)
    rows: list[list[str | float | int | None]] = [
        ["get", *spread_of(get)],
        ["get of an unknown key", *spread_of(miss)],
        ["put, written behind in batches", *spread_of(put)],
        *encrypted,
    ]
    table = Table("SQLite tier, 2 KB answers", ["operation", "p50", "p90", "p99"], rows, "µs")
    middle = 1e6 * median(get)
    return [table, parts], [
        Goal("SQLite get, µs of CPU", f"<= {GET_GOAL}", middle, middle <= GET_GOAL),
        Goal("bytes on disk / bytes of answers", f"<= {DISK_GOAL}", share, share <= DISK_GOAL),
    ]


def encrypted_costs(path: Path, keys: list[Key]) -> list[list[str | float | int | None]]:
    url, keyring = f"sqlite:////{path}", Keyring(encryption=(bytes(range(32)),))
    backing = open_backing(url, keyring, clock=SYSTEM, max_bytes=2**32, lease=60.0)
    assert backing.tier is not None
    put, get = puts(backing.tier, keys), gets(backing.tier, keys)
    backing.close()
    return [
        ["get, encrypted", *spread_of(get)],
        ["put, encrypted, written behind", *spread_of(put)],
    ]


def puts(tier: Tier, keys: list[Key]) -> list[float]:
    """Seconds a put, the writer's share included: batches, each waited for."""
    chance = random.Random(1)
    batches = [keys[at : at + 500] for at in range(0, len(keys), 500)]
    seconds = []
    for batch in batches:
        entries = [entry_of(chance) for _ in batch]
        began = time.process_time()
        for key, entry in zip(batch, entries, strict=True):
            tier.put(key, entry)
        assert tier.flush(30), "the writer did not keep up"
        seconds.append((time.process_time() - began) / len(batch))
    return seconds


def gets(tier: Tier, keys: list[Key]) -> list[float]:
    order = random.Random(2).sample(keys, len(keys))
    return timed(order, lambda key: tier.get(key), 200)


def parts_of_a_get(path: Path, secret: bytes, tier: Tier, keys: list[Key]) -> Table:
    """What a get is made of, measured part by part in turns. A transaction that is held open
    spares SQLite two system calls a query: the lock that keeps the log from being overwritten."""
    query = connect(path).cursor().execute
    codec, stored = Codec(secret), {key: query(GET, (key.digest,)).get for key in keys}

    def each(action: Callable[[Key], object]) -> Callable[[], object]:
        def run() -> None:
            for key in keys:
                action(key)

        return run

    def inside() -> None:
        query("BEGIN")
        each(lambda key: query(GET, (key.digest,)).get)()
        query("COMMIT")

    seconds = interleaved(
        {
            "the whole get": each(tier.get),
            "its query": each(lambda key: query(GET, (key.digest,)).get),
            "the same in a transaction held open": inside,
            "decoding, the checksum included": each(lambda key: codec.decode(key, stored[key])),
            "keyed BLAKE3 alone": each(lambda key: blake3(stored[key], key=secret).digest(16)),
        },
        21,
        1,
    )
    rows: list[list[str | float | int | None]] = []
    for what, rounds in seconds.items():
        rows.append([what, *spread_of([value / len(keys) for value in rounds])])
    return Table("Where a get's time goes", ["part", "p50", "p90", "p99"], rows, "µs")


def key_of(number: int) -> Key:
    digest = random.Random(number).randbytes(32)
    return Key(digest, digest)


def entry_of(chance: random.Random) -> Entry:
    now = SYSTEM.wall()
    return Entry(
        key=None,
        payload=chance.randbytes(VALUE_BYTES),
        meta=META,
        form=Form.REPLY,
        payload_size=VALUE_BYTES,
        cost=0.01,
        seconds=1.0,
        created_at=now,
        expires_at=now + 3600,
        gone_at=now + 7200,
    )


# -- memory ------------------------------------------------------------------------------------


def memory_costs(small: int, large: int) -> tuple[Table, list[Goal]]:
    rows: list[list[str | float | int | None]] = []
    middles = []
    for size in (small, large):
        seconds = sets(size)
        rows.append([f"{size:,} entries", *spread_of(seconds)])
        middles.append(median(seconds))
    table = Table("Memory tier, set when full", ["holding", "p50", "p90", "p99"], rows, "µs a set")
    ratio = middles[1] / middles[0]
    what = f"memory set at {large:,} / at {small:,} entries"
    return table, [Goal(what, f"<= {SET_GOAL}", ratio, ratio <= SET_GOAL)]


def sets(size: int) -> list[float]:
    """Seconds a set on a tier that holds `size` entries and evicts one for each new one."""
    tier = MemoryTier(max_entries=size, max_bytes=None)
    for number in range(size):
        tier.put(Key(number, b"\0" * 32), small_entry())
    fresh = list(range(size, size + 20_000))
    return timed(fresh, lambda number: tier.put(Key(number, b"\0" * 32), small_entry()), 500)


def small_entry() -> Entry:
    return Entry(key=None, payload="x", meta=META, payload_size=1, cost=1.0)


def timed(items: list[T], action: Callable[[T], object], batch: int) -> list[float]:
    seconds = []
    for at in range(0, len(items), batch):
        part = items[at : at + batch]
        began = time.process_time()
        for item in part:
            action(item)
        seconds.append((time.process_time() - began) / len(part))
    return seconds


def spread_of(seconds: list[float]) -> list[float]:
    times = spread([1e6 * value for value in seconds])
    return [times.p50, times.p90, times.p99]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
