"""Generators that are recorded, shared while they run, and replayed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from leaks import until
from standins import PATIENCE, in_threads, settle
from thinkonce import Cache, UpstreamError, cached
from thinkonce.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


class Source:
    """A generator's body that tells what became of it."""

    def __init__(self, *items):
        self.items, self.begun, self.closed, self.given = items, 0, 0, 0

    def __call__(self, prompt):
        self.begun += 1
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                self.given += 1
                yield item
        finally:
            self.closed += 1


def streaming(source):
    def ask(prompt):
        yield from source(prompt)

    return ask


# -- recording and replaying -----------------------------------------------------------------


def test_a_stream_is_replayed_item_by_item(way):
    source = Source("a", "b", None)
    ask = way.cached(streaming(source))
    assert [way.call(ask, "hi") for _ in range(3)] == [["a", "b", None]] * 3
    assert source.begun == 1
    stats = ask.cache_stats()
    assert (stats["misses"], stats["hits"]) == (1, 2)


def test_an_empty_stream_is_an_answer(way):
    source = Source()
    ask = way.cached(streaming(source))
    assert way.call(ask, "hi") == way.call(ask, "hi") == []
    assert source.begun == 1


def test_a_failing_stream_is_not_recorded(way):
    source = Source("a", ConnectionError("lost"))
    ask = way.cached(streaming(source))
    for _ in range(2):
        with pytest.raises(ConnectionError, match="lost"):
            way.call(ask, "hi")
    assert source.begun == 2
    assert ask.cache_stats()["total_items"] == 0


def test_a_condition_sees_all_items(way):
    seen = []
    ask = way.cached(streaming(Source("a", "b")), condition=lambda items: seen.append(items))
    way.call(ask, "hi")
    assert seen == [["a", "b"]]
    assert ask.cache_stats()["total_items"] == 0


def test_arguments_without_a_form_stream_uncached(way):
    source = Source("a")
    ask = way.cached(streaming(source))
    thing = object()
    assert way.call(ask, thing) == way.call(ask, thing) == ["a"]
    assert source.begun == 2
    assert ask.cache_stats()["bypassed"] == 2


def test_no_reader_can_change_what_others_get(way):
    ask = way.cached(streaming(Source({"parts": ["a"]}, {"parts": ["b"]})))
    for _ in range(3):
        items = way.call(ask, "hi")
        assert items == [{"parts": ["a"]}, {"parts": ["b"]}]
        for item in items:
            item["parts"].append("poison")


def test_changing_an_item_before_the_next_comes_does_not_change_the_record():
    @cached
    def ask(prompt):
        yield ["a"]
        yield ["b"]

    for item in ask("hi"):
        item.append("poison")
    assert list(ask("hi")) == [["a"], ["b"]]


def test_refreshing_a_stream_records_it_anew(way):
    source = Source("a")
    ask = way.cached(streaming(source))
    way.call(ask, "hi")
    source.items = ("b",)
    assert way.run(ask.refresh("hi")) == ["b"]
    assert way.call(ask, "hi") == ["b"]


def test_a_record_that_cannot_be_rebuilt_is_made_anew(way):
    source = Source("a")
    cache = way.cache()
    ask = way.cached(streaming(source), cache=cache)
    way.call(ask, "hi")
    (entry,) = cache.memory.map.values()
    entry.thaw = lambda payload: 1 / 0
    assert way.call(ask, "hi") == way.call(ask, "hi") == ["a"]
    assert source.begun == 2


def test_a_stale_stream_is_replayed_and_renewed_in_the_background(way, clock):
    source = Source("old")
    cache = way.cache(clock=clock, jitter=0, stale_while_revalidate=60)
    ask = way.cached(streaming(source), cache=cache, ttl=10)
    way.call(ask, "hi")
    clock.advance(11)
    source.items = ("new", "newer")
    assert way.call(ask, "hi") == ["old"]
    way.renewed(cache)
    assert way.call(ask, "hi") == ["new", "newer"]
    assert source.begun == source.closed == 2, "nobody reads a renewal, so it is drained"


def test_a_stream_through_the_cache_itself(way):
    cache, source = way.cache(), Source("a", "b")
    body = way.body(streaming(source))
    assert way.run(cache.get_or_call(body, "hi")) == ["a", "b"]
    assert way.run(cache.get_or_call(body, "hi")) == ["a", "b"]
    assert source.begun == 1


def test_items_that_cannot_be_kept_are_named_and_the_source_is_closed(way):
    source = Source(threading.Lock(), "b")
    ask = way.cached(streaming(source))
    with pytest.raises(TypeError, match=r"_thread\.lock can be neither encoded nor copied"):
        way.call(ask, "hi")
    assert (source.given, source.closed) == (1, 1)


# -- readers in threads ----------------------------------------------------------------------


def test_a_late_reader_gets_everything_from_the_first_item():
    source = Source("a", "b", "c")
    ask = cached(streaming(source))
    first = ask("hi")
    assert next(first) == "a"
    late = ask("hi")
    assert list(late) == ["a", "b", "c"]
    assert list(first) == ["b", "c"], "a slow reader is not held up by a fast one"
    assert source.begun == 1
    assert ask.cache_stats()["coalesced"] == 1


def test_nothing_is_made_that_nobody_asked_for():
    source = Source("a", "b", "c")
    reader = cached(streaming(source))("hi")
    assert source.begun == 0
    next(reader)
    assert source.given == 1
    reader.close()


def test_a_reader_that_leaves_does_not_stop_the_others():
    source = Source("a", "b", "c")
    ask = cached(streaming(source))
    leaving, staying = ask("hi"), ask("hi")
    next(leaving), next(staying)
    leaving.close()
    assert source.closed == 0
    assert list(staying) == ["b", "c"]
    assert list(ask("hi")) == ["a", "b", "c"]
    assert source.begun == 1


def test_when_the_last_reader_leaves_the_source_is_closed_and_nothing_is_kept():
    source = Source("a", "b")
    ask = cached(streaming(source))
    readers = [ask("hi"), ask("hi")]
    for reader in readers:
        next(reader)
    for reader in readers:
        reader.close()
    assert source.closed == 1
    assert ask.cache_stats()["total_items"] == 0
    assert list(ask("hi")) == ["a", "b"]
    assert source.begun == 2


def test_every_reader_gets_the_failure_each_an_error_of_his_own():
    ask = cached(streaming(Source("a", ConnectionError("lost"))))
    readers = [ask("hi"), ask("hi")]
    assert [next(reader) for reader in readers] == ["a", "a"]
    errors = []
    for reader in readers:
        with pytest.raises(ConnectionError) as caught:
            next(reader)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_thirty_two_readers_share_one_source():
    source = Source(*range(200))
    ask = cached(streaming(source))
    gate = threading.Barrier(32)

    def read():
        gate.wait(PATIENCE)
        return list(ask("hi"))

    assert in_threads([read] * 32) == [list(range(200))] * 32
    assert source.begun == 1


def test_many_rounds_of_short_streams_never_begin_twice():
    """Between the end of a stream and its entry there is no moment in which neither is there."""
    for _ in range(100):
        source = Source("a")
        ask = cached(streaming(source))
        gate = threading.Barrier(4)

        def read():
            gate.wait(PATIENCE)  # noqa: B023
            return list(ask("hi"))  # noqa: B023

        in_threads([read] * 4)
        assert source.begun == 1


def test_whoever_opens_a_stream_looks_again_first():
    """Between a look and the opening, another reader may have come to the end."""
    source = Source("a")
    ask = cached(streaming(source))
    memory = ask.cache.memory
    get = memory.get

    def late_get(key):
        memory.get = get
        assert list(ask("hi")) == ["a"]

    memory.get = late_get
    assert list(ask("hi")) == ["a"]
    assert source.begun == 1


def test_a_slow_source_holds_up_no_stream_but_its_own():
    begun, go_on = threading.Event(), threading.Event()
    cache = Cache()

    @cached(cache=cache)
    def slow(prompt):
        begun.set()
        assert go_on.wait(PATIENCE)
        yield "slow"

    @cached(cache=cache)
    def quick(prompt):
        yield "quick"

    def other():
        assert begun.wait(PATIENCE)
        joining = slow("hi")
        waiter = threading.Thread(target=lambda: seen.append(list(joining)))
        waiter.start()
        answer = list(quick("hi"))
        go_on.set()
        waiter.join(PATIENCE)
        return answer

    seen = []
    first, answer = in_threads([lambda: list(slow("hi")), other])
    assert (first, answer, seen) == (["slow"], ["quick"], [["slow"]])


def test_a_source_that_reads_its_own_stream_runs_through():
    depth = []

    @cached
    def ask(prompt):
        depth.append(1)
        if len(depth) < 3:
            yield from ask(prompt)
        yield len(depth)

    assert list(ask("hi")) == [3, 3, 3]
    assert len(depth) == 3


def test_a_source_that_hides_where_it_comes_from_runs_through_too():
    depth = []

    @cached
    def ask(prompt):
        depth.append(1)
        if len(depth) < 3:
            yield from contextvars.Context().run(list, ask(prompt))
        yield len(depth)

    assert list(ask("hi")) == [3, 3, 3]


def test_two_sources_that_read_each_other_do_not_wait_for_ever():
    cache, both = Cache(), threading.Barrier(2)
    meet = [both, both]

    def gather():
        if meet:
            meet.pop().wait(PATIENCE)

    @cached(cache=cache)
    def one(prompt):
        gather()
        yield from two(prompt) if depth() < 4 else ()
        yield "one"

    @cached(cache=cache)
    def two(prompt):
        gather()
        yield from one(prompt) if depth() < 4 else ()
        yield "two"

    level = threading.local()

    def depth():
        level.now = getattr(level, "now", 0) + 1
        return level.now

    answers = in_threads([lambda: list(one("hi")), lambda: list(two("hi"))])
    assert answers[0][-1] == "one"
    assert answers[1][-1] == "two"


def test_a_purge_in_the_middle_of_a_stream_is_not_undone():
    source = Source("a", "b")
    ask = cached(streaming(source))
    before = ask("hi")
    next(before)
    ask.clear_cache()
    after = ask("hi")
    assert next(after) == "a"
    assert source.begun == 2, "whoever asks after the purge gets nothing from before it"
    assert list(before) == ["b"]
    assert ask.cache_stats()["total_items"] == 0
    assert list(after) == ["b"]
    assert list(ask("hi")) == ["a", "b"]
    assert source.begun == 2


# -- readers on an event loop ------------------------------------------------------------------


class AsyncSource(Source):
    """Waits for `go_on` before its second item."""

    def __init__(self, *items):
        super().__init__(*items)
        self.go_on = asyncio.Event()

    async def __call__(self, prompt):
        self.begun += 1
        try:
            for number, item in enumerate(self.items):
                if number == 1:
                    await self.go_on.wait()
                if isinstance(item, Exception):
                    raise item
                self.given += 1
                yield item
        finally:
            self.closed += 1


def async_streaming(source):
    async def ask(prompt):
        async for item in source(prompt):
            yield item

    return ask


async def collect(items):
    return [item async for item in items]


async def test_tasks_share_one_source():
    source = AsyncSource(*range(50))
    ask = cached(async_streaming(source))
    readers = [asyncio.ensure_future(collect(ask("hi"))) for _ in range(200)]
    await settle()
    source.go_on.set()
    assert await asyncio.gather(*readers) == [list(range(50))] * 200
    assert source.begun == 1
    assert (ask.cache_stats()["misses"], ask.cache_stats()["coalesced"]) == (1, 199)


async def test_cancelling_the_reader_that_began_does_not_hurt_the_others():
    source = AsyncSource("a", "b", "c")
    ask = cached(async_streaming(source))
    first = asyncio.ensure_future(collect(ask("hi")))
    await settle()
    second = asyncio.ensure_future(collect(ask("hi")))
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.go_on.set()
    assert await second == ["a", "b", "c"]
    assert (source.begun, source.closed) == (1, 1)


async def test_cancelling_all_readers_closes_the_source():
    source = AsyncSource("a", "b")
    ask = cached(async_streaming(source))
    readers = [asyncio.ensure_future(collect(ask("hi"))) for _ in range(3)]
    await settle()
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert source.closed == 1
    source.go_on.set()
    assert await collect(ask("hi")) == ["a", "b"]
    assert source.begun == 2


async def test_closing_a_reader_closes_an_idle_source():
    source = AsyncSource("a", "b")
    reader = cached(async_streaming(source))("hi")
    assert await anext(reader) == "a"
    await reader.aclose()
    assert source.closed == 1


async def test_an_async_source_makes_only_what_is_asked_for():
    source = AsyncSource("a", "b", "c")
    source.go_on.set()
    reader = cached(async_streaming(source))("hi")
    await anext(reader)
    await settle(20)
    assert source.given == 1
    await reader.aclose()


async def test_a_failing_async_source_fails_for_all():
    source = AsyncSource("a", ConnectionError("lost"))
    ask = cached(async_streaming(source))
    readers = [asyncio.ensure_future(collect(ask("hi"))) for _ in range(3)]
    await settle()
    source.go_on.set()
    errors = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionError] * 3
    assert len({id(error) for error in errors}) == 3
    assert ask.cache_stats()["total_items"] == 0


async def test_a_source_that_is_cancelled_from_within_is_called_once():
    begun = []

    @cached
    async def ask(prompt):
        begun.append(prompt)
        raise asyncio.CancelledError
        yield

    readers = [asyncio.ensure_future(collect(ask("hi"))) for _ in range(2)]
    errors = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(error) for error in errors] == [asyncio.CancelledError] * 2
    assert begun == ["hi"]


def test_a_reader_interrupted_while_it_pulls_leaves_the_source_to_the_next():
    interrupts = [KeyboardInterrupt()]

    @cached
    def ask(prompt):
        if interrupts:
            raise interrupts.pop()
        yield "a"

    first, second = ask("hi"), ask("hi")
    with pytest.raises(KeyboardInterrupt):
        next(first)
    assert list(second) == ["a"]
    assert list(ask("hi")) == ["a"]
    assert ask.cache_stats()["hits"] == 1


def test_a_reader_waiting_while_another_is_interrupted_leads():
    inside, go_on, begun = threading.Event(), threading.Event(), []

    @cached
    def ask(prompt):
        begun.append(prompt)
        if len(begun) == 1:
            inside.set()
            assert go_on.wait(PATIENCE)
            raise SystemExit
        yield "a"

    def interrupted():
        with pytest.raises(SystemExit):
            next(ask("hi"))
        return "interrupted"

    def waiting():
        assert inside.wait(PATIENCE)
        reader = ask("hi")
        flights = ask.cache.shelf.flights
        (flight,) = flights._table.values()
        threading.Thread(target=lambda: (until_waiting(flight), go_on.set())).start()
        return list(reader)

    assert in_threads([interrupted, waiting]) == ["interrupted", ["a"]]
    assert len(begun) == 2


def until_waiting(flight):
    until(lambda: flight._readers, "a reader who waits")


async def test_a_timeout_in_the_source_holds_across_its_items():
    """One task runs the source: what it set up before an item is there after it."""
    who = contextvars.ContextVar("who", default="nobody")
    tasks = []

    @cached
    async def ask(prompt):
        who.set("the source")
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                tasks.append(asyncio.current_task())
                yield who.get()

    first = ask("hi")
    assert await anext(first) == "the source"
    assert await collect(ask("hi")) == ["the source"] * 3
    assert await collect(first) == ["the source"] * 2
    assert len(set(tasks)) == 1
    assert who.get() == "nobody"


async def test_an_async_source_that_reads_its_own_stream_runs_through():
    depth = []

    @cached
    async def ask(prompt):
        depth.append(1)
        if len(depth) < 3:
            async for item in ask(prompt):
                yield item
        yield len(depth)

    assert await asyncio.wait_for(collect(ask("hi")), PATIENCE) == [3, 3, 3]


async def test_a_reader_handed_into_its_own_source_is_refused_in_the_middle():
    holder = []

    @cached
    async def ask(prompt):
        yield "a"
        yield [item async for item in holder[0]]

    reader = ask("hi")
    holder.append(ask("hi"))
    assert await anext(reader) == "a"
    assert await anext(holder[0]) == "a"
    with pytest.raises(UpstreamError, match="after item 1 the stream would wait for itself"):
        await anext(reader)
    await holder[0].aclose()


def test_each_loop_runs_a_source_of_its_own():
    source = Source("a", "b")

    @cached(cache=Cache(inline=False))
    async def ask(prompt):
        for item in source(prompt):
            yield item
            await asyncio.sleep(0)

    meet = threading.Barrier(2)

    async def main():
        reader = ask("hi")
        items = [await anext(reader)]
        meet.wait(PATIENCE)
        return items + await collect(reader)

    answers = in_threads([lambda: asyncio.run(main())] * 2)
    assert answers == [["a", "b"]] * 2
    assert source.begun == 2


copies = weakref.WeakSet()


class Item:
    """Can be copied, not encoded; the copy, which the flight holds, is watched."""

    def __deepcopy__(self, memo):
        copy = Item()
        copies.add(copy)
        return copy


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_that_is_over_leaves_nothing_to_the_garbage_collector(whole):
    ask = cached(streaming(Source(Item(), Item())), condition=lambda items: False)
    gc.disable()
    try:
        reader = ask("hi")
        next(reader)
        assert len(copies) == 1
        list(reader) if whole else reader.close()
        del reader
        assert len(copies) == 0
    finally:
        gc.enable()


def test_a_stream_that_rests_longer_than_a_lease_is_still_joined(clock):
    source = Source("a", "b")
    cache = Cache(clock=clock)
    ask = cached(cache=cache)(streaming(source))
    first = ask("hi")
    assert next(first) == "a"
    clock.advance(2 * cache.shelf.flights.lease)  # nobody has asked the source for more
    assert list(ask("hi")) == ["a", "b"]
    assert list(first) == ["b"]
    assert source.begun == 1
