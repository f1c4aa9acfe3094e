"""Hits that the generated probe leaves on entries: counted once, whatever becomes of the entry."""

import logging
import threading

import pytest

from thinkonce import Cache, cached
from thinkonce.entry import LEFT, Entry, Meta
from thinkonce.selector import Selector
from thinkonce.tally import Tally
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.tier import Key

PATIENCE = 20


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("thinkonce").isEnabledFor(logging.INFO)


def held(tier, name="a", seconds=2.0):
    entry = Entry(None, name, Meta(), payload_size=1, cost=1.0, seconds=seconds)
    tier.put(Key((name,), b"\0" * 32), entry)
    return entry


def hit(tally, entry):
    """What the generated text does."""
    entry.hits += 1
    return entry.payload if entry.tally is tally else tally.first(entry)


def test_hits_on_one_entry_are_counted_when_somebody_asks():
    tier = MemoryTier()
    tally, entry = Tally(tier.lock), held(tier)
    assert [hit(tally, entry) for _ in range(5)] == ["a"] * 5
    assert tally.probed_hits == 0, "they stand on the entry"
    assert (tally.hits, tally.saved_seconds) == (5, 10.0)
    hit(tally, entry)
    assert (tally.hits, tally.saved_seconds) == (6, 12.0)
    assert (tally.hits, tally.saved_seconds) == (6, 12.0), "reading counts nothing"


def purge(tier, entry):
    made, _ = tier.purges.append(Selector())
    tier.purge(made)


LEAVING = {
    "deleted": lambda tier, entry: tier.delete(Key(entry.key, b"")),
    "purged": purge,
    "replaced": lambda tier, entry: held(tier),
    "evicted": lambda tier, entry: [held(tier, str(n)) for n in range(3)],
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
def test_hits_outlive_their_entry_and_the_tally_lets_go_of_it(leave):
    tier = MemoryTier(max_entries=2)
    tally, entry = Tally(tier.lock), held(tier)
    for _ in range(3):
        hit(tally, entry)
    entry.hits, entry.told = 0, -3  # worth nothing to the policy, the three still to be counted
    leave(tier, entry)
    assert tier.map.get(entry.key) is not entry
    assert entry not in tally.waiting
    assert (tally.hits, tally.saved_seconds) == (3, 6.0)


def test_a_hit_on_an_entry_that_has_just_left_is_counted_and_keeps_nothing():
    tier = MemoryTier()
    tally, entry = Tally(tier.lock), held(tier)
    tier.delete(Key(entry.key, b""))
    assert entry.tally is LEFT
    hit(tally, entry)
    hit(tally, entry)
    assert not tally.waiting
    assert tally.hits == 2


def test_two_functions_that_share_an_entry_count_their_own_hits():
    tier = MemoryTier()
    one, two, entry = Tally(tier.lock), Tally(tier.lock), held(tier)
    for tally in (one, one, two, one, two, two, two):
        hit(tally, entry)
    assert (one.hits, two.hits) == (3, 4)


def test_hits_by_the_long_way_are_not_counted_twice():
    tier = MemoryTier()
    tally, entry = Tally(tier.lock), held(tier)
    hit(tally, entry)
    tier.get(Key(entry.key, b""))  # its caller counts it
    hit(tally, entry)
    assert tally.hits == 2
    assert entry.hits == 4, "the policy knows of all, and of the first use"


def test_a_value_made_anew_for_every_caller_counts_at_once():
    tier = MemoryTier()
    tally, entry = Tally(tier.lock), held(tier)
    entry.thaw = str.upper
    assert hit(tally, entry) == "A"
    assert (tally.probed_hits, tally.probed_seconds) == (1, 2.0)
    assert not tally.waiting


def test_an_entry_put_again_begins_with_nothing_to_count():
    tier = MemoryTier()
    tally, entry = Tally(tier.lock), held(tier)
    hit(tally, entry)
    tier.put(Key(entry.key, b"\0" * 32), entry)
    hit(tally, entry)
    assert tally.hits == 2


def test_every_hit_is_counted_once_while_entries_leave_and_others_read():
    cache = Cache(max_size=4)  # of six questions

    @cached(cache=cache)
    def ask(number: int) -> str:
        return str(number)

    done = threading.Event()

    def read():
        last = 0
        while not done.is_set():
            now = ask.cache_stats()["hits"]
            assert now >= last
            last = now

    asked = 3_000
    threads = [
        threading.Thread(target=lambda: [ask(n * n % 11) for n in range(asked)]) for _ in range(3)
    ]
    reader = threading.Thread(target=read)
    reader.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    done.set()
    reader.join(PATIENCE)
    told = ask.cache_stats()
    assert told["misses"] > 6, "some came back"
    assert told["hits"] + told["misses"] + told["coalesced"] == 3 * asked


def test_a_hit_is_logged_from_the_moment_somebody_listens(caplog):
    @cached(cache=Cache())
    def ask(prompt: str) -> str:
        return prompt

    ask("a"), ask("a")
    assert not caplog.records
    with caplog.at_level(logging.INFO, "thinkonce"):
        ask("a")
        assert [record.levelname for record in caplog.records] == ["INFO"]
    ask("a"), ask("a")
    assert len(caplog.records) == 1
    with caplog.at_level(logging.INFO):  # a logger above is asked too
        ask("a")
    assert len(caplog.records) == 2
    assert ask.cache_stats()["hits"] == 5
