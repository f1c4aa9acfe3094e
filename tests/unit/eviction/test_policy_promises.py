"""What every policy promises apart from its order."""

from __future__ import annotations

import weakref
from typing import get_args

import pytest

from thinkonce.entry import Entry
from thinkonce.errors import ConfigError
from thinkonce.eviction import POLICIES, ExpiryBuckets, Limits, make_policy
from thinkonce.settings.sections import DEFAULT_POLICY, PolicyName
from unit.eviction.reference_policies import new_entry

NAMES = sorted(POLICIES)


class Answer:
    """Something a weak reference can watch."""


def watched(key: int) -> tuple[Entry, weakref.ref[Answer]]:
    entry = new_entry(key, cost=10.0)
    entry.payload = Answer()
    return entry, weakref.ref(entry.payload)


def test_the_names_users_may_write_are_these() -> None:
    assert NAMES == ["arc", "cost", "lru", "s3fifo", "sieve"]


def test_the_settings_know_every_policy_and_no_other() -> None:
    assert set(get_args(PolicyName)) == set(POLICIES)
    assert DEFAULT_POLICY in POLICIES


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"policy='mru'.*arc \| cost \| lru \| s3fifo \| sieve"):
        make_policy("mru", Limits(1, None))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_was_removed_is_not_kept_in_memory(name: str) -> None:
    policy = make_policy(name, Limits(10, None))
    for key in range(5):
        policy.insert(new_entry(key))
    entry, answer = watched(9)
    policy.insert(entry)
    policy.hit(entry)
    policy.remove(entry)
    del entry
    assert answer() is None, "a removed answer may be large, or secret"


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_that_is_dropped_lets_go_of_all_it_held(name: str) -> None:
    policy = make_policy(name, Limits(10, None))
    answers = []
    for key in range(5):
        entry, answer = watched(key)
        policy.insert(entry)
        answers.append(answer)
    del policy, entry
    assert [answer() for answer in answers] == [None] * 5, "entries must not be part of a cycle"


def test_expiry_lets_go_of_what_it_popped_or_was_told_to_forget() -> None:
    buckets = ExpiryBuckets()
    for key, instant in ((1, 5.5), (2, 5.7), (3, 9.0)):
        entry, answer = watched(key)
        entry.fresh_until = instant
        buckets.add(entry)
        if key != 1:
            buckets.pop_expired(5.0, 1)  # opens the second of the first two
            buckets.discard(entry)
            del entry
            assert answer() is None
    assert len(buckets.pop_expired(6.0, 9)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_log_leads_to_the_same_victims_every_time(name: str) -> None:
    runs = []
    for _ in range(2):
        policy = make_policy(name, Limits(30, None))
        for key in range(30):
            policy.insert(new_entry(key, 1 + key % 4, 1.0 + key % 3))
        runs.append([getattr(policy.evict(), "key", None) for _ in range(31)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {*range(30), None}
