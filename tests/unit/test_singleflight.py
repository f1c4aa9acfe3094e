"""One call for many askers, inside one process."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaks import nothing_left, until
from thinkonce.clock import Clock
from thinkonce.errors import UpstreamError
from thinkonce.flights.flight import Flight
from thinkonce.flights.singleflight import Fate, Flights, Role


@pytest.fixture(autouse=True)
def leaves_nothing():
    with nothing_left():
        yield


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)


@pytest.fixture
def hands():
    return Hands()


def elsewhere(function, *args):
    """Run `function` in a thread with an empty context, as another request would; its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.Context().run, function, *args).result(20)


def started(function, *args):
    """The same, still running: a future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(contextvars.Context().run, function, *args)
    pool.shutdown(wait=False)
    return future


def leader_of(flights, key="k"):
    """A seat that leads for another request, in a thread that is none of this test's."""
    seat = contextvars.Context().run(flights.join, key)
    assert seat.role is Role.LEAD
    seat.flight.leader.thread = 0
    return seat


def follower_of(flights, key="k"):
    seat = flights.join(key)
    assert seat.role is Role.FOLLOW
    return seat


# -- one call ------------------------------------------------------------------------------


def test_32_threads_on_one_key_make_one_call():
    flights, calls, together = Flights(), [], threading.Barrier(32)

    def ask():
        seat = flights.join("k")
        together.wait(20)
        if seat.role is Role.LEAD:
            calls.append(threading.get_ident())
            until(lambda: len(seat.flight._waiters) == 31, "all others asleep")
            seat.land("answer")
            return "answer"
        return seat.follow().unwrap()

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(lambda _: ask(), range(32))) == {"answer"}
    assert len(calls) == 1
    assert len(flights) == 0, "an ended flight leaves the table at once"


async def test_200_tasks_on_one_key_make_one_call():
    flights, calls = Flights(), []

    async def ask():
        seat = flights.join("k")
        if seat.role is Role.LEAD:
            calls.append(1)
            while len(seat.flight._waiters) < 199:
                await asyncio.sleep(0)
            seat.land("answer")
            return "answer"
        return (await seat.follow_async()).unwrap()

    assert set(await asyncio.gather(*(ask() for _ in range(200)))) == {"answer"}
    assert len(calls) == 1
    assert len(flights) == 0


def test_threads_and_tasks_of_several_loops_follow_one_leader():
    flights = Flights()
    lead = leader_of(flights)

    async def follow_twenty():
        async def follow():
            return (await flights.join("k").follow_async()).unwrap()

        return await asyncio.gather(*(follow() for _ in range(20)))

    loops = [started(lambda: asyncio.run(follow_twenty())) for _ in range(2)]
    threads = [started(lambda: flights.join("k").follow().unwrap()) for _ in range(4)]
    until(lambda: len(lead.flight._waiters) == 44, "44 sleepers")
    lead.land(7)
    assert [future.result(20) for future in loops] == [[7] * 20] * 2
    assert [future.result(20) for future in threads] == [7] * 4


def test_another_key_is_another_call():
    flights = Flights()
    first, second = flights.join("a"), flights.join("b")
    assert (first.role, second.role) == (Role.LEAD, Role.LEAD)
    assert len(flights) == 2
    second.land(2)
    first.land(1)
    assert len(flights) == 0


def test_none_is_a_value():
    flights = Flights()
    lead, follower = leader_of(flights), follower_of(flights)
    lead.land(None)
    landing = follower.follow()
    assert (landing.fate, landing.unwrap()) == (Fate.COALESCED, None)


def test_who_asks_after_the_end_begins_a_new_call():
    flights = Flights()
    flights.join("k").land(1)
    again = flights.join("k")
    assert again.role is Role.LEAD
    again.land(2)


def test_only_the_first_end_counts():
    flights = Flights()
    lead, follower = leader_of(flights), follower_of(flights)
    lead.land(1)
    lead.fail(ValueError())
    lead.abandon()
    lead.publish(b"late")
    assert follower.follow().unwrap() == 1


# -- chunks --------------------------------------------------------------------------------


def test_every_follower_gets_every_chunk_however_late_it_joined():
    flights = Flights()
    lead = leader_of(flights)
    early = started(lambda: list(flights.join("k").chunks()))
    until(lambda: lead.followers == 1)
    for number in range(50):
        lead.publish(number)
    middle = started(lambda: list(flights.join("k").chunks()))
    until(lambda: lead.followers == 2)
    for number in range(50, 100):
        lead.publish(number)
    last = follower_of(flights)
    lead.land("whole")
    assert early.result(20) == middle.result(20) == list(last.chunks()) == list(range(100))
    assert last.landing.unwrap() == "whole"


async def test_tasks_get_chunks_as_they_come_from_another_thread():
    flights = Flights()
    lead = leader_of(flights)
    got, seen = [], asyncio.Event()

    async def read():
        seat = flights.join("k")
        async for chunk in seat.achunks():
            got.append(chunk)
            seen.set()
        return seat.landing.unwrap()

    reader = asyncio.create_task(read())
    for number in range(20):
        await asyncio.wrap_future(started(lead.publish, number))
        await asyncio.wait_for(seen.wait(), 20)
        seen.clear()
        assert got[-1] == number, "a chunk is not held back for the next one"
    await asyncio.wrap_future(started(lead.land, "end"))
    assert await reader == "end"
    assert got == list(range(20))


def test_a_stream_that_dies_under_its_followers_is_an_error_for_them():
    flights = Flights()
    lead, reader, waiter = leader_of(flights), follower_of(flights), follower_of(flights)
    lead.publish("a")
    chunks = reader.chunks()
    assert next(chunks) == "a"
    lead.abandon()
    with pytest.raises(UpstreamError, match="gave no result"):
        next(chunks)
    assert waiter.follow().fate is Fate.LEAD, "who was given nothing may begin anew"
    waiter.land(1)


def test_a_stream_that_dies_before_its_first_chunk_can_be_taken_over():
    flights = Flights()
    lead, reader = leader_of(flights), follower_of(flights)
    lead.abandon()
    assert list(reader.chunks()) == []
    assert (reader.role, reader.landing.fate) == (Role.LEAD, Fate.LEAD)
    reader.land(1)


def test_an_error_after_chunks_reaches_the_reader_after_the_chunks():
    flights = Flights()
    lead, reader = leader_of(flights), follower_of(flights)
    lead.publish("a")
    lead.fail(UpstreamError("boom"))
    chunks = reader.chunks()
    assert next(chunks) == "a"
    with pytest.raises(UpstreamError, match="boom"):
        next(chunks)


def test_beyond_its_bound_the_feed_admits_nobody_new_but_serves_who_keeps_up():
    flights = Flights(max_bytes=100)
    lead, reader = leader_of(flights), follower_of(flights)
    chunks = reader.chunks()
    for number in range(30):
        lead.publish(b"%10d" % number)
        assert int(next(chunks)) == number
        assert lead.flight._kept_bytes <= 100
    late = elsewhere(flights.join, "k")
    assert late.role is Role.THROUGH
    assert late.follow().fate is Fate.THROUGH
    lead.land("whole")
    assert list(chunks) == []
    assert reader.landing.unwrap() == "whole"


def test_who_reads_too_slowly_is_told_so():
    flights = Flights(max_bytes=100)
    lead, idle, slow = leader_of(flights), follower_of(flights), follower_of(flights)
    chunks = slow.chunks()
    lead.publish(b"first")
    assert next(chunks) == b"first"
    for _ in range(30):
        lead.publish(bytes(10))
    assert list(idle.chunks()) == []
    assert idle.landing.fate is Fate.THROUGH, "given nothing: it may call for itself"
    with pytest.raises(UpstreamError, match="too slow"):
        next(chunks)
    lead.land(1)


# -- when the leader does not come through ---------------------------------------------------


def test_all_present_followers_get_the_error_once_and_the_next_asker_calls_anew():
    flights, error = Flights(), UpstreamError("429")
    lead = leader_of(flights)
    futures = [started(lambda: flights.join("k").follow()) for _ in range(5)]
    until(lambda: len(lead.flight._waiters) == 5)
    lead.fail(error)
    landings = [future.result(20) for future in futures]
    assert {landing.fate for landing in landings} == {Fate.FAILED}
    again = flights.join("k")
    assert again.role is Role.LEAD, "nobody later gets an old error"
    again.land(1)


def test_each_follower_raises_an_error_of_its_own():
    flights, error = Flights(), UpstreamError("429")
    lead, follower = leader_of(flights), follower_of(flights)
    lead.fail(error)
    landing = follower.follow()
    raised = []
    for _ in range(2):
        with pytest.raises(UpstreamError, match="429") as info:
            landing.unwrap()
        raised.append(info.value)
    assert raised[0] is not raised[1]
    assert error not in raised


class Picky(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")


def test_an_error_that_cannot_be_copied_is_raised_itself():
    flights, error = Flights(), Picky(1, detail="x")
    lead, follower = leader_of(flights), follower_of(flights)
    lead.fail(error)
    with pytest.raises(Picky) as info:
        follower.follow().unwrap()
    assert info.value is error


async def test_when_the_leading_task_is_cancelled_one_follower_leads_and_the_rest_follow_it():
    flights, calls, may_go = Flights(), [], asyncio.Event()

    async def ask(name):
        seat = flights.join("k")
        if seat.role is Role.FOLLOW:
            landing = await seat.follow_async()
            if landing.fate is not Fate.LEAD:
                return landing.unwrap()
        calls.append(name)
        try:
            await may_go.wait()
        except BaseException as error:
            seat.fail(error)
            raise
        seat.land(f"by {name}")
        return f"by {name}"

    tasks = [asyncio.create_task(ask(name)) for name in range(20)]
    while flights._table.get("k") is None or len(flights._table["k"]._waiters) < 19:
        await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    while len(calls) < 2 or len(flights._table["k"]._waiters) < 18:
        await asyncio.sleep(0)
    may_go.set()
    answers = await asyncio.gather(*tasks[1:])
    assert len(calls) == 2, "one election, one new call"
    assert set(answers) == {f"by {calls[1]}"}


def test_a_leader_that_is_dropped_makes_room_for_a_follower():
    flights = Flights()
    seat = leader_of(flights)
    follower = started(lambda: flights.join("k").follow())
    until(lambda: flights._table["k"].followers == 1)
    del seat
    assert follower.result(20).fate is Fate.LEAD


@pytest.mark.parametrize(
    "end", [asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt(), SystemExit()], ids=repr
)
def test_what_ends_only_the_leader_is_no_answer_to_others(end):
    flights = Flights()
    lead, follower = leader_of(flights), follower_of(flights)
    lead.fail(end)
    assert follower.follow().fate is Fate.LEAD
    follower.land(1)


def test_a_follower_calls_for_itself_when_its_own_time_is_over(hands):
    flights = Flights(clock=hands.clock)
    lead = leader_of(flights)
    future = started(lambda: flights.join("k").follow(timeout=5))
    until(lambda: lead.flight._waiters)
    hands.now += 4.9
    lead.flight.poke()
    until(lambda: lead.flight._waiters)
    assert not future.done()
    hands.now += 0.1
    lead.flight.poke()
    assert future.result(20).fate is Fate.THROUGH
    assert lead.followers == 0
    lead.land(1)


async def test_a_task_calls_for_itself_after_a_lease_of_silence(hands):
    flights = Flights(clock=hands.clock, lease=60)
    lead = leader_of(flights)
    follower = asyncio.create_task(flights.join("k").follow_async())
    while not lead.flight._waiters:
        await asyncio.sleep(0)
    hands.now += 30
    lead.publish("a sign of life")
    hands.now += 59
    lead.flight.poke()
    await asyncio.sleep(0)
    while not lead.flight._waiters:
        await asyncio.sleep(0)
    assert not follower.done(), "the lease counts from the last sign of life"
    hands.now += 1
    lead.flight.poke()
    assert (await follower).fate is Fate.THROUGH
    lead.land(1)


def test_a_leader_that_outlives_its_lease_is_replaced(hands):
    flights = Flights(clock=hands.clock, lease=60)
    hung, follower = leader_of(flights), follower_of(flights)
    hands.now += 60
    fresh = leader_of(flights)
    assert fresh.role is Role.LEAD
    newcomer = follower_of(flights)
    hung.land("late")
    assert follower.follow().unwrap() == "late", "who waited for it may still have it"
    assert len(flights) == 1, "the late end must not end the new call"
    fresh.land("new")
    assert newcomer.follow().unwrap() == "new"


def test_a_leader_that_shows_life_is_not_replaced(hands):
    flights = Flights(clock=hands.clock, lease=60)
    lead = leader_of(flights)
    hands.now += 59
    lead.renew()
    hands.now += 59
    assert elsewhere(flights.join, "k").role is Role.FOLLOW
    lead.land(1)


# -- who must not wait -----------------------------------------------------------------------


def test_a_call_that_asks_for_itself_runs_through():
    flights = Flights()
    lead = flights.join("k")
    assert flights.join("k").role is Role.THROUGH
    lead.land(1)
    again = flights.join("k")
    assert again.role is Role.LEAD, "only while it runs"
    again.land(1)


async def test_tasks_and_threads_of_a_call_know_that_they_are_part_of_it():
    flights = Flights()
    lead = flights.join("k")

    async def child():
        return flights.join("k").role

    assert await asyncio.create_task(child()) is Role.THROUGH
    assert await asyncio.to_thread(lambda: flights.join("k").role) is Role.THROUGH
    await asyncio.get_running_loop().shutdown_default_executor()
    lead.land(1)


def test_a_call_inside_a_call_does_not_end_the_outer_one():
    flights = Flights()
    outer = flights.join("a")
    inner = flights.join("b")
    inner.land(1)
    assert flights.join("a").role is Role.THROUGH
    outer.land(1)
    assert flights.join("b").role is Role.LEAD


async def test_a_blocking_wait_on_the_leaders_loop_runs_through():
    flights, go_on = Flights(), asyncio.Event()

    async def leader():
        seat = flights.join("k")
        await go_on.wait()
        seat.land(1)

    task = asyncio.create_task(leader())
    await asyncio.sleep(0)
    seat = flights.join("k")
    assert seat.role is Role.FOLLOW
    landing = seat.follow()
    assert (landing.fate, seat.role) == (Fate.THROUGH, Role.THROUGH)
    assert "thread" in landing.why
    assert flights._table["k"].followers == 0
    go_on.set()
    await task


def test_a_stream_held_open_in_the_same_thread_is_not_waited_for():
    flights = Flights()

    def stream():
        seat = flights.join("k")
        if seat.role is Role.LEAD:
            seat.publish(1)
            yield 1
            seat.land(2)
        else:
            yield seat.role

    held = stream()
    next(held)
    assert list(stream()) == [Role.THROUGH]
    assert list(held) == []


def test_two_calls_that_ask_for_each_other_do_not_wait_for_each_other():
    flights, both_lead = Flights(), threading.Barrier(2)

    def ask(mine, other):
        seat = flights.join(mine)
        assert seat.role is Role.LEAD
        both_lead.wait(20)
        landing = flights.join(other).follow()
        answer = landing.unwrap() if landing.fate is Fate.COALESCED else f"alone {other}"
        seat.land(f"{mine} with {answer}")
        return landing.fate

    futures = [started(ask, "a", "b"), started(ask, "b", "a")]
    fates = sorted(future.result(20) for future in futures)
    assert fates == [Fate.COALESCED, Fate.THROUGH], "one of them may wait, the other must not"


async def test_a_circle_of_three_tasks_across_two_caches_is_broken_once():
    one, two = Flights(), Flights()
    ring = {"a": (one, "b", two), "b": (two, "c", one), "c": (one, "a", one)}
    leading = asyncio.Barrier(3)

    async def ask(mine):
        mine_in, other, other_in = ring[mine]
        seat = mine_in.join(mine)
        await leading.wait()
        landing = await other_in.join(other).follow_async()
        seat.land(mine)
        return landing.fate

    fates = await asyncio.wait_for(asyncio.gather(*(ask(key) for key in ring)), 20)
    assert sorted(fates) == [Fate.COALESCED, Fate.COALESCED, Fate.THROUGH]


def test_waiting_for_a_call_that_waits_for_a_third_is_no_circle():
    flights = Flights()
    third = leader_of(flights, "c")

    def second():
        seat = flights.join("b")
        seat.land(flights.join("c").follow().unwrap() + 1)

    def first():
        return flights.join("b").follow().unwrap() + 1

    middle = started(second)
    until(lambda: third.followers == 1)
    outer = started(first)
    until(lambda: flights._table["b"].followers == 1)
    third.land(1)
    assert outer.result(20) == 3
    middle.result(20)


def test_a_wait_that_is_over_leaves_no_trace_in_the_wait_graph():
    flights = Flights()
    outer = flights.join("outer")
    other = leader_of(flights, "other")
    future = started(other.flight.wait)
    seat = flights.join("other")
    assert seat.follow(timeout=0).fate is Fate.THROUGH
    assert outer.flight.leader.waits_for == []
    other.land(1)
    future.result(20)
    outer.land(1)


# -- coming and going ------------------------------------------------------------------------


async def test_a_cancelled_follower_no_longer_counts():
    flights = Flights()
    lead = leader_of(flights)
    follower = asyncio.create_task(flights.join("k").follow_async())
    while not lead.flight._waiters:
        await asyncio.sleep(0)
    deserted = threading.Event()
    lead.when_deserted(deserted.set)
    assert not deserted.is_set()
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    assert deserted.is_set(), "the leader may stop a call that nobody waits for"
    assert lead.followers == 0
    assert lead.flight._waiters == []
    lead.abandon()


def test_desertion_is_told_at_once_where_nobody_follows():
    flights, told = Flights(), []
    lead = leader_of(flights)
    lead.when_deserted(lambda: told.append(1))
    assert told == [1]
    lead.land(1)


def test_a_follower_that_never_waits_does_not_count_for_ever():
    flights = Flights()
    lead = leader_of(flights)
    follower_of(flights)
    gc.collect()
    until(lambda: lead.followers == 0, "the dropped seat's leaving")
    lead.land(1)


def test_a_closed_generator_no_longer_counts():
    flights = Flights()
    lead, reader = leader_of(flights), follower_of(flights)
    lead.publish(1)
    chunks = reader.chunks()
    next(chunks)
    chunks.close()
    assert lead.followers == 0
    lead.land(1)


def test_a_follower_whose_loop_is_gone_does_not_disturb_the_leader():
    flights = Flights()
    lead = leader_of(flights)
    loop = asyncio.new_event_loop()
    task = loop.create_task(flights.join("k").follow_async())
    loop.call_soon(loop.stop)
    loop.run_forever()
    elsewhere(lambda: None)
    until(lambda: True)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    waiting = loop.create_task(lead.flight.wait_async())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(lead.flight._waiters) == 1
    loop.close()
    lead.land(1)
    waiting._log_destroy_pending = False  # that it never ends is the point of this test


class Result:
    """Something that can be watched."""


def test_results_and_errors_die_with_their_last_user_not_with_the_garbage_collector():
    flights = Flights()
    gc.collect()
    gc.disable()
    try:

        def lead_and_follow(end):
            lead, follower = leader_of(flights), follower_of(flights)
            future = started(follower.follow)
            end(lead)
            future.result(20)

        def land(lead):
            result = Result()
            watched.append(weakref.ref(result))
            lead.land(result)

        def fail(lead):
            error = UpstreamError("x")
            watched.append(weakref.ref(error))
            lead.fail(error)

        watched = []
        lead_and_follow(land)
        lead_and_follow(fail)
        until(lambda: [ref() for ref in watched] == [None, None], "the end of result and error")
    finally:
        gc.enable()


def test_a_bare_flight_serves_followers_too(hands):
    flight = Flight(clock=hands.clock)
    flight.publish("a")
    assert flight.wait(timeout=0).fate is Fate.THROUGH
    flight.publish("b")
    assert flight.land("ab")
    assert not flight.land("again")
    assert list(flight.chunks()) == ["a", "b"]
    assert flight.wait().unwrap() == "ab"

    async def all_chunks():
        return [chunk async for chunk in flight.achunks()], (await flight.wait_async()).unwrap()

    assert asyncio.run(all_chunks()) == (["a", "b"], "ab")


def test_news_between_a_look_and_the_sleep_are_not_slept_over():
    flight, woken = Flight(), []
    assert flight.take(0) == []
    flight.publish("a")
    assert not flight._register(0, lambda: woken.append("too early"))
    assert flight._register(1, lambda: woken.append("by the end"))
    flight.land("a")
    assert not flight._register(None, lambda: woken.append("too late"))
    assert woken == ["by the end"]


def test_following_twice_says_so():
    flights = Flights()
    lead, follower = leader_of(flights), follower_of(flights)
    lead.land(1)
    follower.follow()
    with pytest.raises(RuntimeError, match="join again"):
        follower.follow()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_begins_with_no_calls_under_way_and_no_held_lock():
    flights = Flights()
    lead = leader_of(flights)
    with flights._lock:  # as if another thread held it at the moment of the fork
        child = os.fork()
        if child == 0:
            status = 1
            try:
                seat = flights.join("k")
                status = 0 if seat.role is Role.LEAD and len(flights) == 1 else 2
                seat.land(1)
                lead.land(1)
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lead.land(1)


# -- leaders whose event loop has stopped --------------------------------------------------------


@pytest.mark.parametrize("close", [False, True], ids=["stopped", "closed"])
def test_a_call_on_a_loop_that_stopped_is_taken_over(close):
    flights, loop = Flights(), asyncio.new_event_loop()

    async def lead():
        return flights.join("k")

    leader = loop.run_until_complete(lead())
    if close:
        loop.close()
    follower = flights.join("k")
    assert follower.follow(20.0).fate is Fate.LEAD
    follower.land("from the one who took over")
    leader.land("too late")
    loop.close()
    assert len(flights) == 0


def test_a_loop_that_stops_while_somebody_waits_is_noticed(monkeypatch):
    monkeypatch.setattr("thinkonce.flights.seat.LOOK_SECONDS", 0.01)
    flights, loop, waiting = Flights(), asyncio.new_event_loop(), threading.Event()
    fates = []

    def follow():
        seat = flights.join("k")
        waiting.set()
        fates.append(seat.follow(20.0).fate)
        seat.abandon()

    thread = threading.Thread(target=follow)

    async def lead():
        seat = flights.join("k")
        thread.start()
        await asyncio.to_thread(waiting.wait, 20.0)
        return seat

    leader = loop.run_until_complete(lead())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    thread.join(20.0)
    assert fates == [Fate.LEAD]
    leader.abandon()


# -- chunks made on demand -----------------------------------------------------------------------


class Demand:
    """A source of chunks that is asked for none."""

    def want(self, count):
        raise AssertionError("nobody wants anything here")

    def deserted(self):
        pass


def test_who_waits_already_looks_again_once_there_is_somebody_to_ask():
    flight = Flight()
    reading = started(flight.read, 0)
    until(lambda: flight._readers, "a reader that waits")
    flight.draw_from(Demand())
    try:
        assert reading.result(20) == [], "it has asked nobody, so it must not sleep on"
    finally:
        flight.land(1)


def test_a_flight_that_has_ended_takes_no_source():
    flight = Flight()
    flight.land(1)
    flight.draw_from(Demand())
    assert flight.source is None
