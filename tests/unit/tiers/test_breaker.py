"""A tier that fails is left alone, tried again, and taken back; with the fakes for doing so."""

import logging
import threading

import pytest

import thinkonce.testing
from thinkonce.errors import CorruptEntry, TierError
from thinkonce.selector import Purge, Selector
from thinkonce.testing import FakeClock, FlakyTier, SlowTier
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers.breaker import Breaker
from thinkonce.tiers.memory import MemoryTier


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flaky(clock):
    return FlakyTier(MemoryTier(clock=clock.clock))


@pytest.fixture
def breaker(flaky, clock):
    return Breaker(flaky, clock.clock)


def failing_gets(breaker, times):
    for _ in range(times):
        with pytest.raises(TierError):
            breaker.get(key_of("a"))


def test_after_five_failures_in_a_row_the_tier_is_not_asked(breaker, flaky, caplog):
    flaky.broken.add("get")
    with caplog.at_level(logging.WARNING, "thinkonce"):
        failing_gets(breaker, 8)
    assert flaky.failures == 5, "three calls failed without reaching the tier"
    assert [record.getMessage() for record in caplog.records] == [
        "tier 'memory' (reading) switched off for now: "
        "tier 'memory' failed while get: a test asked for it"
    ]


def test_a_success_in_between_starts_the_count_anew(breaker, flaky):
    for _ in range(3):
        flaky.fail_next(4)
        failing_gets(breaker, 4)
        assert breaker.get(key_of("a")) is None
    assert not breaker.reading.is_open


def test_one_call_probes_after_the_pause_and_a_failure_waits_again(breaker, flaky, clock):
    flaky.broken.add("get")
    failing_gets(breaker, 5)
    clock.advance(5)
    failing_gets(breaker, 3)
    assert flaky.failures == 6, "one probe in a pause, however many ask"


def test_a_probe_that_succeeds_takes_the_tier_back(breaker, flaky, clock, caplog):
    flaky.broken.add("get")
    failing_gets(breaker, 5)
    flaky.broken.clear()
    failing_gets(breaker, 1)
    clock.advance(5)
    with caplog.at_level(logging.WARNING, "thinkonce"):
        assert breaker.get(key_of("a")) is None
    assert "works again" in caplog.text
    assert breaker.get(key_of("a")) is None


def test_reading_goes_on_while_writing_is_switched_off(breaker, flaky, clock):
    breaker.put(key_of("a"), entry_of(clock, "kept"))
    flaky.broken.add("put")
    for _ in range(7):
        with pytest.raises(TierError):
            breaker.put(key_of("b"), entry_of(clock))
    assert breaker.writing.is_open
    assert answer_of(breaker.get(key_of("a"))) == "kept"


def test_purges_and_deletions_are_never_skipped(breaker, flaky, clock):
    breaker.put(key_of("a"), entry_of(clock))
    flaky.broken |= {"get", "put"}
    failing_gets(breaker, 6)
    assert breaker.delete(key_of("a")) is True
    assert breaker.purge(Purge(1, Selector())) == 0
    assert breaker.stats().errors == 0, "whoever asked was told"


def test_one_corrupt_entry_says_nothing_against_the_tier(breaker, flaky, monkeypatch):
    def corrupt(key):
        raise CorruptEntry("memory", "checking an entry")

    monkeypatch.setattr(flaky, "get", corrupt)
    failing_gets(breaker, 10)
    assert not breaker.reading.is_open


def test_a_breaker_passes_everything_else_on(breaker, clock):
    breaker.put(key_of("a"), entry_of(clock, 1))
    assert [answer_of(entry) for entry in breaker.entries(Selector(), 5)] == [1]
    assert breaker.flush(1.0)
    assert (breaker.name, breaker.persistent, breaker.stats().entries) == ("memory", False, 1)
    breaker.close()


def test_a_slow_tier_waits_for_its_release(clock):
    slow = SlowTier(MemoryTier(clock=clock.clock), "get")
    slow.hold()
    found = []
    asker = threading.Thread(target=lambda: found.append(slow.get(key_of("a"))))
    asker.start()
    slow.wait_for(1)
    assert found == []
    slow.put(key_of("a"), entry_of(clock, "in time"))
    slow.release()
    asker.join()
    assert answer_of(found[0]) == "in time"


def test_a_fake_clock_moves_only_when_told(clock):
    wall, monotonic = clock.clock.wall(), clock.clock.monotonic()
    clock.advance(2.5)
    clock.jump_wall(-60)
    assert (clock.clock.wall() - wall, clock.clock.monotonic() - monotonic) == (-57.5, 2.5)
    with pytest.raises(ValueError, match="jump_wall"):
        clock.advance(-1)


def test_the_names_of_testing_are_there_when_asked_for():
    for name in thinkonce.testing.__all__:
        assert getattr(thinkonce.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = thinkonce.testing.nonsense
