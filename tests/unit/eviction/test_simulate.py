"""The replay against logs small enough to follow by hand, and against plain models."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry
from thinkonce.eviction import POLICIES, Limits, LruPolicy, make_policy
from thinkonce.eviction.simulate import HIT_BUFFER, Access, Expiry, Replay, simulate
from unit.eviction.reference_policies import REFERENCES, replay, skewed_keys

log_entries = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 30), st.floats(0.0, 5.0)), max_size=120
)


def run(name: str, log: list[Access], limits: Limits, expiry: Expiry = Expiry.NONE) -> Replay:
    return simulate(make_policy(name, limits), log, limits, expiry)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_replay_hits_as_often_as_the_policy_driven_by_hand(name: str) -> None:
    keys = skewed_keys(3, 3000, 300)
    limits = Limits(40, None)
    result = run(name, [Access(key) for key in keys], limits)
    assert result.hits == sum(hit for hit, _ in replay(name, keys, limits))
    assert result.requests == 3000


@pytest.mark.parametrize("name", REFERENCES)
def test_a_replay_hits_as_often_as_the_reference(name: str) -> None:
    keys = skewed_keys(4, 3000, 300)
    reference = REFERENCES[name](64)
    result = run(name, [Access(key) for key in keys], Limits(64, None))
    assert result.hits == sum(reference.access(key)[0] for key in keys)


class Watched(LruPolicy):
    """LRU that tells how much is held after each eviction is over."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.most_bytes = self.most_entries = 0

    def insert(self, entry: Entry) -> None:
        self.most_bytes = max(self.most_bytes, sum(held.size for held in self._order))
        self.most_entries = max(self.most_entries, len(self._order))
        super().insert(entry)


@given(log_entries, st.integers(1, 60), st.integers(1, 8))
def test_neither_bound_is_exceeded_once_room_is_made(
    rows: list[tuple[int, int, float]], max_bytes: int, max_entries: int
) -> None:
    limits = Limits(max_entries, max_bytes)
    policy = Watched(limits)
    simulate(policy, [Access(key, 1 + size, cost) for key, size, cost in rows], limits)
    assert policy.most_bytes <= max_bytes
    assert policy.most_entries <= max_entries


def test_the_three_ratios_count_requests_bytes_and_cost() -> None:
    log = [Access("a", 100, 1.0), Access("b", 300, 9.0), Access("b", 300, 9.0), Access("a", 100, 1)]
    result = run("lru", log, Limits(None, 300))
    assert (result.hit_ratio, result.byte_hit_ratio) == (0.25, 300 / 800)
    assert result.cost_saved_ratio == 9.0 / 20.0
    assert result.evictions == 2, "b pushed a out, and then a pushed b out"
    empty = run("lru", [], Limits(1, None))
    assert (empty.hit_ratio, empty.byte_hit_ratio, empty.cost_saved_ratio) == (0.0, 0.0, 0.0)


def test_an_entry_above_the_bound_is_not_kept_and_pushes_nothing_out() -> None:
    log = [Access("a", 10), Access("huge", 500), Access("a", 10), Access("huge", 500)]
    result = run("cost", log, Limits(None, 100))
    assert (result.hits, result.evictions) == (1, 0)


def test_one_entry_may_be_held_to_a_part_of_the_space() -> None:
    log = [Access("large", 20), Access("small", 10)] * 2
    limits = Limits(None, 100)
    policy = make_policy("lru", limits)
    assert simulate(policy, log, limits, max_entry_bytes=100 // 8).hits == 1


def test_hits_beyond_the_buffer_are_lost_from_its_old_end_as_in_the_memory_tier() -> None:
    start = [Access("a"), Access("b"), Access("c"), Access("a")]
    for hits, next_hit in ((HIT_BUFFER - 1, 0), (HIT_BUFFER, 1)):
        log = [*start, *[Access("c")] * hits, Access("d"), Access("b")]
        found = run("lru", log, Limits(3, None)).hits - hits - 1
        assert found == next_hit, "b is pushed out while the hit of a is remembered, else a"


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_lives_count_only_where_they_are_asked_for(name: str) -> None:
    log = [Access("a", ttl=10.0, at=at) for at in (0.0, 9.0, 10.0)]
    limits = Limits(5, None)
    assert run(name, log, limits, Expiry.NONE).hits == 2
    for expiry in (Expiry.LAZY, Expiry.FIRST):
        result = run(name, log, limits, expiry)
        assert result.hits == 1, "an entry is dead at its expiry, not after it"
        assert result.expirations == 1


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_dead_go_before_the_living(name: str) -> None:
    log = [
        Access("dead", ttl=5.0, at=0.0, cost=100.0),
        Access("alive", ttl=inf, at=1.0),
        Access("dead", ttl=5.0, at=2.0, cost=100.0),  # used most, worth most, and soon over
        Access("new", at=6.0),
        Access("alive", at=7.0),
    ]
    result = run(name, log, Limits(2, None), Expiry.FIRST)
    assert (result.hits, result.evictions, result.expirations) == (2, 0, 1)


@given(log_entries)
def test_with_room_for_all_every_policy_saves_all_that_returns(
    rows: list[tuple[int, int, float]],
) -> None:
    log = [Access(key, size, cost) for key, size, cost in rows]
    returning = len(rows) - len({key for key, _, _ in rows})
    for name in POLICIES:
        assert run(name, log, Limits(1000, 100_000)).hits == returning
