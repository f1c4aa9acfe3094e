"""What every policy promises the tier that holds the entries, in any order of calls."""

from __future__ import annotations

from typing import ClassVar
from unittest import TestCase

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from thinkonce.entry import Entry
from thinkonce.eviction import POLICIES, Limits, make_policy
from unit.eviction.reference_policies import new_entry, note

BOUNDS = st.one_of(
    st.tuples(st.integers(1, 30), st.none()),
    st.tuples(st.none(), st.integers(1, 300)),
    st.tuples(st.integers(1, 30), st.integers(1, 300)),
)


class PolicyMachine(RuleBasedStateMachine):
    """The model is a dict of what is held: a policy may choose any of it, once."""

    name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(20, None)
        self.policy = make_policy(self.name, self.limits)
        self.held: dict[int, Entry] = {}
        self.gone: list[Entry] = []
        self.floor = 0.0

    @rule(
        key=st.integers(0, 60),
        size=st.integers(0, 40),
        cost=st.floats(0.0, 10.0),
        weight=st.sampled_from([0.25, 1.0, 4.0]),
    )
    def insert_or_replace(self, key: int, size: int, cost: float, weight: float) -> None:
        if key in self.held:
            self.policy.remove(self.held[key])
            self.gone.append(self.held[key])
        self.held[key] = new_entry(key, size, cost, weight)
        self.policy.insert(self.held[key])

    @precondition(lambda self: self.held)
    @rule(data=st.data(), inline=st.booleans())
    def hit(self, data: st.DataObject, inline: bool) -> None:
        entry = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        if inline:
            note(self.policy, entry)
        else:
            self.policy.hit(entry)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        self.policy.remove(entry)
        self.gone.append(entry)

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), removed=st.booleans())
    def late_calls_about_entries_that_left_are_ignored(
        self, data: st.DataObject, removed: bool
    ) -> None:
        entry = data.draw(st.sampled_from(self.gone[-5:]))
        if removed:
            self.policy.remove(entry)
        else:
            self.policy.hit(entry)

    @rule(times=st.integers(1, 5))
    def evict(self, times: int) -> None:
        for _ in range(times):
            victim = self.policy.evict()
            if victim is None:
                assert not self.held, "None only when empty"
                return
            assert self.held.pop(int(str(victim.key))) is victim, "only what is held, and once"
            self.gone.append(victim)

    @rule()
    def make_room(self) -> None:
        while len(self.held) > (self.limits.max_entries or 20):
            self.evict(1)

    @rule(bounds=BOUNDS)
    def change_the_limits(self, bounds: tuple[int | None, int | None]) -> None:
        self.limits.max_entries, self.limits.max_bytes = bounds

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert len(self.policy) == len(self.held)
        self.policy.check()

    @invariant()
    def the_floor_never_falls(self) -> None:
        assert self.policy.floor >= self.floor
        self.floor = self.policy.floor

    def teardown(self) -> None:
        while (victim := self.policy.evict()) is not None:
            assert self.held.pop(int(str(victim.key))) is victim
        assert not self.held, "every entry comes out in the end"
        self.policy.check()


def machine(policy_name: str) -> type[TestCase]:
    """A test case of its own for each policy, so that a failure names it."""

    class Machine(PolicyMachine):
        name = policy_name

    case = Machine.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
    return case


TestArc = machine("arc")
TestCost = machine("cost")
TestLru = machine("lru")
TestS3Fifo = machine("s3fifo")
TestSieve = machine("sieve")


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_has_a_machine(name: str) -> None:
    cases = {case.lower() for case in globals() if case.startswith("Test")}
    assert f"test{name}" in cases, "add its machine above"
