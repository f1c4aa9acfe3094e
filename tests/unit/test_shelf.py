"""The tiers of one cache as one thing."""

from __future__ import annotations

import apsw
import pytest

from thinkonce.clock import SYSTEM
from thinkonce.entry import Entry, Form, Meta
from thinkonce.errors import ConfigError, TierError
from thinkonce.freshness import Rules
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.tiers import sqlite_purges
from thinkonce.tiers.tier import Key


def opened(url: str | None) -> Shelf:
    return open_shelf(url, Rules(), max_bytes=2**20, store_max_bytes=2**24, policy="cost")


@pytest.fixture
def stored(tmp_path):
    shelf = opened(f"sqlite:///{tmp_path}/answers.db")
    yield shelf
    shelf.close()


@pytest.fixture
def in_memory():
    shelf = opened(None)
    yield shelf
    shelf.close()


def put(shelf: Shelf, name: str, *, tags=(), tiers=None) -> Key:
    key = Key(name, name.encode().ljust(32, b"."))
    for tier in tiers or shelf.setting.tiers:
        tier.put(key, made(shelf, tags))
    return key


def made(shelf: Shelf, tags=()) -> Entry:
    return Entry(
        None,
        "answer",
        Meta(scope="test", tags=tuple(tags)),
        form=Form.PLAIN,
        payload_size=6,
        created_at=SYSTEM.wall(),
        epoch=shelf.epoch,
    )


def names(shelf: Shelf, **chosen) -> list[str]:
    entries = shelf.entries(Selector(**chosen), 100)
    return [entry.digest.rstrip(b".").decode() for entry in entries]


def test_an_entry_in_two_tiers_is_listed_and_counted_once(stored):
    put(stored, "both")
    put(stored, "far", tiers=[stored.store])
    assert names(stored) == ["both", "far"]
    assert stored.purge(Selector()) == 2
    assert names(stored) == []


def test_a_listing_goes_on_where_the_last_page_ended(stored):
    for name in "abcdef":
        put(stored, name, tiers=[stored.memory if name in "ace" else stored.store])
    first = stored.entries(Selector(), 4)
    rest = stored.entries(Selector(), 4, first[-1].digest)
    assert b"".join(entry.digest[:1] for entry in [*first, *rest]) == b"abcdef"


def test_a_purge_reaches_memory_although_the_store_is_locked(stored, monkeypatch, tmp_path):
    monkeypatch.setattr(sqlite_purges, "PURGING_PATIENCE", 0.05)
    put(stored, "kept")
    put(stored, "meant", tags=["faq"])
    assert stored.flush(5.0)
    other = apsw.Connection(str(tmp_path / "answers.db"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TierError, match="sqlite"):
        stored.purge(Selector(tags=("faq",)))
    assert set(stored.memory.map) == {"kept"}
    other.execute("ROLLBACK")
    other.close()
    assert stored.purge(Selector(tags=("faq",))) == 1, "the store still held it"
    assert names(stored) == ["kept"]


def test_a_discard_reaches_memory_although_the_store_is_locked(stored, monkeypatch, tmp_path):
    monkeypatch.setattr(sqlite_purges, "PURGING_PATIENCE", 0.05)
    key = put(stored, "meant")
    put(stored, "kept")
    assert stored.flush(5.0)
    other = apsw.Connection(str(tmp_path / "answers.db"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TierError):
        stored.discard(key)
    assert set(stored.memory.map) == {"kept"}
    other.close()
    assert stored.discard(key)
    assert not stored.discard(key)


@pytest.mark.parametrize("kind", ["stored", "in_memory"])
def test_a_discard_by_digest_finds_what_memory_holds_under_another_name(kind, request):
    shelf = request.getfixturevalue(kind)
    digest = put(shelf, "short").digest
    assert shelf.discard(Key(digest, digest))
    assert not shelf.memory.map


def test_a_probe_answers_only_until_the_flow_wants_to_look_and_no_purge_came(stored):
    key = put(stored, "asked")
    assert stored.probe("asked") is None, "no flow has said until when"
    stored.memory.map["asked"].inline_until = float("inf")
    assert stored.probe("asked") is stored.memory.map["asked"]
    stored.memory.purges.append(Selector(key=key.digest))  # as another process would
    assert stored.probe("asked") is None


@pytest.mark.parametrize(
    "end",
    [
        lambda shelf, key: shelf.discard(key),
        lambda shelf, key: shelf.purge(Selector(tags=("t",))),
        lambda shelf, key: shelf.memory.doom(key),
        lambda shelf, key: put(shelf, "asked"),  # another answer to it
        lambda shelf, key: shelf.memory._evict_one(),
        lambda shelf, key: shelf.memory.purges.append(Selector(key=key.digest)),  # elsewhere
    ],
    ids=["discarded", "purged", "doomed", "replaced", "evicted", "purged elsewhere"],
)
def test_an_entry_at_hand_is_good_until_it_has_left_memory(stored, end):
    key = put(stored, "asked", tags=("t",))
    entry = stored.memory.map["asked"]
    assert not stored.probe_again(entry, 5.0), "no flow has said until when"
    entry.inline_until = 10.0
    assert stored.probe_again(entry, 9.9)
    assert not stored.probe_again(entry, 10.0)
    end(stored, key)
    assert not stored.probe_again(entry, 9.9)


def test_an_entry_that_is_put_again_is_good_again(in_memory):
    key = put(in_memory, "asked")
    entry = in_memory.memory.map["asked"]
    in_memory.memory.put(key, entry)
    entry.inline_until = 10.0
    hits = entry.hits
    assert in_memory.probe_again(entry, 9.9)
    assert entry.hits == hits + 1, "the policy hears of it"


def test_bounds_change_while_running_in_memory_and_in_the_store(stored):
    stored.resize(max_size=7, store_max_bytes=2**22)
    bounds = {"max_size": 7, "max_bytes": 2**20, "store_max_bytes": 2**22}
    assert stored.bounds() == bounds
    assert stored.stats().items() >= bounds.items()


def test_a_store_bound_needs_a_store(in_memory):
    assert in_memory.bounds()["store_max_bytes"] is None
    with pytest.raises(ConfigError, match="store_max_bytes"):
        in_memory.resize(store_max_bytes=2**22)


def test_a_closed_shelf_serves_on_from_memory(stored):
    put(stored, "held")
    stored.close()
    stored.close()
    assert names(stored) == ["held"]


def test_a_bad_bound_leaves_no_store_open(tmp_path):
    url = f"sqlite:///{tmp_path}/answers.db"
    with pytest.raises(ConfigError, match="max_bytes"):
        open_shelf(url, Rules(), max_bytes=1, store_max_bytes=2**24, policy="cost")
    opened(url).close()


def test_what_nobody_knows_not_to_be_purged_counts_as_purged(stored, tmp_path):
    entry, told = made(stored), []
    stored.tier_failed = lambda tier, error: told.append((tier, type(error)))
    other = opened(f"sqlite:///{tmp_path}/answers.db")
    other.purge(Selector(tags=("other",)))
    other.close()

    def broken(*query):
        raise TierError("sqlite", "reading answers.db")

    database = stored.store.tier._database
    database.rows = broken
    assert stored.is_purged(entry) is True
    assert told == [("sqlite", TierError)]
    del database.rows
    assert stored.is_purged(entry) is False
