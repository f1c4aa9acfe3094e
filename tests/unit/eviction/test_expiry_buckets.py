"""Expiry buckets against a sorted list; time is an argument."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry
from thinkonce.eviction import ExpiryBuckets
from unit.eviction.reference_policies import new_entry

# Quarters of a second: several in a bucket, and ties.
instants = st.integers(-8, 60).map(lambda quarter: quarter / 4)
steps = st.one_of(
    st.tuples(st.just("add"), instants),
    st.tuples(st.just("discard"), st.integers(0, 40)),
    st.tuples(st.just("pop"), st.integers(0, 12).map(lambda quarter: quarter / 4)),
)


def expiring(key: int, fresh_until: float) -> Entry:
    entry = new_entry(key)
    entry.fresh_until = fresh_until
    return entry


@given(st.lists(steps, max_size=120), st.integers(1, 5))
def test_what_has_expired_comes_out_once_and_earliest_first(
    steps: list[tuple[str, float]], limit: int
) -> None:
    buckets, held, now = ExpiryBuckets(), list[Entry](), -3.0
    for number, (step, value) in enumerate(steps):
        if step == "add":
            held.append(expiring(number, value))
            buckets.add(held[-1])
        elif step == "discard" and held:
            buckets.discard(held.pop(int(value) % len(held)))
        elif step == "pop":
            now += value
            due = sorted(e.fresh_until for e in held if e.fresh_until <= now)[:limit]
            popped = buckets.pop_expired(now, limit)
            assert [entry.fresh_until for entry in popped] == due
            for entry in popped:
                held.remove(entry)  # raises if it was not held: each comes out once
        assert len(buckets) == len(held)
        buckets.check()


@pytest.mark.parametrize("instant", [inf, nan, -inf])
def test_an_entry_without_an_instant_never_enters(instant: float) -> None:
    buckets = ExpiryBuckets()
    entry = expiring(1, instant)
    buckets.add(entry)
    buckets.discard(entry)
    assert len(buckets) == 0
    assert buckets.pop_expired(1e18, 10) == []


def test_an_entry_is_dead_at_its_instant_not_at_the_edge_of_its_bucket() -> None:
    buckets = ExpiryBuckets()
    buckets.add(entry := expiring(1, 10.75))
    assert buckets.pop_expired(10.74, 10) == [], "its bucket began, its life has not ended"
    assert buckets.pop_expired(10.75, 10) == [entry], "dead at its expiry, not after it"


def test_an_entry_added_to_a_second_under_way_is_found() -> None:
    buckets = ExpiryBuckets()
    buckets.pop_expired(10.5, 1)
    buckets.add(late := expiring(1, 10.9))
    buckets.add(past := expiring(2, 3.0))
    assert buckets.pop_expired(10.6, 10) == [past]
    assert buckets.pop_expired(11.0, 10) == [late]


def test_what_was_discarded_leaves_no_rows_behind() -> None:
    buckets = ExpiryBuckets()
    for number in range(5000):
        entry = expiring(number, number * 2.0)
        buckets.add(entry)
        buckets.discard(entry)
        buckets.check()
    crowd = [expiring(number, 20_000.5) for number in range(5000)]
    for entry in crowd:
        buckets.add(entry)
    buckets.pop_expired(20_000.25, 1)  # opens their second
    for entry in crowd:
        buckets.discard(entry)
        assert len(buckets._opened) <= 2 * len(buckets) + 64
    assert buckets.pop_expired(1e9, 10) == []


def test_a_crowded_second_is_looked_through_once() -> None:
    buckets = ExpiryBuckets()
    for number in range(10_000):
        buckets.add(expiring(number, 100.0 + number / 10_000))
    buckets.pop_expired(100.0, 1)
    rows = len(buckets._opened)
    for _ in range(1000):
        assert buckets.pop_expired(100.00005, 16) == []
    assert len(buckets._opened) == rows, "asking again opens nothing anew"


@pytest.mark.parametrize("opened", [True, False])
def test_rows_of_what_was_discarded_do_not_outlive_what_expires(opened: bool) -> None:
    buckets = ExpiryBuckets()
    early = [expiring(key, 10.0 + (0.001 if opened else 1.0) * key) for key in range(200)]
    late = [expiring(key, 10.9 if opened else 500.0 + key) for key in range(200)]
    for entry in (*early, *late):
        buckets.add(entry)
    if opened:
        buckets.pop_expired(9.9999, 1)
        buckets.pop_expired(10.0, 0)
    for entry in late:
        buckets.discard(entry)
    for _ in range(200):
        assert len(buckets.pop_expired(300.0, 1)) == 1
        buckets.check()
