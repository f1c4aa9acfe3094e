"""`Cache`: requests of one's own, functions without a decorator, upkeep."""

from __future__ import annotations

import functools
import gc
import os
import threading
import weakref

import pytest

from standins import PATIENCE, forked, in_threads
from thinkonce import Cache, ConfigError, Outcome, Reason, RequestError, TtlClass, cached
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import entry_of, key_of
from thinkonce.tiers.tier import Key


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=[True, False], ids=["inline", "plain"])
def cache(request, clock):
    with Cache(clock=clock, jitter=0, inline=request.param) as cache:
        yield cache


# -- get, set, delete ------------------------------------------------------------------------


def test_what_was_set_is_got(cache):
    question = {"messages": [{"role": "user", "content": "hi"}], "n": 1}
    assert cache.get(question) is None
    assert cache.get(question, "nothing") == "nothing"
    cache.set(question, {"answer": 42})
    assert cache.get(dict(reversed(question.items()))) == {"answer": 42}
    stats = cache.stats()
    assert (stats["hits"], stats["misses"]) == (1, 2)


def test_none_can_be_stored_and_told_from_nothing(cache):
    cache.set("q", None)
    assert cache.get("q", "nothing") is None


def test_requests_that_look_alike_are_different(cache):
    for number, request in enumerate([1, 1.0, True, "1", b"1", [1], (1,), {"1": 1}]):
        cache.set(request, number)
    assert [cache.get(r) for r in [1, 1.0, True, "1", b"1", [1], (1,), {"1": 1}]] == list(range(8))


def test_a_request_without_a_canonical_form_is_refused(cache):
    for act in (cache.get, cache.delete, lambda request: cache.set(request, 1)):
        with pytest.raises(TypeError, match="canonical form"):
            act(object())


def test_nobody_can_change_what_is_stored(cache):
    value = {"a": []}
    cache.set("q", value)
    value["a"].append("poison")
    cache.get("q")["a"].append("poison")
    assert cache.get("q") == {"a": []}


def test_a_value_lives_as_long_as_was_said(cache, clock):
    cache.set("q", 1, ttl="1m")
    clock.advance(59)
    assert cache.get("q") == 1
    clock.advance(1)
    assert cache.get("q") is None


def test_setting_with_a_life_of_zero_leaves_nothing(cache):
    cache.set("q", 1)
    cache.set("q", 2, ttl=0)
    assert cache.get("q") is None


def test_setting_again_replaces(cache):
    cache.set("q", 1, tags="old")
    cache.set("q", 2)
    assert cache.get("q") == 2
    assert cache.purge(tags="old") == 0


def test_namespaces_are_apart(cache):
    cache.set("q", 1, namespace="a")
    cache.set("q", 2, namespace="b")
    assert (cache.get("q"), cache.get("q", namespace="a")) == (None, 1)
    assert cache.delete("q", namespace="a") is True
    assert cache.get("q", namespace="b") == 2


def test_deleting_tells_whether_there_was_something(cache):
    cache.set("q", 1)
    assert cache.delete("q") is True
    assert cache.delete("q") is False
    assert cache.get("q") is None


def test_getting_a_stale_value_never_asks_a_model(clock, caplog):
    cache = Cache(clock=clock, jitter=0, stale_while_revalidate=60)
    cache.set("q", 1, ttl=10)
    clock.advance(11)
    assert cache.get("q") == 1
    cache._blocking.wait_for_renewals(PATIENCE)
    assert not caplog.records
    assert cache.stats()["stale"] == 1


def test_a_value_that_cannot_be_rebuilt_is_a_miss(cache):
    cache.set("q", [1])
    (entry,) = cache.memory.map.values()
    entry.thaw = lambda payload: 1 / 0
    assert cache.get("q", "nothing") == "nothing"
    assert len(cache.memory) == 0


# -- functions without a decorator -------------------------------------------------------------


def test_a_function_is_called_once(cache):
    runs = []

    def ask(prompt, n=1):
        runs.append(1)
        return [prompt] * n

    assert cache.get_or_call(ask, "hi", n=2) == cache.get_or_call(ask, "hi", 2) == ["hi", "hi"]
    assert len(runs) == 1


async def test_a_coroutine_function_is_awaited_once(cache):
    runs = []

    async def ask(prompt):
        runs.append(1)
        return [prompt]

    assert await cache.aget_or_call(ask, "hi") == await cache.aget_or_call(ask, "hi") == ["hi"]
    assert len(runs) == 1
    with pytest.raises(TypeError, match="is a coroutine function; use aget_or_call"):
        cache.get_or_call(ask, "hi")


async def test_a_generator_function_is_no_coroutine(cache):
    async def ask(prompt):
        yield prompt

    with pytest.raises(TypeError, match="is a generator function; use get_or_call"):
        await cache.aget_or_call(ask, "hi")


def test_it_shares_with_the_decorated_function(cache):
    runs = []

    def ask(prompt):
        runs.append(1)
        return prompt

    decorated = cached(cache=cache)(ask)
    decorated("hi")
    assert cache.get_or_call(ask, "hi") == "hi"
    assert len(runs) == 1


def test_it_shares_with_the_decorated_method(cache):
    decorated, bot = cached(cache=cache)(Bot.ask), Bot("a")
    decorated(bot, "hi")
    cache.get_or_call(bot.ask, "hi")
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (1, 1)


class Bot:
    def __init__(self, name):
        self.name = name

    def ask(self, prompt):
        return f"{self.name} says {prompt}"

    def __call__(self, prompt):
        return f"{self.name} answers {prompt}"

    def odd(this, prompt):
        return f"{this.name} says {prompt}"


def test_methods_of_different_objects_do_not_answer_for_each_other(cache):
    a, b = Bot("a"), Bot("b")
    for _ in range(2):
        assert cache.get_or_call(a.ask, "hi") == "a says hi"
        assert cache.get_or_call(b.ask, "hi") == "b says hi"
        assert cache.get_or_call(a, "hi") == "a answers hi"
        assert cache.get_or_call(b, "hi") == "b answers hi"
        assert cache.get_or_call(a.odd, "hi") == "a says hi"
        assert cache.get_or_call(b.odd, "hi") == "b says hi"
    assert cache.stats()["misses"] == 6


def test_partials_and_built_ins_do_not_answer_for_each_other(cache):
    def ask(name, prompt):
        return f"{name} says {prompt}"

    for name in ("a", "b"):
        assert cache.get_or_call(functools.partial(ask, name), "hi") == f"{name} says hi"
    assert cache.get_or_call(len, "four") == 4


def test_lambdas_given_again_and_again_take_no_room_for_ever(cache):
    for number in range(600):
        assert cache.get_or_call(lambda n=number: n) == number
    assert len(cache._plain_callers) <= 256
    assert cache.stats()["misses"] == 600


def test_a_function_that_is_gone_leaves_its_address_to_others(cache):
    answers = []
    for number in range(50):
        space = {"__name__": "made"}
        exec(f"def ask(p): return {number}", space)
        answers.append(cache.get_or_call(space.pop("ask"), "hi"))
        del space
        gc.collect() if number % 25 == 0 else None
    assert answers == list(range(50))


# -- upkeep --------------------------------------------------------------------------------


def test_purging_takes_what_matches_all_that_was_given(cache, clock):
    cache.set("a", 1, tags=["faq"], namespace="n")
    cache.set("b", 1, tags=["faq", "news"])
    cache.set("c", 1)
    assert cache.purge(tags=["faq"], namespace="n") == 1
    assert cache.purge(tags="news") == 1
    clock.advance(100)
    cache.set("d", 1)
    assert cache.purge(older_than="1m") == 1
    assert cache.get("d") == 1
    assert cache.purge(all=True) == 1
    assert cache.purge(all=True) == 0
    assert cache.stats()["evictions"] == {Reason.PURGED: 4}


def test_purging_the_expired(clock):
    cache = Cache(clock=clock, jitter=0, stale_if_error=1000)
    cache.set("a", 1, ttl=10)
    cache.set("b", 1)
    clock.advance(11)
    assert cache.purge(expired=True) == 1
    assert cache.get("b") == 1


def test_purging_by_key_takes_a_prefix(cache):
    def ask(prompt):
        return prompt

    ask = cached(cache=cache)(ask)
    ask("hi")
    ask("ho")
    assert cache.purge(key=ask.explain("hi").key[:8]) == 1
    assert ask.explain("ho").outcome is Outcome.HIT
    key = ask.explain("ho").key
    neighbour = key[:8] + ("0" if key[8] != "0" else "1")
    assert cache.purge(key=neighbour) == 0
    assert cache.purge(key=key[:9].upper()) == 1
    ask("ho")
    assert cache.purge(key=key) == 1


def test_a_prefix_of_several_keys_purges_none_of_them(cache):
    for name in "ab":
        key = Key(name, b"alike" + key_of(name).digest[5:])
        cache.memory.put(key, entry_of(FakeClock()))
    with pytest.raises(RequestError, match="more digits: 2 keys begin with these"):
        cache.purge(key=b"alike".hex())
    assert len(cache.memory) == 2


@pytest.mark.parametrize("key", ["abc", "xyzxyzxy", "abcdefghi", "", "a" * 65])
def test_a_key_that_is_none_is_refused(cache, key):
    with pytest.raises(ValueError, match="8 to 64 hex digits"):
        cache.purge(key=key)


def test_a_purge_of_nothing_in_particular_is_refused(cache):
    cache.set("a", 1)
    with pytest.raises(ValueError, match="all=True removes everything"):
        cache.purge()
    assert cache.get("a") == 1


def test_resizing_while_running(cache):
    for number in range(20):
        cache.set(number, number)
    cache.resize(max_size=5)
    assert cache.stats()["total_items"] == 5
    assert cache.stats()["max_size"] == 5
    cache.resize(max_bytes="1MiB")
    assert (cache.stats()["max_size"], cache.stats()["max_bytes"]) == (5, 1024**2)
    with pytest.raises(ConfigError, match="max_bytes='little'"):
        cache.resize(max_bytes="little")


def test_closing_twice_is_closing_once_and_the_memory_serves_on(clock):
    cache = Cache(clock=clock)
    ask = cached(cache=cache)(lambda prompt: prompt)
    ask("hi")
    with cache:
        pass
    cache.close()
    assert ask("hi") == "hi"
    assert ask("ho") == "ho"
    cache.set("q", 1)
    assert cache.get("q") == 1


def test_a_table_of_classes_of_ones_own(clock):
    cache = Cache(clock=clock, jitter=0, ttl_classes={"weekly": TtlClass(604800, "low")})
    cache.set("q", 1, ttl="weekly")
    assert cache.stats()["by_priority"] == {"low": 1}
    with pytest.raises(ConfigError, match="a class: weekly"):
        cache.set("q", 1, ttl="hot")


def test_a_dropped_cache_leaves_nothing_behind():
    class Odd:
        pass

    def make():
        cache = Cache()

        @cached(cache=cache)
        def ask(prompt):
            return Odd()

        ask("hi")
        (entry,) = cache.memory.map.values()
        return weakref.ref(cache), weakref.ref(entry.payload)

    refs = make()
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


# -- threads and processes -----------------------------------------------------------------


def test_threads_that_do_everything_at_once_leave_it_whole():
    cache = Cache(max_size=50)

    @cached(cache=cache, ttl=1, tags=["t"])
    def ask(n):
        return {"n": n}

    def work(seed):
        def run():
            for turn in range(300):
                n = (turn * 7 + seed) % 90
                match (turn + seed) % 8:
                    case 0:
                        cache.set(n, [n])
                    case 1:
                        assert cache.get(n) in (None, [n])
                    case 2:
                        cache.purge(tags="t")
                    case 3:
                        ask.invalidate(n)
                    case 4:
                        cache.resize(max_size=10 + n)
                    case 5:
                        cache.stats()
                    case _:
                        assert ask(n) == {"n": n}

        return run

    in_threads([work(seed) for seed in range(8)])
    cache.memory.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_cache_that_works():
    cache = Cache(stale_while_revalidate=60)
    begun, held, go_on = (threading.Event() for _ in range(3))

    def hold(lock, held, go_on):
        with lock:
            held.set()
            assert go_on.wait(PATIENCE)

    @cached(cache=cache)
    def ask(prompt):
        if prompt == "slow" and threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(PATIENCE)
        return prompt

    @cached(cache=cache)
    def stream(prompt):
        yield ask(prompt)

    readers = [
        threading.Thread(target=lambda: ask("slow")),
        threading.Thread(target=lambda: list(stream("slow"))),
    ]
    for reader in readers:
        reader.start()
    assert begun.wait(PATIENCE)
    holder = threading.Thread(target=lambda: hold(cache.lock, held, go_on))
    holder.start()
    assert held.wait(PATIENCE)

    def child():
        # The call and the stream under way are the parent's: waiting for them would never end.
        return ask("slow") == "slow" and list(stream("slow")) == ["slow"] and ask("hi") == "hi"

    code = forked(child)
    go_on.set()
    for thread in (holder, *readers):
        thread.join(PATIENCE)
    assert code == 0
