"""What the flow does with an entry that was found for a question in other words."""

from __future__ import annotations

import asyncio

import pytest

from standins import PATIENCE, DictTier, make_ask, make_setting
from thinkonce.drive import AsyncWorld, BlockingWorld, drive, drive_async
from thinkonce.entry import Entry, Meta
from thinkonce.errors import NotCached
from thinkonce.flights.singleflight import Flights
from thinkonce.flow import answer
from thinkonce.likeness import Hint, Matched
from thinkonce.outcome import Match, Outcome
from thinkonce.testing.clock import FakeClock
from thinkonce.tiers.tier import Key
from thinkonce.world import MEANING

STORED = Key("stored", b"s" * 32)
HINT = Hint(b"p" * 32, "What is the capital of France?")


class Likened:
    """Finds what it is told to, and notes what it is told."""

    def __init__(self, found=None):
        self.found, self.entries = found, []

    def find(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def find_async(self):
        return self.find()

    def hint(self):
        return HINT

    def made(self, entry):
        self.entries.append(entry)


def matched(**how):
    return Matched(STORED, Match.SEMANTIC, 0.97, "Which city is France's capital?", **how)


class Model:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return f"answer {self.calls}"


class Place:
    """A near tier, a far one, and a way to ask."""

    def __init__(self, is_async):
        self.clock, self.failures = FakeClock(), []
        self.near = DictTier("memory", self.clock)
        self.far = DictTier("disk", self.clock, persistent=True)
        self.setting = make_setting([self.near, self.far], self.clock)
        world = AsyncWorld if is_async else BlockingWorld
        self.world = world(self.setting, Flights(clock=self.clock), self._note)
        self.runner = asyncio.Runner() if is_async else None

    def _note(self, tier, error):
        self.failures.append((tier, str(error)))

    def ask(self, call, likeness, **how):
        ask = make_ask(call, **how)
        ask.likeness = likeness
        flow = answer(ask, self.setting)
        if self.runner is None:
            found = drive(flow, self.world)
            self.world.wait_for_renewals(PATIENCE)
            return found
        return self.runner.run(self._to_the_end(flow))

    async def _to_the_end(self, flow):
        found = await drive_async(flow, self.world)
        await self.world.wait_for_renewals(PATIENCE)
        return found

    def store(self, tier, payload="Paris", **how):
        now = self.clock.wall()
        how = {"created_at": now, "expires_at": now + 60, "gone_at": now + 120} | how
        tier.put(STORED, Entry(None, payload, Meta(), STORED.digest, **how))

    def close(self):
        if self.runner is not None:
            self.runner.close()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def place(request):
    made = Place(request.param)
    yield made
    made.close()


def test_an_entry_in_other_words_answers_and_says_how_it_was_found(place):
    place.store(place.near)
    model = Model()
    found = place.ask(model, Likened(matched()))
    assert (found.outcome, found.value, model.calls) == (Outcome.HIT, "Paris", 0)
    assert (found.match, found.similarity, found.tier) == (Match.SEMANTIC, 0.97, "memory")
    assert found.question == "Which city is France's capital?"


def test_an_entry_in_other_words_is_copied_nearer_under_its_own_key(place):
    place.store(place.far)
    found = place.ask(Model(), Likened(matched()))
    assert found.tier == "disk"
    assert place.near.get(STORED).payload == "Paris"


def test_an_equal_request_is_not_compared_by_meaning(place):
    place.ask(Model(), None)
    found = place.ask(Model(), Likened(AssertionError("it was asked")))
    assert (found.outcome, found.match) == (Outcome.HIT, Match.EXACT)
    assert place.failures == []


@pytest.mark.parametrize("age", [61, 121], ids=["expired", "gone"])
def test_an_entry_whose_life_is_over_answers_nobody_in_other_words(place, age):
    place.store(place.near)
    place.clock.advance(age)
    found = place.ask(model := Model(), Likened(matched()))
    assert (found.outcome, model.calls) == (Outcome.MISS, 1)


def test_what_is_found_must_fit_the_callers_max_age(place):
    place.store(place.near)
    place.clock.advance(10)
    found = place.ask(Model(), Likened(matched()), max_age=5)
    assert found.outcome is Outcome.MISS


def test_a_refresh_looks_for_no_other_words(place):
    place.store(place.near)
    found = place.ask(Model(), Likened(matched()), refresh=True)
    assert found.outcome is Outcome.REFRESH


def test_only_if_cached_is_content_with_other_words(place):
    place.store(place.near)
    assert place.ask(Model(), Likened(matched(audit=True)), only_if_cached=True).value == "Paris"
    with pytest.raises(NotCached):
        place.ask(Model(), Likened(None), only_if_cached=True)


def test_an_answer_is_kept_with_its_hint_and_shown_to_who_compares(place):
    likened = Likened(None)
    place.ask(Model(), likened)
    (entry,) = likened.entries
    assert (entry.payload, entry.hint) == ("answer 1", HINT)
    assert all(next(iter(tier.kept.values())).hint == HINT for tier in (place.near, place.far))


def test_an_audited_hit_asks_the_model_behind_the_callers_back(place):
    place.store(place.near)
    likened, model = Likened(matched(audit=True)), Model()
    found = place.ask(model, likened)
    assert (found.outcome, found.value, model.calls) == (Outcome.HIT, "Paris", 1)
    assert [entry.payload for entry in likened.entries] == ["answer 1"]
    assert place.ask(model, likened).value == "answer 1", "stored under its own words now"


def test_an_answer_that_is_not_kept_is_compared_with_nothing(place):
    likened = Likened(None)
    place.ask(Model(), likened, store=False)
    assert likened.entries == []


def test_comparing_that_fails_is_a_miss_and_counted(place):
    found = place.ask(Model(), Likened(RuntimeError("no weights")))
    assert found.outcome is Outcome.MISS
    assert place.failures == [(MEANING, "no weights")]


def test_a_tier_that_fails_for_the_other_entry_is_a_miss(place):
    place.store(place.near)
    place.near.broken = place.far.broken = True
    assert place.ask(Model(), Likened(matched())).outcome is Outcome.MISS
