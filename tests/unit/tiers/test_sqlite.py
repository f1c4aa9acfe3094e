"""What the SQLite tier promises beyond the contract: bounds, scores, queues, files."""

import os
import random
import stat
import threading
from math import inf

import apsw
import pytest

from thinkonce.entry import Meta
from thinkonce.errors import TierError
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.selector import Selector
from thinkonce.testing import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers import rows, sqlite_purges, writer
from thinkonce.tiers.sqlite import SqliteTier

KIB = 1024
EMPTY = 17 * 16 * KIB  # each table and index begins with a page


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def make(folder=tmp_path, **options):
        folder.mkdir(exist_ok=True)
        path = folder / "answers.db"
        host = HostFile(host_path(path))
        tier = SqliteTier(path, secret=b"s" * 32, host=host, clock=clock.clock, **options)
        made.append((tier, host))
        return tier

    yield make
    for tier, host in made:
        tier.close()
        host.close()


@pytest.fixture
def tier(make):
    return make()


def put(tier, clock, name, value="x", cost=0.25, **fields):
    entry = entry_of(clock, value, **fields)
    entry.cost = cost
    tier.put(key_of(name), entry)


def held(tier, names):
    return [name for name in names if tier.get(key_of(name)) is not None]


def behind(tier):
    return apsw.Connection(str(tier.path))


# -- the file ------------------------------------------------------------------------------


def test_only_its_owner_may_read_a_store(tier, clock):
    put(tier, clock, "a")
    assert tier.flush(5)
    for ending in ("", "-wal", "-shm"):
        mode = stat.S_IMODE(os.stat(f"{tier.path}{ending}").st_mode)
        assert mode == 0o600, ending


def test_the_file_is_laid_out_as_measured(tier):
    database = behind(tier)
    layout = {name: database.pragma(name) for name in ("page_size", "auto_vacuum", "journal_mode")}
    assert layout == {"page_size": 16384, "auto_vacuum": 2, "journal_mode": "wal"}
    database.close()


def test_answers_take_at_most_a_quarter_more_than_their_bytes(make, clock):
    tier = make()
    meta = Meta("chat/completions", "0" * 32, "v1", "gpt-4o-mini", ("faq",))
    for number in range(2000):
        put(tier, clock, str(number), "x" * 2048, meta=meta, ttl=3600, retention=86400)
    assert tier.flush(20)
    assert tier.stats().bytes <= 2000 * 2048 * 1.25 + EMPTY


# -- bounds and scores ------------------------------------------------------------------------


def test_a_store_stays_within_its_bytes_and_keeps_what_is_dear(make, clock):
    tier = make(max_bytes=2048 * KIB)
    for number in range(2000):
        # Every tenth answer cost a thousand times more.
        put(tier, clock, str(number), "x" * 2000, cost=1.0 if number % 10 == 0 else 0.001)
        if number % 100 == 99:
            assert tier.flush(10)
    tier.tidy()
    assert tier.stats().bytes <= 2048 * KIB
    dear = held(tier, map(str, range(0, 2000, 10)))
    assert len(dear) == 200, "dear answers fit, so none of them left"
    assert tier.stats().evictions["evicted"] == 2000 - tier.stats().entries


def test_new_answers_take_the_places_of_evicted_ones(make, clock, tmp_path, monkeypatch):
    def entries_held(folder):
        tier = make(folder, max_bytes=4096 * KIB)
        dice = random.Random(3)
        for number in range(4000):
            put(tier, clock, str(number), "x" * 2000, cost=dice.random())
            if number % 100 == 99:
                assert tier.flush(10)
        tier.close()
        return make(folder).stats().entries

    used = entries_held(tmp_path / "used")
    monkeypatch.setattr(rows, "MOST_HOLES", 0)
    unused = entries_held(tmp_path / "unused")
    assert used > 1.1 * unused, (
        "rows that always go to the end leave pages a third to two thirds full"
    )


def test_what_is_read_outlives_what_is_not(make, clock):
    tier = make(max_bytes=1024 * KIB)
    read = [f"read {number}" for number in range(20)]
    for name in read:
        put(tier, clock, name, "x" * 2000)
    assert tier.flush(5)
    for number in range(1200):
        if number % 50 == 0:
            assert held(tier, read) == read
        put(tier, clock, f"once {number}", "x" * 2000)
        if number % 50 == 49:
            assert tier.flush(10)
    assert held(tier, read) == read


def test_what_was_once_read_ages(make, clock):
    tier = make(max_bytes=512 * KIB)
    put(tier, clock, "old", "x" * 2000, cost=0.01)
    assert tier.flush(5)
    for _ in range(5):
        assert held(tier, ["old"])
    for number in range(3000):
        put(tier, clock, f"new {number}", "x" * 2000, cost=0.05)
        if number % 100 == 99:
            assert tier.flush(10)
    assert held(tier, ["old"]) == [], "5 reads long ago are not worth a place for ever"


def test_pinned_answers_stay_as_long_as_they_take_half_at_most(make, clock):
    tier = make(max_bytes=3 * 1024 * KIB)
    pinned = [f"pinned {number}" for number in range(100)]
    for name in pinned:
        put(tier, clock, name, "x" * 2000, cost=0.0, meta=Meta(priority="pinned"))
    for number in range(1000):
        put(tier, clock, str(number), "x" * 2000, cost=1.0)
        if number % 100 == 99:
            assert tier.flush(10)
    assert held(tier, pinned) == pinned
    for number in range(900):
        put(tier, clock, f"greedy {number}", "x" * 2000, cost=0.0, meta=Meta(priority="pinned"))
    assert tier.flush(10)
    database = behind(tier)
    share = "SELECT total(bytes) FROM entries WHERE score = 9e999"
    assert 0.45 < database.execute(share).get / (3 * 1024 * KIB) <= 0.5
    database.close()


def test_expired_answers_make_room_before_live_ones(make, clock):
    tier = make(max_bytes=1088 * KIB)
    for number in range(150):
        put(tier, clock, f"dead {number}", "x" * 2000, cost=5.0, ttl=10, retention=1e6)
    for number in range(150):
        put(tier, clock, f"live {number}", "x" * 2000, cost=0.001)
    assert tier.flush(10)
    clock.advance(60)
    for number in range(100):
        put(tier, clock, f"more {number}", "x" * 2000, cost=0.001)
    assert tier.flush(10)
    tier.tidy()
    assert len(held(tier, [f"live {number}" for number in range(150)])) == 150
    assert len(held(tier, [f"dead {number}" for number in range(150)])) < 150
    assert tier.stats().evictions.keys() == {"expired"}


def test_what_is_gone_is_removed_and_the_file_shrinks(make, clock):
    tier = make()
    for number in range(5000):
        put(tier, clock, str(number), "x" * 2000, ttl=60 if number < 4500 else inf)
        if number % 1000 == 999:
            assert tier.flush(10)
    before = tier.stats().bytes
    clock.advance(61)
    tier.tidy()
    stats = tier.stats()
    assert (stats.entries, stats.evictions) == (500, {"expired": 4500})
    database = behind(tier)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()
    assert tier.path.stat().st_size < before * 0.75, "free pages went back to the file system"


def test_the_bound_can_be_changed_while_running(make, clock):
    tier = make()
    for number in range(1000):
        put(tier, clock, str(number), "x" * 2000)
    assert tier.flush(10)
    tier.resize(512 * KIB)
    tier.tidy()
    assert tier.stats().bytes <= 512 * KIB


def test_an_answer_too_large_for_the_store_is_dropped_and_counted(make, clock):
    tier = make(max_bytes=512 * KIB)
    put(tier, clock, "large", "x" * 70_000)
    assert tier.get(key_of("large")) is None
    assert tier.stats().dropped_writes == 1


# -- the queue ----------------------------------------------------------------------------------


@pytest.fixture
def locked(tier):
    """Another process that holds the write lock."""
    other = behind(tier)
    other.execute("BEGIN IMMEDIATE")
    yield other
    if other.in_transaction:
        other.execute("ROLLBACK")
    other.close()


def test_a_full_queue_drops_the_newcomer_and_counts_it(tier, clock, locked, monkeypatch):
    monkeypatch.setattr(writer, "MOST_ROWS", 3)
    for name in "abcde":
        put(tier, clock, name)
    put(tier, clock, "a", "again")
    assert held(tier, "abcde") == ["a", "b", "c"]
    assert answer_of(tier.get(key_of("a"))) == "again", "what is queued may be replaced"
    assert tier.stats().dropped_writes == 2
    locked.execute("ROLLBACK")
    assert tier.flush(10) is True
    assert held(tier, "abcde") == ["a", "b", "c"]


def test_a_queue_full_of_bytes_drops_too(tier, clock, locked, monkeypatch):
    monkeypatch.setattr(writer, "MOST_BYTES", 5000)
    for name in "abc":
        put(tier, clock, name, "x" * 2000)
    assert held(tier, "abc") == ["a", "b"]
    assert tier.stats().dropped_writes == 1
    locked.execute("ROLLBACK")


def test_flush_says_when_it_was_too_short(tier, clock, locked):
    put(tier, clock, "a")
    assert tier.flush(0.01) is False
    locked.execute("ROLLBACK")
    assert tier.flush(10) is True


def test_a_put_never_waits_for_the_disk(tier, clock, locked):
    done = threading.Event()

    def work():
        for number in range(200):
            put(tier, clock, str(number))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert done.wait(10), "200 puts while another process holds the lock"
    thread.join()
    locked.execute("ROLLBACK")


def test_text_that_utf8_cannot_hold_costs_a_miss(tier, clock):
    with pytest.raises(TierError, match="encoding"):
        put(tier, clock, "a", meta=Meta(label="\ud800"))
    assert tier.get(key_of("a")) is None


def test_a_closed_store_raises_and_its_stats_do_not(tier, clock):
    put(tier, clock, "a")
    tier.close()
    for call in (
        lambda: tier.get(key_of("a")),
        lambda: put(tier, clock, "b"),
        lambda: tier.delete(key_of("a")),
        lambda: tier.purges.append(Selector()),
        lambda: list(tier.entries(Selector(), 1)),
    ):
        with pytest.raises(TierError, match="closed"):
            call()
    assert tier.stats().entries == 0


# -- purges ---------------------------------------------------------------------------------------


def test_a_log_that_forgot_says_so_and_ancient_writes_are_refused(make, clock, monkeypatch):
    monkeypatch.setattr(sqlite_purges, "MOST_PURGES", 3)
    tier, other = make(), make()
    for number in range(5):
        tier.purges.append(Selector(namespace=f"n{number}"))
    for log in (tier.purges, other.purges):
        assert log.since(1) is None
        assert [purge.epoch for purge in log.since(2)] == [3, 4, 5]
    other.put(key_of("ancient"), entry_of(clock, epoch=1))
    assert other.flush(5)
    assert other.get(key_of("ancient")) is None


def test_what_is_still_stored_is_certified_up_to_now(tier, clock):
    put(tier, clock, "a", meta=Meta(namespace="kept"))
    assert tier.flush(5)
    purge, _ = tier.purges.append(Selector(namespace="other"))
    assert tier.get(key_of("a")).epoch == purge.epoch, (
        "else a memory tier would ask the log about every old entry, and forget it with the log"
    )


def test_a_lost_host_file_is_raised_to_the_epoch_of_the_store(make, clock, tmp_path):
    tier = make()
    tier.purges.append(Selector())
    tier.purges.append(Selector())
    tier.close()
    host_path(tier.path).unlink()
    assert make().purges.epoch[0] == 2


def test_a_new_store_beside_an_old_host_file_admits_what_it_does_not_know(make, clock):
    tier = make()
    for _ in range(3):
        tier.purges.append(Selector())
    tier.close()
    tier.path.unlink()
    again = make()
    assert again.purges.since(2) is None
    assert again.purges.since(3) == []
    purge, _ = again.purges.append(Selector(namespace="v1"))
    assert purge.epoch == 4
    assert again.purges.since(3) == [purge]


def test_a_purge_made_in_a_file_that_is_no_more_is_admitted_as_unknown(make):
    tier = make()
    tier._database.host.raise_epoch(10)  # as a process does that still had the old file open
    assert tier.purges.since(9) is None
    purge, _ = tier.purges.append(Selector(namespace="v1"))
    assert purge.epoch == 11
    assert make().purges.since(9) is None
    assert make().purges.since(10) == [purge]


def test_a_purge_numbered_elsewhere_is_carried_out_once(make, clock):
    from thinkonce.selector import Purge

    tier = make()
    put(tier, clock, "a")
    assert tier.purge(Purge(7, Selector())) == 1
    assert tier.purges.epoch[0] == 7
    assert tier.purge(Purge(7, Selector())) == 0
    put(tier, clock, "late", epoch=6)
    put(tier, clock, "new", epoch=7)
    assert tier.flush(5)
    assert held(tier, ["late", "new"]) == ["new"]


def test_facets_nobody_has_are_forgotten(make, clock):
    tier = make()
    for number in range(20):
        put(tier, clock, str(number), meta=Meta(namespace=f"n{number}"), ttl=10)
    assert tier.flush(5)
    clock.advance(11)
    tier.tidy()
    database = behind(tier)
    assert database.execute("SELECT count(*) FROM facets").get == 0
    database.close()


def test_tags_count_in_what_a_tenant_takes(tier, clock):
    tags = tuple(f"{number:02}" + "t" * 250 for number in range(64))
    put(tier, clock, "tagged", meta=Meta(tenant="a", tags=tags))
    assert tier.flush(10)
    size = tier._database.one("SELECT sum(pgsize) FROM dbstat WHERE name IN ('tags', 'tags_id')")
    assert tier.bytes_of("a") >= 3 * 64 * 252, "with the answer, in the table, in its index"
    assert tier.bytes_of("a") <= size + 64 * 300 + 4 * KIB
