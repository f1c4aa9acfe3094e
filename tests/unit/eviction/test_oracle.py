"""The bounds against an exhaustive search, on logs short enough for one."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.eviction import POLICIES, Limits, make_policy
from thinkonce.eviction.oracle import NEVER, belady, dearest_per_byte, next_uses
from thinkonce.eviction.simulate import Access, simulate
from unit.eviction.reference_policies import skewed_keys


def best_saving(log: list[Access], max_bytes: int) -> float:
    """Largest cost any sequence of decisions can save: every one is tried."""

    @cache
    def best(position: int, held: frozenset[object]) -> float:
        if position == len(log):
            return 0.0
        access = log[position]
        if access.key in held:
            return access.cost + best(position + 1, held)
        outcomes = [best(position + 1, held)]
        for kept in subsets(held):
            used = sum(size_of[key] for key in kept)
            if used + access.size <= max_bytes:
                outcomes.append(best(position + 1, kept | {access.key}))
        return max(outcomes)

    size_of = {access.key: access.size for access in log}
    return best(0, frozenset())


def subsets(held: frozenset[object]) -> list[frozenset[object]]:
    result = [frozenset[object]()]
    for key in held:
        result += [kept | {key} for kept in result]
    return result


@given(st.lists(st.integers(0, 4), max_size=14), st.integers(1, 3))
def test_belady_is_the_best_there_is_for_equal_sizes(keys: list[int], capacity: int) -> None:
    assert belady(keys, capacity).hits == best_saving([Access(key) for key in keys], capacity)


@given(
    st.lists(st.integers(0, 3), max_size=11),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.lists(st.sampled_from([0.5, 1.0, 7.0]), min_size=4, max_size=4),
    st.integers(1, 8),
)
def test_the_density_oracle_never_saves_more_than_is_possible(
    keys: list[int], sizes: list[int], costs: list[float], max_bytes: int
) -> None:
    log = [Access(key, sizes[key], costs[key]) for key in keys]
    assert dearest_per_byte(log, max_bytes).cost_saved <= best_saving(log, max_bytes) + 1e-9


@given(st.lists(st.integers(0, 20), max_size=80))
def test_the_density_oracle_saves_everything_that_returns_when_it_fits(keys: list[int]) -> None:
    log = [Access(key, 10 + key, 1.0 + key % 5) for key in keys]
    limits = Limits(None, 10_000)
    everything = simulate(make_policy("lru", limits), log, limits)
    found = dearest_per_byte(log, 10_000)
    assert found.cost_saved == pytest.approx(everything.cost_saved)
    assert found.hits == everything.hits


def test_the_density_oracle_keeps_what_pays_most_for_its_room() -> None:
    dear, fair, cheap = Access("dear", 10, 9.0), Access("fair", 10, 3.0), Access("cheap", 10, 0.1)
    log = [dear, cheap, fair, cheap, fair, dear]
    assert dearest_per_byte(log, 20).cost_saved == 12.0, "cheap is needed first and pays least"
    assert dearest_per_byte(log, 10).cost_saved == 9.0, "one at a time: the dear one stays"


@pytest.mark.parametrize("capacity", [5, 40, 150])
def test_no_policy_beats_belady(capacity: int) -> None:
    keys = skewed_keys(9, 4000, 400)
    bound = belady(keys, capacity).hits
    for name in POLICIES:
        limits = Limits(capacity, None)
        log = [Access(key) for key in keys]
        assert simulate(make_policy(name, limits), log, limits).hits <= bound


def test_next_uses_point_forward_or_nowhere() -> None:
    assert next_uses("abacb") == [2, 4, NEVER, NEVER, NEVER]
