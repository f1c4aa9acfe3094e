"""The life of a request, with tiers of a dict each, carried out by both drivers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from standins import PATIENCE, DictTier, in_threads, make_ask, make_setting, settle
from thinkonce.drive import AsyncWorld, BlockingWorld, drive, drive_async
from thinkonce.entry import Entry, Meta
from thinkonce.errors import NotCached, TierError
from thinkonce.flights.singleflight import Fate, Flights, Landing
from thinkonce.flow import answer
from thinkonce.outcome import Outcome, Reason
from thinkonce.steps import CallModel, Follow, Join, Made
from thinkonce.testing.clock import FakeClock


class Blocking:
    """Runs a flow to its end in this thread."""

    def __init__(self, setting, flights):
        self.failures = []
        self.world = BlockingWorld(setting, flights, self._note)

    def _note(self, tier, error):
        self.failures.append((tier, str(error)))

    def run(self, flow):
        return drive(flow, self.world)

    def ask(self, call, **how):
        return self.run(answer(make_ask(call, **how), self.world.setting))

    def renewed(self):
        self.world.wait_for_renewals(PATIENCE)

    def close(self):
        self.renewed()


class OnLoop(Blocking):
    """Runs a flow to its end on an event loop of its own."""

    def __init__(self, setting, flights):
        super().__init__(setting, flights)
        self.world = AsyncWorld(setting, flights, self._note)
        self.runner = asyncio.Runner()

    def run(self, flow):
        here = contextvars.copy_context()
        return self.runner.run(drive_async(flow, self.world), context=here)

    def renewed(self):
        self.runner.run(self.world.wait_for_renewals(PATIENCE))

    def close(self):
        self.renewed()
        self.runner.close()


@pytest.fixture(params=[Blocking, OnLoop], ids=["sync", "async"])
def made(request):
    """Makes runners; closes them all."""
    runners = []

    def make(setting):
        runners.append(request.param(setting, Flights(clock=setting.clock)))
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def near(clock):
    return DictTier("memory", clock)


@pytest.fixture
def far(clock):
    return DictTier("disk", clock, persistent=True)


class Model:
    """Answers with the number of its call, or fails."""

    def __init__(self, clock=None, seconds=0.0):
        self.calls, self.failure = 0, None
        self.clock, self.seconds = clock, seconds

    def __call__(self):
        self.calls += 1
        if self.seconds:
            self.clock.advance(self.seconds)
        if self.failure is not None:
            raise self.failure
        return f"answer {self.calls}"


def never():
    raise AssertionError("the model must not be asked")


# -- hits and misses -----------------------------------------------------------------------


def test_the_second_time_is_a_hit(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    first, second = runner.ask(model), runner.ask(never)
    assert (first.outcome, first.reason, first.value) == (Outcome.MISS, Reason.NEW, "answer 1")
    assert (second.outcome, second.reason, second.value) == (Outcome.HIT, None, "answer 1")
    assert (second.tier, second.match) == ("memory", "exact")


def test_an_entry_is_dead_at_its_expiry_not_after_it(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    runner.ask(model)
    clock.advance(9.999)
    assert runner.ask(never).outcome is Outcome.HIT
    clock.advance(0.001)
    assert runner.ask(model).outcome is Outcome.MISS


def test_a_far_hit_is_copied_near_and_keeps_its_expiry(made, clock, near, far):
    runner = made(make_setting([near, far], clock))
    runner.ask(Model())
    born = near.kept.popitem()[1].expires_at
    clock.advance(4)
    assert runner.ask(never).tier == "disk"
    (copied,) = near.kept.values()
    assert copied.expires_at == born, "copying must not prolong the life"
    assert runner.ask(never).tier == "memory"


def test_a_far_hit_survives_purges_older_than_the_request(made, clock, near, far):
    runner = made(make_setting([near, far], clock))
    runner.ask(Model(), epoch=3)
    near.kept.clear()
    runner.ask(never, epoch=500)
    (copied,) = near.kept.values()
    assert copied.epoch == 500, "the far tier has applied all purges up to the request"


def test_a_miss_is_kept_in_every_tier(made, clock, near, far):
    made(make_setting([near, far], clock)).ask(Model(), epoch=7)
    for tier in (near, far):
        (entry,) = tier.kept.values()
        assert (entry.payload, entry.epoch) == ("answer 1", 7)


def test_none_is_an_answer_like_any_other(made, clock, near):
    runner = made(make_setting([near], clock))
    runner.ask(lambda: None)
    again = runner.ask(never)
    assert (again.outcome, again.value) == (Outcome.HIT, None)


def test_the_reason_of_a_miss_is_what_the_tiers_remember(made, clock, near):
    setting = make_setting([near], clock)
    object.__setattr__(setting, "why_gone", lambda key: Reason.EVICTED)
    assert made(setting).ask(Model()).reason is Reason.EVICTED


# -- tiers that fail -----------------------------------------------------------------------


def test_a_broken_tier_is_a_miss_and_is_told_of(made, clock, near, far):
    near.broken = True
    runner = made(make_setting([near, far], clock))
    result = runner.ask(Model())
    assert (result.outcome, result.reason, result.value) == (
        Outcome.MISS,
        Reason.TIER_ERROR,
        "answer 1",
    )
    assert {tier for tier, _ in runner.failures} == {"memory"}
    assert "tier 'memory' failed while reading" in runner.failures[0][1]
    assert runner.ask(never).tier == "disk", "the other tier serves on"


def test_any_exception_of_a_tier_counts_as_its_failure(made, clock, near):
    near.get = lambda key: 1 / 0
    assert made(make_setting([near], clock)).ask(Model()).reason is Reason.TIER_ERROR


def test_a_tier_error_out_of_the_model_is_the_models_failure(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    model.failure = TierError("somebody else's redis", "reading")
    with pytest.raises(TierError):
        runner.ask(model)
    assert runner.failures == [], "only the flow's own tiers may fail silently"
    assert near.kept == {}


def test_broken_flights_cost_coalescing_and_nothing_else(made, clock, near):
    runner = made(make_setting([near], clock))
    runner.world.flights.join = lambda key, digest: 1 / 0
    assert runner.ask(Model()).value == "answer 1"
    assert [tier for tier, _ in runner.failures] == ["flights"]


# -- bypass --------------------------------------------------------------------------------


def test_a_request_without_a_key_touches_no_tier(made, clock, near):
    near.broken = True
    runner = made(make_setting([near], clock))
    ask = make_ask(Model(), key=None)
    ask.bypass = Reason.UNKEYABLE
    result = runner.run(answer(ask, runner.world.setting))
    assert (result.outcome, result.reason, result.value) == (
        Outcome.BYPASS,
        Reason.UNKEYABLE,
        "answer 1",
    )
    assert near.touched == []


# -- the model fails -----------------------------------------------------------------------


def test_a_model_failure_is_not_remembered(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    model.failure = TimeoutError("slow")
    with pytest.raises(TimeoutError):
        runner.ask(model)
    assert near.kept == {}
    model.failure = None
    assert runner.ask(model).value == "answer 2"


def test_the_flow_hears_of_a_model_failure_and_may_answer_it(made, clock):
    heard = []

    def careful():
        try:
            yield CallModel(make_ask(lambda: 1 / 0))
        except BaseException as error:
            heard.append(type(error))
        return (yield CallModel(make_ask(lambda: "something else")))

    assert made(make_setting([], clock)).run(careful()) == "something else"
    assert heard == [ZeroDivisionError], "GeneratorExit here means the driver dropped the flow"


def test_a_model_that_raises_stop_iteration_does_not_end_the_flow(clock):
    runner = Blocking(make_setting([], clock), Flights(clock=clock))
    with pytest.raises(RuntimeError, match="StopIteration"):
        runner.ask(lambda: next(iter([])))


def test_a_failure_leaves_nothing_for_the_collector(made, clock, near):
    runner = made(make_setting([near], clock))

    class Large:
        pass

    def model():
        large = Large()
        seen.append(weakref.ref(large))
        raise TimeoutError

    seen = []
    gc.disable()
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                runner.ask(model)
        settled = [ref() for ref in seen]
    finally:
        gc.enable()
    if isinstance(runner, OnLoop):
        return  # asyncio's own futures keep the last failure for a turn
    assert settled == [None, None], "the driver's frame must not hold its own traceback"


def test_a_stale_answer_stands_in_for_a_failing_model(made, clock, near):
    runner, model = made(make_setting([near], clock, stale_if_error=60)), Model()
    runner.ask(model)
    model.failure = ConnectionError("down")
    clock.advance(10)
    result = runner.ask(model)
    assert (result.outcome, result.reason, result.value) == (
        Outcome.STALE,
        Reason.EXPIRED,
        "answer 1",
    )
    clock.advance(60)
    with pytest.raises(ConnectionError):
        runner.ask(model)


def test_a_live_answer_too_old_for_the_caller_stands_in_only_where_stale_may(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    runner.ask(model)
    clock.advance(5)
    model.failure = ConnectionError("down")
    with pytest.raises(ConnectionError):
        runner.ask(model, max_age=2.0)
    assert runner.ask(model, max_age=2.0, stale_if_error=5.0).outcome is Outcome.STALE


# -- what the caller says ------------------------------------------------------------------


def test_only_if_cached_never_asks_the_model(made, clock, near, caplog):
    runner = made(make_setting([near], clock, stale_while_revalidate=60))
    with pytest.raises(NotCached, match="new"):
        runner.ask(never, only_if_cached=True)
    runner.ask(Model())
    assert runner.ask(never, only_if_cached=True).outcome is Outcome.HIT
    clock.advance(11)
    assert runner.ask(never, only_if_cached=True).outcome is Outcome.STALE
    runner.renewed()
    assert runner.ask(never, only_if_cached=True).value == "answer 1"
    assert not caplog.records, "no renewal was tried either"


def test_max_age_and_min_fresh_refuse_what_others_may_have(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    runner.ask(model)
    clock.advance(5)
    assert runner.ask(never, max_age=5.0).outcome is Outcome.HIT
    assert runner.ask(never, min_fresh=5.0).outcome is Outcome.HIT
    too_old = runner.ask(model, max_age=4.9)
    assert (too_old.outcome, too_old.reason) == (Outcome.MISS, Reason.TOO_OLD)
    clock.advance(6)
    assert runner.ask(model, min_fresh=4.1).reason is Reason.TOO_OLD


def test_max_stale_accepts_what_has_expired(made, clock, near):
    runner, model = made(make_setting([near], clock, retention=100)), Model()
    runner.ask(model)
    clock.advance(15)
    assert runner.ask(never, max_stale=5.1, only_if_cached=True).outcome is Outcome.STALE
    assert runner.ask(model, max_stale=5.0).outcome is Outcome.MISS


def test_refresh_skips_the_read_and_stores(made, clock, near):
    runner, model = made(make_setting([near], clock)), Model()
    runner.ask(model)
    result = runner.ask(model, refresh=True)
    assert (result.outcome, result.reason, result.value) == (
        Outcome.REFRESH,
        Reason.REFRESHED,
        "answer 2",
    )
    assert runner.ask(never).value == "answer 2"


def test_no_store_gives_the_answer_and_keeps_nothing(made, clock, near):
    result = made(make_setting([near], clock)).ask(Model(), store=False)
    assert (result.outcome, result.refused) == (Outcome.MISS, Reason.NO_STORE)
    assert near.kept == {}


def test_a_life_of_zero_seconds_is_not_stored(made, clock, near):
    result = made(make_setting([near], clock)).ask(Model(), ttl=0.0)
    assert (result.value, result.refused) == ("answer 1", Reason.TTL_ZERO)
    assert near.kept == {}


# -- renewals ------------------------------------------------------------------------------


def test_a_stale_answer_is_given_while_one_renewal_runs(made, clock, near):
    runner, model = made(make_setting([near], clock, stale_while_revalidate=60)), Model()
    runner.ask(model)
    clock.advance(10)
    result = runner.ask(model)
    assert (result.outcome, result.value) == (Outcome.STALE, "answer 1")
    runner.renewed()
    assert model.calls == 2
    assert (runner.ask(never).value, model.calls) == ("answer 2", 2)


def test_a_renewal_is_made_once_however_many_ask(clock, near):
    runner = Blocking(make_setting([near], clock, stale_while_revalidate=60), Flights(clock=clock))
    runner.ask(lambda: "old")
    clock.advance(10)
    go_on, calls = threading.Event(), []

    def slow():
        calls.append(1)
        assert go_on.wait(PATIENCE)
        return "new"

    for _ in range(20):
        assert runner.ask(slow).outcome is Outcome.STALE
    assert len(runner.world.renewals) == 1, "a renewal that is under way is not begun again"
    go_on.set()
    runner.renewed()
    assert len(calls) == 1
    assert runner.ask(never).value == "new"


def test_a_renewal_that_fails_leaves_the_old_answer_and_says_so(made, clock, near, caplog):
    runner, model = made(make_setting([near], clock, stale_while_revalidate=60)), Model()
    runner.ask(model)
    clock.advance(10)
    model.failure = ConnectionError("down")
    runner.ask(model)
    runner.renewed()
    assert runner.ask(never, only_if_cached=True).value == "answer 1"
    assert ": renewal failed: ConnectionError: down" in caplog.text


def test_a_renewal_sees_the_context_of_who_asked(made, clock, near):
    who = contextvars.ContextVar("who", default="nobody")
    runner = made(make_setting([near], clock, stale_while_revalidate=60))
    runner.ask(lambda: who.get())
    clock.advance(10)
    token = who.set("somebody")
    try:
        contextvars.copy_context().run(runner.ask, who.get)
    finally:
        who.reset(token)
    runner.renewed()
    expected = (
        "somebody" if isinstance(runner, Blocking) and not isinstance(runner, OnLoop) else None
    )
    if expected:  # asyncio.Runner runs everything in a context of its own
        assert runner.ask(never).value == expected


def test_no_renewal_begins_after_the_close(made, clock, near):
    runner = made(make_setting([near], clock, stale_while_revalidate=60))
    runner.ask(Model())
    clock.advance(10)
    runner.world.closed = True
    assert runner.ask(never).outcome is Outcome.STALE
    assert not runner.world.renewals


def test_without_threads_to_be_had_the_old_answer_is_given_all_the_same(
    clock, near, monkeypatch, caplog
):
    runner = Blocking(make_setting([near], clock, stale_while_revalidate=60), Flights(clock=clock))
    runner.ask(Model())
    clock.advance(10)

    def no_more(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert runner.ask(never).outcome is Outcome.STALE
    assert not runner.world.renewals
    assert "renewal not begun" in caplog.text


def test_an_answer_that_was_dear_is_renewed_early_by_chance(made, clock, near):
    # XFetch: renew when -delta * beta * ln(U) >= time left; here 2 s * 1 * ln(1/U) >= left.
    chances = iter([])
    setting = make_setting([near], clock, early_refresh=1.0, chance=lambda: next(chances))
    runner, model = made(setting), Model(clock, seconds=2.0)
    chances = iter([0.0])  # the first look finds nothing; one chance goes to the jitter
    runner.ask(model)
    clock.advance(8.0)  # 2 s left: exp(-1) = 0.37 of all askers renew
    chances = iter([1 - 0.38])
    assert runner.ask(model).outcome is Outcome.HIT
    runner.renewed()
    assert model.calls == 1, "U = 0.38 is not early enough"
    chances = iter([1 - 0.36, 0.0])
    result = runner.ask(model)
    assert (result.outcome, result.value) == (Outcome.HIT, "answer 1")
    runner.renewed()
    assert model.calls == 2


def test_early_refresh_of_zero_never_renews(made, clock, near):
    runner, model = made(make_setting([near], clock, chance=lambda: 0.999999)), Model(clock, 2.0)
    runner.ask(model)
    clock.advance(9.99)
    runner.ask(never)
    runner.renewed()
    assert model.calls == 1


# -- one call for many ----------------------------------------------------------------------


def test_threads_that_ask_together_make_one_call(clock, near):
    runner = Blocking(make_setting([near], clock), Flights(clock=clock))
    gate, calls = threading.Barrier(32), []

    def ask():
        gate.wait(PATIENCE)
        return runner.ask(lambda: calls.append(1) or "the answer")

    answers = in_threads([ask] * 32)
    assert len(calls) == 1
    assert {a.value for a in answers} == {"the answer"}
    assert [a.outcome for a in answers].count(Outcome.MISS) == 1


async def test_tasks_that_ask_together_make_one_call(clock, near):
    setting = make_setting([near], clock)
    world = AsyncWorld(setting, Flights(clock=clock), lambda tier, error: None)
    go_on, calls = asyncio.Event(), []

    async def model():
        calls.append(1)
        await go_on.wait()
        return "the answer"

    asks = [
        asyncio.ensure_future(drive_async(answer(make_ask(model), setting), world))
        for _ in range(200)
    ]
    await settle()
    go_on.set()
    answers = await asyncio.gather(*asks)
    assert len(calls) == 1
    outcomes = [a.outcome for a in answers]
    assert (outcomes.count(Outcome.MISS), outcomes.count(Outcome.COALESCED)) == (1, 199)


async def test_followers_get_the_leaders_error_and_the_next_asker_a_new_call(clock, near):
    setting = make_setting([near], clock)
    world = AsyncWorld(setting, Flights(clock=clock), lambda tier, error: None)
    go_on, calls = asyncio.Event(), []

    async def model():
        calls.append(1)
        await go_on.wait()
        raise ConnectionError("down")

    def ask(call):
        return drive_async(answer(make_ask(call), setting), world)

    asks = [asyncio.ensure_future(ask(model)) for _ in range(3)]
    await settle()
    go_on.set()
    errors = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionError] * 3
    assert len({id(error) for error in errors}) == 3, "tracebacks of many tasks must not mix"
    assert len(calls) == 1
    assert (await ask(lambda: "back")).value == "back"


async def test_a_cancelled_leader_hands_over_to_a_follower(clock, near):
    setting = make_setting([near], clock)
    world = AsyncWorld(setting, Flights(clock=clock), lambda tier, error: None)
    never_set = asyncio.Event()

    def ask(call):
        return asyncio.ensure_future(drive_async(answer(make_ask(call), setting), world))

    leader = ask(never_set.wait)
    await settle()
    follower = ask(lambda: "from the follower's own call")
    await settle()
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert (await follower).value == "from the follower's own call"
    assert len(world.flights) == 0


async def test_a_cancelled_follower_hurts_nobody(clock, near):
    setting = make_setting([near], clock)
    world = AsyncWorld(setting, Flights(clock=clock), lambda tier, error: None)
    go_on = asyncio.Event()

    async def model():
        await go_on.wait()
        return "the answer"

    def ask():
        return asyncio.ensure_future(drive_async(answer(make_ask(model), setting), world))

    leader, cancelled, follower = ask(), ask(), ask()
    await settle()
    cancelled.cancel()
    await settle()
    go_on.set()
    assert (await leader).value == (await follower).value == "the answer"


def test_whoever_leads_looks_again_first(clock, near):
    """Between a look and the lead, another caller may have stored the answer."""
    runner = Blocking(make_setting([near], clock), Flights(clock=clock))
    join = runner.world.flights.join

    def late_join(key, digest):
        runner.world.flights.join = join
        runner.ask(lambda: "stored meanwhile")
        return join(key, digest)

    runner.world.flights.join = late_join
    result = runner.ask(never)
    assert (result.outcome, result.value) == (Outcome.HIT, "stored meanwhile")


def test_a_follower_does_not_take_an_answer_that_was_purged_before_it_asked(clock, near):
    """The leader began under epoch 0, then came purge 1, then the follower asked."""
    purged = []
    setting = make_setting([near], clock, purged=lambda e: e.epoch < 1 and purged.append(e) is None)
    runner = Blocking(setting, Flights(clock=clock))
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert go_on.wait(PATIENCE)
        return "from before the purge"

    def later():
        assert begun.wait(PATIENCE)
        join = runner.world.flights.join

        def joined(key, digest):
            seat = join(key, digest)
            go_on.set()
            return seat

        runner.world.flights.join = joined
        near.get = lambda key: None  # what the purge does to the tier
        return runner.ask(lambda: "from after the purge", epoch=1)

    before, after = in_threads([lambda: runner.ask(slow), later])
    assert before.value == "from before the purge"
    assert (after.value, after.outcome) == ("from after the purge", Outcome.MISS)
    assert purged


# -- answers that were complete before they were asked for --------------------------------------


def after_following(ask, setting, entry, *, refused=None):
    """The step that `ask` takes next, or the answer, once it followed a call that made `entry`."""
    flights = Flights()
    leader = contextvars.Context().run(flights.join, ask.key.local)
    flow = answer(ask, setting)
    step = next(flow)
    while not isinstance(step, Join):
        step = flow.send(None)
    step = flow.send(flights.join(ask.key.local))
    assert isinstance(step, Follow)
    try:
        return flow.send(Landing(Fate.COALESCED, Made(None, entry, refused)))
    except StopIteration as done:
        return done.value
    finally:
        leader.abandon()


def test_an_answer_complete_before_the_request_is_as_good_as_a_hit(clock, near):
    ask, setting = make_ask(never), make_setting([near], clock)
    old = Entry(key=None, payload="old", meta=Meta(), created_at=clock.wall() - 1)
    assert after_following(ask, setting, old).outcome is Outcome.COALESCED


@pytest.mark.parametrize("why", ["a refresh wants a new one", "it was not to be kept"])
def test_but_not_where_a_look_up_could_not_have_found_it(clock, near, why):
    refresh = why.startswith("a refresh")
    ask = make_ask(never, refresh=refresh)
    refused = None if refresh else Reason.LENGTH
    setting = make_setting([near], clock)
    old = Entry(key=None, payload="old", meta=Meta(), created_at=clock.wall() - 1)
    new = Entry(key=None, payload="new", meta=Meta(), created_at=clock.wall())
    assert isinstance(after_following(ask, setting, old, refused=refused), Join)
    assert after_following(ask, setting, new, refused=refused).outcome is Outcome.COALESCED


@pytest.mark.parametrize(
    ("lived", "controls"),
    [(10.0, {}), (1000.0, {"max_age": 9.0}), (20.0, {"min_fresh": 11.0})],
    ids=["expired", "older than allowed", "with too little life left"],
)
def test_nor_where_a_look_up_would_not_have_found_it_good_enough(clock, near, lived, controls):
    ask, setting = make_ask(never, **controls), make_setting([near], clock)
    made_at = clock.wall() - 10
    old = Entry(key=None, payload="", meta=Meta(), created_at=made_at, expires_at=made_at + lived)
    assert isinstance(after_following(ask, setting, old), Join)
    old.created_at, old.expires_at = clock.wall() - 8, clock.wall() + 12
    assert after_following(ask, setting, old).outcome is Outcome.COALESCED
