"""What a call costs must not grow with what is held: counted in lines of Python, not in time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from thinkonce.entry import Entry
from thinkonce.eviction import POLICIES, ExpiryBuckets, Limits, Policy, make_policy
from unit.eviction.reference_policies import new_entry, note


class Lines:
    count = 0


@contextmanager
def counted_lines() -> Iterator[Lines]:
    lines = Lines()

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if "eviction" not in frame.f_code.co_filename:
            return None
        lines.count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


def churn(policy: Policy, capacity: int) -> int:
    """Fill, then rounds of: use everything, replace a part. Returns the number of calls."""
    held: dict[int, Entry] = {}
    calls = 0
    for key in range(4 * capacity):
        held[key] = entry = new_entry(key, 1 + key % 7, 1.0 + key % 5)
        policy.insert(entry)
        calls += 1
        if len(held) > capacity:
            victim = policy.evict()
            assert victim is not None
            del held[int(str(victim.key))]
        if key % (capacity // 4) == 0:
            for entry in held.values():
                note(policy, entry)
                calls += 1
        if key % 3 == 0:
            policy.remove(held.pop(next(iter(held))))
            calls += 1
    return calls


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_call_costs_the_same_in_a_cache_eight_times_the_size(name: str) -> None:
    per_call = []
    for capacity in (64, 512):
        policy = make_policy(name, Limits(capacity, None))
        with counted_lines() as lines:
            calls = churn(policy, capacity)
        per_call.append(lines.count / calls)
    assert per_call[1] <= 1.25 * per_call[0] + 1, per_call


def test_expiry_costs_the_same_however_many_entries_wait() -> None:
    per_call = []
    for count in (500, 8000):
        buckets = ExpiryBuckets()
        entries = [new_entry(key) for key in range(count)]
        for number, entry in enumerate(entries):
            entry.fresh_until = (number * 7919 % count) * 0.01
        with counted_lines() as lines:
            for entry in entries:
                buckets.add(entry)
            for entry in entries[::3]:
                buckets.discard(entry)
            now = 0.0
            while now < count * 0.01:
                buckets.pop_expired(now, 16)
                now += 0.01
        per_call.append(lines.count / (count * 2.33))
    assert per_call[1] <= 1.25 * per_call[0] + 1, per_call
