"""LRU, SIEVE, S3-FIFO and ARC decide as the words of their papers do, step by step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.eviction import ArcPolicy, Limits, S3FifoPolicy, SievePolicy, make_policy
from unit.eviction.reference_policies import (
    REFERENCES,
    new_entry,
    replay,
    restless_keys,
    skewed_keys,
)

logs = st.lists(st.integers(0, 30), max_size=200)


def expected(name: str, keys: list[int], capacity: int) -> list[tuple[bool, int | None]]:
    reference = REFERENCES[name](capacity)
    return [reference.access(key) for key in keys]


@pytest.mark.parametrize("name", REFERENCES)
@given(keys=logs, capacity=st.integers(1, 24))
def test_every_decision_is_the_one_of_the_paper(name: str, keys: list[int], capacity: int) -> None:
    assert replay(name, keys, Limits(capacity, None)) == expected(name, keys, capacity)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("capacity", [1, 9, 10, 37, 120])
def test_a_long_log_with_scans_and_drift_decides_as_the_paper(name: str, capacity: int) -> None:
    keys = skewed_keys(capacity, 3000, 300)
    assert replay(name, keys, Limits(capacity, None)) == expected(name, keys, capacity)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("capacity", [3, 5, 8, 12])
def test_a_log_that_changes_its_ways_decides_as_the_paper(name: str, capacity: int) -> None:
    for seed in range(1, 4):
        keys = restless_keys(seed, 600, capacity)
        assert replay(name, keys, Limits(capacity, None)) == expected(name, keys, capacity), seed


@pytest.mark.parametrize("name", REFERENCES)
@given(keys=logs, capacity=st.integers(10, 24), size=st.integers(1, 9))
def test_bytes_decide_as_entries_do_when_all_are_of_one_size(
    name: str, keys: list[int], capacity: int, size: int
) -> None:
    in_bytes = replay(name, keys, Limits(None, capacity * size), size)
    assert in_bytes == expected(name, keys, capacity)


@pytest.mark.parametrize("name", REFERENCES)
def test_of_two_bounds_the_nearer_one_is_the_unit(name: str) -> None:
    keys = skewed_keys(5, 2000, 200)
    roomy_bytes = replay(name, keys, Limits(40, 10**9), size=7)
    assert roomy_bytes == expected(name, keys, 40), "a byte bound far away must not matter"


def test_the_hand_of_sieve_stays_where_it_was_when_the_entry_under_it_is_removed() -> None:
    policy = SievePolicy(Limits(4, None))
    entries = [new_entry(key) for key in range(6)]
    for entry in entries[:5]:
        policy.insert(entry)
    policy.hit(entries[0])
    assert policy.evict() is entries[1], "0 was used: the hand clears it and passes"
    policy.remove(entries[2])  # the hand is here
    policy.insert(entries[5])
    assert policy.evict() is entries[3], "the hand goes on towards the head, not back to 0"


def test_the_hand_of_sieve_is_back_at_the_tail_when_the_last_entry_ahead_is_removed() -> None:
    policy = SievePolicy(Limits(3, None))
    entries = [new_entry(key) for key in range(5)]
    for entry in entries[:4]:
        policy.insert(entry)
    for entry in entries[:1]:
        policy.hit(entry)
    assert policy.evict() is entries[1], "0 was passed; 2 is all that lies ahead"
    policy.remove(entries[2])
    policy.check()
    policy.insert(entries[4])
    assert policy.evict() is entries[0], "from the tail again, before the newer 3"


def test_the_small_queue_of_s3fifo_is_drained_at_its_share_and_main_only_below_it() -> None:
    policy = S3FifoPolicy(Limits(20, None))
    held = {key: new_entry(key) for key in range(100)}
    for key in range(20):
        policy.insert(held[key])
    for key in range(10):
        held[key].hits = 2
    policy.insert(held[20])
    assert policy.evict() is held[10], "ten were used twice and moved to main on the way"
    gone = [policy.evict() for _ in range(8)]
    assert gone == [held[key] for key in range(11, 19)], "small holds its two entries and more"
    victim = policy.evict()
    assert victim is held[0], "small is below its share now, so main pays"


def test_a_ghost_of_s3fifo_returns_to_the_main_queue() -> None:
    policy = S3FifoPolicy(Limits(20, None))
    for key in range(21):
        policy.insert(new_entry(key))
    first = policy.evict()
    assert first is not None
    policy.insert(again := new_entry(0))
    for key in range(100, 119):
        policy.insert(new_entry(key))
        victim = policy.evict()
        assert victim is not again, "newcomers go first while small has its share"


@pytest.mark.parametrize("capacity", range(1, 10))
def test_s3fifo_without_room_for_a_small_queue_keeps_what_was_just_used(capacity: int) -> None:
    keys = [key for start in range(50) for key in (start, start)]  # each asked twice in a row
    steps = replay("s3fifo", keys, Limits(capacity, None))
    assert sum(hit for hit, _ in steps) == 50, "the newest entry is never the victim"


def test_the_target_of_arc_keeps_its_share_when_the_nearer_bound_changes() -> None:
    limits = Limits(10, None)
    policy = ArcPolicy(limits)
    for key in [*range(10), *range(10), *range(20, 26), *range(20, 24)]:
        policy.insert(new_entry(key, size=100))
        if len(policy) > 10:
            policy.evict()
    limits.max_bytes = 500
    while len(policy) > 5:
        policy.evict()
    for key in range(40, 60):
        policy.insert(new_entry(key, size=100))
        policy.evict()
        policy.check()
    assert len(policy) == 5


@pytest.mark.parametrize("name", ["arc", "s3fifo"])
def test_ghosts_of_small_entries_do_not_pile_up_behind_a_few_large_ones(name: str) -> None:
    limits = Limits(None, 1_000_000)
    policy = make_policy(name, limits)
    small = [new_entry(key, size=10) for key in range(20_000)]
    for entry in small:
        policy.insert(entry)
    for key in range(100_000, 100_004):
        policy.insert(new_entry(key, size=250_000))
    while len(policy) > 4:
        assert policy.evict() is not None
    policy.insert(new_entry(200_000, size=250_000))
    policy.evict()
    policy.check()
    rows = sum(len(part) for part in vars(policy).values() if type(part).__name__ == "Ghost")
    assert rows <= 2 * (4 + 1000), "a ghost row is memory too"
