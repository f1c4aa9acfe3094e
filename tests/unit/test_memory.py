"""The memory tier: bounds, pins, expiry, purges, reasons."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref

import pytest

from standins import PATIENCE, forked, in_threads
from thinkonce.clock import SYSTEM
from thinkonce.entry import Entry, Form, Meta
from thinkonce.errors import ConfigError
from thinkonce.eviction.policy import POLICIES
from thinkonce.outcome import Reason
from thinkonce.selector import Purge, Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.tiers.memory import ENTRY_OVERHEAD, PINNED, MemoryTier
from thinkonce.tiers.purges import LocalPurges
from thinkonce.tiers.tier import Key

ALL = sorted(POLICIES)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=ALL)
def policy(request):
    return request.param


def key(name):
    return Key(("f", name), str(name).encode().ljust(32, b"."))


def entry(clock, *, size=100, ttl=float("inf"), kept=0.0, epoch=0, cost=1.0, **meta):
    now = clock.wall()
    return Entry(
        key=None,
        payload="x",
        meta=Meta(**meta),
        payload_size=size,
        cost=cost,
        created_at=now,
        expires_at=now + ttl,
        gone_at=now + ttl + kept,
        epoch=epoch,
    )


def names(tier):
    return {local[1] for local in tier.map}


def test_what_was_put_is_there(clock, policy):
    tier = MemoryTier(policy=policy, clock=clock)
    put = entry(clock)
    tier.put(key("a"), put)
    assert tier.get(key("a")) is put
    assert tier.get(key("b")) is None
    assert len(tier) == 1
    tier.check()


def test_the_entry_bound_is_never_exceeded(clock, policy):
    tier = MemoryTier(max_entries=5, policy=policy, clock=clock)
    for number in range(50):
        tier.put(key(number), entry(clock))
        tier.check()
        assert len(tier) <= 5
    assert len(tier) == 5
    assert tier.stats().evictions == {Reason.EVICTED: 45}


def test_the_byte_bound_is_never_exceeded(clock, policy):
    bound = 40 * ENTRY_OVERHEAD
    tier = MemoryTier(max_bytes=bound, policy=policy, clock=clock)
    for number in range(200):
        tier.put(key(number), entry(clock, size=(number * 37) % 1000))
        tier.check()
        assert tier.stats().bytes <= bound
    assert tier.stats().bytes > bound / 2


def test_a_key_counts_with_the_texts_in_it(clock):
    tier = MemoryTier(clock=clock)
    prompt = "long " * 10_000
    tier.put(Key(("f", prompt, str), b"d" * 32), entry(clock, size=1))
    assert tier.stats().bytes > sys.getsizeof(prompt)


def test_an_entry_may_take_an_eighth_of_the_space(clock, policy):
    tier = MemoryTier(max_bytes=80_000, policy=policy, clock=clock)
    tier.put(key("a"), entry(clock, size=1000))
    tier.put(key("a"), entry(clock, size=10_001))
    assert tier.get(key("a")) is None, "what the large answer would have replaced is outdated"
    assert tier.why_gone(key("a")) is Reason.TOO_LARGE
    tier.put(key("b"), entry(clock, size=9_000))
    assert tier.get(key("b")) is not None
    tier.check()


def test_a_replacement_takes_the_place_of_the_old_one(clock, policy):
    tier = MemoryTier(policy=policy, clock=clock)
    tier.put(key("a"), entry(clock, size=5000))
    new = entry(clock, size=10)
    tier.put(key("a"), new)
    tier.check()
    assert tier.get(key("a")) is new
    assert tier.stats().bytes == new.size


def test_expired_entries_make_room_before_live_ones(clock, policy):
    tier = MemoryTier(max_entries=3, policy=policy, clock=clock)
    tier.put(key("dear"), entry(clock, ttl=5, kept=1000, cost=1e9))
    tier.put(key("a"), entry(clock))
    tier.put(key("b"), entry(clock))
    clock.advance(5)
    tier.put(key("c"), entry(clock))
    assert names(tier) == {"a", "b", "c"}
    assert tier.why_gone(key("dear")) is Reason.EXPIRED
    tier.check()


def test_an_expired_entry_is_handed_out_until_it_is_gone(clock):
    tier = MemoryTier(clock=clock)
    tier.put(key("a"), entry(clock, ttl=5, kept=10))
    clock.advance(14.99)
    assert tier.get(key("a")) is not None, "freshness is the flow's business"
    clock.advance(0.01)
    assert tier.get(key("a")) is None
    assert tier.why_gone(key("a")) is Reason.EXPIRED
    tier.check()


def test_a_stale_hit_is_no_hit_for_the_policy(clock):
    tier = MemoryTier(policy="cost", clock=clock)
    held = entry(clock, ttl=5, kept=10)
    tier.put(key("a"), held)
    tier.get(key("a"))
    noted = held.hits
    clock.advance(5)
    tier.get(key("a"))
    assert held.hits == noted


# -- pins ----------------------------------------------------------------------------------


def test_pins_stay_while_others_come_and_go(clock, policy):
    tier = MemoryTier(max_entries=10, policy=policy, clock=clock)
    tier.put(key("pin"), entry(clock, priority="pinned", cost=0.0))
    for number in range(100):
        tier.put(key(number), entry(clock, cost=1e6))
    assert "pin" in names(tier)
    tier.check()


def test_pins_take_half_of_the_entries_at_most(clock, policy):
    tier = MemoryTier(max_entries=10, max_bytes=None, policy=policy, clock=clock)
    for number in range(8):
        tier.put(key(number), entry(clock))
    for number in range(20):
        tier.put(key(f"pin {number}"), entry(clock, priority="pinned"))
        tier.check()
    pinned = {local[1] for local, held in tier.map.items() if held.place is PINNED}
    assert pinned == {f"pin {number}" for number in range(5)}, "the first five are pinned"
    for number in range(100, 130):
        tier.put(key(number), entry(clock, cost=1e9))
    assert {f"pin {n}" for n in range(5)} <= names(tier)


def test_pins_take_half_of_the_bytes_at_most(clock):
    bound = 40 * ENTRY_OVERHEAD
    tier = MemoryTier(max_bytes=bound, policy="lru", clock=clock)
    for number in range(40):
        tier.put(key(f"pin {number}"), entry(clock, size=0, priority="pinned"))
    for number in range(100):
        tier.put(key(number), entry(clock, size=0))
    pins = [name for name in names(tier) if str(name).startswith("pin")]
    assert 0 < len(pins) <= 20
    tier.check()


def test_a_pin_ends_with_its_life(clock):
    tier = MemoryTier(max_entries=4, policy="lru", clock=clock)
    tier.put(key("pin"), entry(clock, ttl=5, kept=100, priority="pinned"))
    for number in range(3):
        tier.put(key(number), entry(clock))
    clock.advance(5)
    tier.put(key("new"), entry(clock))
    assert "pin" not in names(tier)
    tier.check()


def test_shrinking_below_the_pins_evicts_them_last(clock, policy):
    tier = MemoryTier(max_entries=10, policy=policy, clock=clock)
    for number in range(5):
        tier.put(key(f"pin {number}"), entry(clock, priority="pinned"))
        tier.put(key(number), entry(clock))
    tier.resize(3, None)
    assert len(tier) == 3
    assert all(str(name).startswith("pin") for name in names(tier))
    tier.check()


# -- bounds change -------------------------------------------------------------------------


def test_resizing_evicts_at_once(clock, policy):
    tier = MemoryTier(max_entries=100, policy=policy, clock=clock)
    for number in range(100):
        tier.put(key(number), entry(clock))
    tier.resize(10, None)
    assert len(tier) == 10
    tier.check()
    tier.resize(1, 20 * ENTRY_OVERHEAD)
    assert len(tier) == 1
    tier.check()


@pytest.mark.parametrize(
    ("entries", "size", "named"),
    [
        (None, None, "max_bytes"),
        (0, None, "max_size"),
        (-1, None, "max_size"),
        (None, 5599, "max_bytes=5599 .* bytes >= 5600"),
    ],
)
def test_bounds_that_cannot_be_are_named(entries, size, named):
    with pytest.raises(ConfigError, match=named):
        MemoryTier(max_entries=entries, max_bytes=size)


def test_an_unknown_policy_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"policy='newest'.*arc \| cost \| lru"):
        MemoryTier(policy="newest")


# -- purges --------------------------------------------------------------------------------


def test_a_purge_takes_what_it_means_and_leaves_the_rest(clock, policy):
    tier = MemoryTier(policy=policy, clock=clock)
    tier.put(key("a"), entry(clock, tags=("faq",)))
    tier.put(key("b"), entry(clock, tags=("news",)))
    purge, _ = tier.purges.append(Selector(tags=("faq",)))
    assert tier.purge(purge) == 1
    assert names(tier) == {"b"}
    assert tier.why_gone(key("a")) is Reason.PURGED
    tier.check()


def test_another_caches_purge_is_applied_before_anything_is_given(clock):
    log = LocalPurges()
    tier = MemoryTier(clock=clock, purges=log)
    tier.put(key("a"), entry(clock, tags=("faq",)))
    log.append(Selector(tags=("faq",)))
    assert tier.get(key("a")) is None
    assert tier.why_gone(key("a")) is Reason.PURGED


def test_a_purge_of_ones_own_does_not_hide_one_of_another(clock):
    log = LocalPurges()
    tier = MemoryTier(clock=clock, purges=log)
    tier.put(key("a"), entry(clock, tags=("faq",)))
    log.append(Selector(tags=("faq",)))  # by somebody else, not seen yet
    tier.purge(log.append(Selector(tags=("news",)))[0])
    assert tier.get(key("a")) is None


def test_a_write_that_began_before_a_purge_is_dropped(clock):
    tier = MemoryTier(clock=clock)
    slow = entry(clock, tags=("faq",), epoch=tier.purges.epoch[0])
    other = entry(clock, tags=("news",), epoch=tier.purges.epoch[0])
    tier.purges.append(Selector(tags=("faq",)))
    tier.put(key("slow"), slow)
    tier.put(key("other"), other)
    assert names(tier) == {"other"}, "only what the purge means is dropped"
    tier.put(key("slow"), entry(clock, tags=("faq",), epoch=tier.purges.epoch[0]))
    assert "slow" in names(tier), "what began after the purge is kept"


def test_a_log_that_no_longer_reaches_back_empties_the_tier(clock):
    log = LocalPurges(most=3)
    tier = MemoryTier(clock=clock, purges=log)
    tier.put(key("a"), entry(clock))
    for _ in range(20):
        log.append(Selector(tags=("other",)))
    assert tier.get(key("a")) is None
    tier.put(key("late"), entry(clock, epoch=0))
    assert tier.get(key("late")) is None, "nobody can say whether a purge meant it"
    tier.put(key("new"), entry(clock, epoch=log.epoch[0]))
    assert tier.get(key("new")) is not None


def test_many_purges_of_one_key_each_are_caught_up_with_at_once(clock):
    log = LocalPurges()
    tier = MemoryTier(clock=clock, purges=log)
    for number in range(200):
        tier.put(key(number), entry(clock))
    for number in range(0, 200, 2):
        log.append(Selector(key=key(number).digest))
    log.append(Selector(key=key(1).digest[:5]))
    tier.catch_up()
    assert names(tier) == {n for n in range(200) if n % 2} - {1} - {
        n for n in range(200) if str(n).ljust(5, ".") == "1...."
    }
    tier.check()


def test_forgetting_one_key_does_not_skip_purges_of_others(clock):
    log = LocalPurges()
    tier = MemoryTier(clock=clock, purges=log)
    tier.put(key("a"), entry(clock, tags=("faq",)))
    tier.put(key("b"), entry(clock))
    log.append(Selector(tags=("faq",)))  # by somebody else, not seen yet
    purge, _ = log.append(Selector(key=key("b").digest))
    assert tier.forget(key("b"), purge)
    assert tier.get(key("a")) is None
    assert not tier.forget(key("b"), purge)


# -- hits ----------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first_also_after_buffered_hits(clock):
    tier = MemoryTier(max_entries=3, policy="lru", clock=clock)
    for name in "abc":
        tier.put(key(name), entry(clock))
    tier.get(key("a"))
    tier.put(key("d"), entry(clock))
    assert names(tier) == {"a", "c", "d"}


def test_the_hit_buffer_is_bounded_and_drained(clock):
    tier = MemoryTier(policy="lru", clock=clock)
    tier.put(key("a"), entry(clock))
    for _ in range(5000):
        tier.get(key("a"))
    assert len(tier.heard) == tier.heard.maxlen
    tier.put(key("b"), entry(clock))
    assert len(tier.heard) == 0


def test_a_purge_does_not_leave_answers_in_the_hit_buffer(clock):
    tier = MemoryTier(policy="lru", clock=clock)

    class Payload:
        pass

    held = entry(clock)
    held.payload, held.form = Payload(), Form.COPIED
    gone = weakref.ref(held.payload)
    tier.put(key("a"), held)
    tier.get(key("a"))
    del held
    tier.purge(tier.purges.append(Selector())[0])
    assert gone() is None


def test_a_dropped_tier_leaves_nothing_behind(policy):
    """Entries are invisible to the collector, so none may be part of a circle."""

    class Payload:
        pass

    tier = MemoryTier(max_entries=50, policy=policy, clock=SYSTEM)
    seen = []
    for number in range(200):
        held = entry(SYSTEM, ttl=100.0 if number % 2 else float("inf"))
        held.payload = Payload()
        seen.append(weakref.ref(held.payload))
        tier.put(key(number % 80), held)
        tier.get(key(number % 7))
    del tier, held
    gc.collect()
    assert [ref for ref in seen if ref() is not None] == []


def test_entries_come_in_order_of_digest(clock):
    tier = MemoryTier(clock=clock)
    for name in "dacb":
        tier.put(key(name), entry(clock, namespace="n"))
    listed = [e.digest[:1] for e in tier.entries(Selector(namespace="n"), 3)]
    assert listed == [b"a", b"b", b"c"]
    after = tier.entries(Selector(), 9, after=key("b").digest)
    assert [e.digest[:1] for e in after] == [b"c", b"d"]


# -- threads and processes -----------------------------------------------------------------


def test_threads_that_write_read_purge_and_resize_keep_every_bound(policy):
    tier = MemoryTier(max_entries=60, max_bytes=60 * 1000, policy=policy, clock=SYSTEM)

    def work(seed):
        def run():
            for turn in range(400):
                name = (turn * 7919 + seed * 31) % 120
                act = (turn + seed) % 10
                if act < 4:
                    meta = {"priority": "pinned"} if name % 9 == 0 else {"tags": (str(name % 5),)}
                    epoch = tier.purges.epoch[0]
                    put = entry(SYSTEM, size=name, ttl=0.01, kept=1, epoch=epoch, **meta)
                    tier.put(key(name), put)
                elif act < 8:
                    tier.get(key(name))
                elif act == 8:
                    tier.purge(tier.purges.append(Selector(tags=(str(name % 5),)))[0])
                else:
                    tier.resize(20 + name % 50, (20 + name) * 1000)
                    tier.delete(key(name + 1))

        return run

    in_threads([work(seed) for seed in range(8)])
    tier.check()
    assert tier.stats().entries == len(tier)


def test_forgetting_a_key_leaves_an_answer_asked_for_after_that_purge(clock):
    tier = MemoryTier(clock=clock)
    tier.put(key("a"), entry(clock, epoch=5))
    assert tier.forget(key("a"), Purge(5, Selector())) is False
    assert names(tier) == {"a"}
    assert tier.forget(key("a"), Purge(6, Selector())) is True
    assert names(tier) == set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_not_stopped_by_a_lock_of_its_parent(clock):
    tier = MemoryTier(clock=clock)
    tier.put(key("a"), entry(clock))
    policy = tier.policy  # as a generated probe holds it
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with tier.lock:
            held.set()
            assert go_on.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)

    def child():
        tier.put(key("b"), entry(clock))
        tier.check()
        return names(tier) == {"b"} and tier.policy is policy

    code = forked(child)
    go_on.set()
    holder.join()
    assert code == 0
    assert names(tier) == {"a"}, "the parent keeps what it had"


def test_tags_and_names_count_in_the_bound(clock):
    tier = MemoryTier(max_bytes=2**20, clock=clock.clock)
    tags = tuple(f"{number:02}" + "\U00010000" * 250 for number in range(16))  # 4 bytes a character
    for name in range(200):
        tier.put(key(name), entry(clock, tags=tags, namespace="n" * 1000, label="l" * 1000))
    assert len(tier) <= 2**20 // (16 * 1000)
    tier.check()


def test_a_few_short_tags_are_part_of_what_an_entry_takes_anyhow(clock):
    tier = MemoryTier(clock=clock.clock)
    tier.put(key("plain"), entry(clock))
    tier.put(key("named"), entry(clock, tags=("faq",), namespace="v1"))
    assert len({held.size for held in tier.map.values()}) == 1
