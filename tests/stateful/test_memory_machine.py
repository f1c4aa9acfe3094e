"""The memory tier against a dict that remembers everything, under any order of events.

The dict says what may be given: the last value put, while it is not gone and no purge means it.
A roomy tier must give exactly that; a cramped one may have forgotten it, but gives nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from thinkonce.entry import Entry, Meta
from thinkonce.eviction.policy import POLICIES
from thinkonce.selector import Purge, Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.tiers.memory import ENTRY_OVERHEAD, MemoryTier
from thinkonce.tiers.purges import LocalPurges
from thinkonce.tiers.tier import Key

NAMES = st.integers(0, 11)
TAGS = st.sampled_from(["faq", "news", "code"])
SELECTORS = st.one_of(
    st.builds(lambda tag: Selector(tags=(tag,)), TAGS),
    st.builds(lambda name: Selector(key=digest_of(name)), NAMES),
    st.builds(lambda name: Selector(key=digest_of(name)[:4]), NAMES),
    st.just(Selector(namespace="n")),
    st.just(Selector()),
)


def digest_of(name):
    return f"{name:04d}".encode().ljust(32, b".")


def key_of(name):
    return Key(("f", name), digest_of(name))


@dataclass
class Known:
    value: object
    meta: Meta
    gone_at: float
    epoch: int


class MemoryMachine(RuleBasedStateMachine):
    policy = "cost"
    cramped = False

    @initialize()
    def begin(self):
        self.clock = FakeClock()
        self.log = LocalPurges(most=4)
        bounds = (6, 12 * ENTRY_OVERHEAD) if self.cramped else (None, 2**30)
        self.tier = MemoryTier(
            max_entries=bounds[0],
            max_bytes=bounds[1],
            policy=self.policy,
            clock=self.clock,
            purges=self.log,
        )
        self.known: dict[int, Known] = {}
        self.begun: list[tuple[int, int]] = []  # (name, epoch) of calls under way
        self.purges: list[Purge] = []
        self.serial = 0

    def put(self, name, epoch, ttl, kept, tags, size, priority):
        self.serial += 1
        now = self.clock.wall()
        meta = Meta(tags=tags, namespace="n" if size % 2 else "", priority=priority)
        entry = Entry(
            key=None,
            payload=self.serial,
            meta=meta,
            payload_size=size,
            cost=float(size % 5),
            created_at=now,
            expires_at=now + ttl,
            gone_at=now + ttl + kept,
            epoch=epoch,
        )
        entry.digest = digest_of(name)
        dropped = any(purge.concerns(entry) for purge in self.purges)
        self.tier.put(key_of(name), entry)
        if not dropped:
            self.known[name] = Known(self.serial, meta, entry.gone_at, epoch)

    @rule(
        name=NAMES,
        ttl=st.sampled_from([0.5, 3.0, 30.0, inf]),
        kept=st.sampled_from([0.0, 5.0]),
        tags=st.lists(TAGS, max_size=2, unique=True).map(tuple),
        size=st.integers(0, 900),
        priority=st.sampled_from(["low", "medium", "high", "pinned"]),
    )
    def store(self, name, ttl, kept, tags, size, priority):
        self.put(name, self.log.epoch[0], ttl, kept, tags, size, priority)

    @rule(name=NAMES)
    def begin_call(self, name):
        self.begun.append((name, self.log.epoch[0]))

    @rule(tags=st.lists(TAGS, max_size=2, unique=True).map(tuple), size=st.integers(0, 900))
    def end_call(self, tags, size):
        if self.begun:
            name, epoch = self.begun.pop(0)
            if self.log.since(epoch) is not None:
                self.put(name, epoch, 10.0, 0.0, tags, size, "medium")

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.0, 40.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(name=NAMES)
    def get(self, name):
        found = self.tier.get(key_of(name))
        allowed = self.allowed(name)
        if found is None:
            assert self.cramped or allowed is None, f"{name} was forgotten though there was room"
        else:
            assert allowed is not None, f"{name} should be gone"
            assert found.payload == allowed.value, "an outdated answer"

    def allowed(self, name):
        known = self.known.get(name)
        return known if known is not None and known.gone_at > self.clock.wall() else None

    @rule(name=NAMES)
    def delete(self, name):
        held = self.tier.delete(key_of(name))
        known = self.known.pop(name, None)
        assert known is not None or not held

    @rule(selector=SELECTORS, by_another=st.booleans())
    def purge(self, selector, by_another):
        purge, _ = self.log.append(selector)
        self.purges.append(purge)
        if not by_another:
            self.tier.purge(purge)
        for name, known in list(self.known.items()):
            if selector.matches(known.meta, digest_of(name), 0.0, 0.0):
                del self.known[name]
        if self.log.since(self.tier.applied) is None:
            self.known.clear()  # the log is short: what nobody can vouch for is dropped

    @rule(name=NAMES)
    def forget(self, name):
        purge, _ = self.log.append(Selector(key=digest_of(name)))
        self.purges.append(purge)
        reaches = self.log.since(self.tier.applied) is not None
        self.tier.forget(key_of(name), purge)
        self.known.pop(name, None)
        if not reaches:
            self.known.clear()

    @rule(entries=st.integers(1, 12), slots=st.integers(8, 40))
    def resize(self, entries, slots):
        if self.cramped:
            self.tier.resize(entries, slots * ENTRY_OVERHEAD)

    @invariant()
    def holds_its_bounds(self):
        if hasattr(self, "tier"):
            self.tier.check()


def machine(policy, cramped):
    name = f"{policy}{'Cramped' if cramped else 'Roomy'}"
    return type(name, (MemoryMachine,), {"policy": policy, "cramped": cramped})


@pytest.mark.parametrize("cramped", [False, True], ids=["roomy", "cramped"])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_tier_gives_what_was_put_last_and_nothing_else(policy, cramped):
    case = machine(policy, cramped).TestCase
    case.settings = settings(max_examples=10, stateful_step_count=40)
    case("runTest").runTest()
