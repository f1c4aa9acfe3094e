"""The cost policy against its formula, computed anew for every entry at every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry
from thinkonce.eviction import CostPolicy, Limits
from thinkonce.eviction.cost import MIN_COST, density
from unit.eviction.reference_policies import new_entry, skewed_keys

UNBOUNDED = Limits(None, 1)  # the cost policy reads no bound: the caller asks for victims


@dataclass
class Reference:
    """H = L + w (f - 1/2) (cost/size)^0.6 as a table; the smallest goes, first the older."""

    floor: float = 0.0
    table: dict[int, tuple[int, float, float]] = field(default_factory=dict)  # f, L, w*density
    ghost: list[tuple[int, int]] = field(default_factory=list)  # (key, f), oldest first

    def insert(self, key: int, worth: float) -> None:
        known = dict(self.ghost).get(key, 0)
        self.ghost = [row for row in self.ghost if row[0] != key]
        self.table[key] = (known + 1, self.floor, worth)

    def hit(self, key: int) -> None:
        uses, _, worth = self.table[key]
        self.table[key] = (uses + 1, self.floor, worth)

    def leave(self, key: int) -> None:
        uses, _, _ = self.table.pop(key)
        self.ghost.append((key, uses))
        while len(self.ghost) > 2 * len(self.table):
            self.ghost.pop(0)

    def evict(self) -> int:
        value, key = min(
            (
                (floor + (uses - 0.5) * worth, key)
                for key, (uses, floor, worth) in self.table.items()
            ),
            key=lambda pair: pair[0],
        )
        self.floor = value
        self.leave(key)
        return key


def play(moves: list[tuple[str, int]], sizes: list[int], costs: list[float]) -> None:
    """Both sides make the same moves; an entry's attributes follow from its key."""
    policy, reference = CostPolicy(UNBOUNDED), Reference()
    held: dict[int, Entry] = {}
    for move, key in moves:
        size, cost, weight = sizes[key % len(sizes)], costs[key % len(costs)], (0.25, 1, 4)[key % 3]
        before = policy.floor
        if move == "ask" and key in held:
            held[key].hits += 1  # as a hit outside the lock does
            held[key].floor = policy.floor
            reference.hit(key)
        elif move == "ask":
            held[key] = new_entry(key, size, cost, weight)
            policy.insert(held[key])
            reference.insert(key, weight * (cost / size) ** 0.6)
        elif move == "remove" and key in held:
            policy.remove(held.pop(key))
            reference.leave(key)
        elif move == "evict" and held:
            victim = policy.evict()
            assert victim is not None
            assert victim.key == reference.evict()
            assert held.pop(int(str(victim.key))) is victim
        assert policy.floor >= before, "L never falls"
        assert policy.floor == pytest.approx(reference.floor)
        assert len(policy) == len(held)
        policy.check()


moves = st.tuples(st.sampled_from(["ask", "ask", "ask", "evict", "remove"]), st.integers(0, 25))


@given(
    st.lists(moves, max_size=150),
    st.lists(st.integers(1, 10_000), min_size=1, max_size=7),
    st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=5),
)
def test_the_victim_is_the_smallest_of_the_formula(
    moves: list[tuple[str, int]], sizes: list[int], costs: list[float]
) -> None:
    play(moves, sizes, costs)


def test_a_long_log_leaves_in_the_order_of_the_formula() -> None:
    asked = skewed_keys(11, 3000, 200)
    moves = [
        move
        for count, key in enumerate(asked)
        for move in [("ask", key), *([("evict", 0)] if count > 40 and count % 2 else [])]
    ]
    play(moves, [300, 1700, 900, 25_000], [0.02, 1.5, 0.0004])


@pytest.mark.parametrize("cost", [0.0, -1.0, inf, -inf, nan])
def test_unusable_costs_and_sizes_still_order(cost: float) -> None:
    for size in (0, -5, 1, 10**12):
        assert density(cost, size, 0.5) == density(MIN_COST, max(size, 1), 0.5)
        policy = CostPolicy(UNBOUNDED)
        policy.insert(priced := new_entry(2, max(size, 1), 0.001))
        policy.insert(odd := new_entry(1, size, cost))
        assert isfinite(policy.worth(odd))
        assert [policy.evict(), policy.evict(), policy.evict()] == [odd, priced, None]
        assert isfinite(policy.floor)


def test_free_entries_are_told_apart_by_use_and_size() -> None:
    policy = CostPolicy(UNBOUNDED)
    large, used, small = new_entry(1, 4000, 0.0), new_entry(2, 1000, 0.0), new_entry(3, 1000, 0.0)
    for entry in (used, large, small):
        policy.insert(entry)
    policy.hit(used)
    assert [policy.evict() for _ in range(3)] == [large, small, used]


def test_high_priority_counts_as_four_times_the_uses() -> None:
    for hits, first in ((1, "plain"), (2, "high")):  # (2 - 1/2) < 4 * 1/2 < (3 - 1/2)
        policy = CostPolicy(UNBOUNDED)
        policy.insert(high := new_entry(1, weight=4.0))
        policy.insert(plain := new_entry(2))
        for _ in range(hits):
            policy.hit(plain)
        assert policy.evict() is {"plain": plain, "high": high}[first]


def test_low_priority_counts_as_a_quarter_of_the_uses() -> None:
    for hits, first in ((1, "low"), (2, "plain")):  # (2 - 1/2) / 4 < 1/2 < (3 - 1/2) / 4
        policy = CostPolicy(UNBOUNDED)
        policy.insert(plain := new_entry(1))
        policy.insert(low := new_entry(2, weight=0.25))
        for _ in range(hits):
            policy.hit(low)
        assert policy.evict() is {"plain": plain, "low": low}[first]


def test_what_comes_back_is_worth_what_it_was_asked_for_before() -> None:
    policy = CostPolicy(UNBOUNDED)
    often, once = new_entry(1), new_entry(2)
    policy.insert(often)
    for _ in range(5):
        policy.hit(often)
    policy.insert(once)
    policy.remove(often)  # refreshed, or expired
    back = new_entry(1)
    policy.insert(back)
    assert back.hits == 7, "six uses before, and this one"
    assert policy.evict() is once


def test_a_newcomer_of_least_worth_is_not_admitted() -> None:
    policy = CostPolicy(UNBOUNDED)
    policy.insert(new_entry(1, 100, 1.0))
    policy.insert(poor := new_entry(2, 100, 0.0001))
    assert policy.evict() is poor


def test_an_idle_favourite_goes_in_the_end() -> None:
    policy = CostPolicy(UNBOUNDED)
    favourite = new_entry(0)
    policy.insert(favourite)
    for _ in range(50):
        policy.hit(favourite)
    for key in range(1, 10):
        policy.insert(new_entry(key))
    for key in range(10, 2000):
        policy.insert(new_entry(key))
        if policy.evict() is favourite:
            return
    pytest.fail("L rises, so an entry nobody asks for must sink")


def test_alpha_0_ignores_the_price_and_alpha_1_counts_it_in_full() -> None:
    for alpha, first in ((0.0, "dear"), (1.0, "cheap")):
        policy = CostPolicy(UNBOUNDED, alpha=alpha)
        policy.insert(dear := new_entry(1, 1, 100.0))
        policy.insert(cheap := new_entry(2, 1, 1.0))
        for _ in range(9):
            policy.hit(cheap)
        assert policy.evict() is {"dear": dear, "cheap": cheap}[first]


def test_hits_that_race_may_lower_a_value_without_harm() -> None:
    policy = CostPolicy(UNBOUNDED)
    entries = [new_entry(key) for key in range(4)]
    for entry in entries:
        policy.insert(entry)
        policy.hit(entry)
    assert policy.evict() is entries[0]
    floor = policy.floor
    entries[1].hits, entries[1].floor = 0, -1.0  # two threads wrote what they had read before
    assert policy.evict() is entries[1]
    assert policy.floor == floor, "L never falls"
    policy.check()


def test_rows_of_removed_entries_do_not_outlive_a_shrinking_cache() -> None:
    policy = CostPolicy(UNBOUNDED)
    dear = [new_entry(key, cost=1e6) for key in range(4000)]
    cheap = [new_entry(key) for key in range(4000, 5000)]
    for entry in (*dear, *cheap):
        policy.insert(entry)
    for entry in dear:
        policy.remove(entry)  # their rows lie below all others
    for _ in range(950):
        policy.evict()
        policy.check()
    assert len(policy) == 50
