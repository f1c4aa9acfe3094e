"""`@cached`, line by line of what it promises; each test sync and async, probe on and off."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import inspect
import logging
import threading
import weakref
from math import inf

import msgspec
import pytest

from standins import PATIENCE, in_threads, settle
from thinkonce import Cache, ConfigError, Outcome, Reason, cached
from thinkonce.testing.clock import FakeClock


class Counted:
    """A model: counts its calls and says which one answered."""

    def __init__(self, answer=None):
        self.calls, self.answer = [], answer

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return len(self.calls) if self.answer is None else self.answer()

    @property
    def count(self):
        return len(self.calls)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def model():
    return Counted()


def asking(model):
    def ask(prompt, *, model_name="m", temperature=0.0):
        return model(prompt)

    return ask


# -- remembering ---------------------------------------------------------------------------


def test_the_same_call_is_answered_once(way, model):
    ask = way.cached(asking(model))
    assert [way.call(ask, "hi") for _ in range(5)] == [1] * 5
    assert way.call(ask, "ho") == 2
    assert model.count == 2


def test_spelling_a_call_otherwise_is_the_same_call(way, model):
    ask = way.cached(asking(model))
    way.call(ask, "hi")
    way.call(ask, prompt="hi")
    way.call(ask, "hi", model_name="m", temperature=0.0)
    assert model.count == 1
    way.call(ask, "hi", temperature=0.5)
    assert model.count == 2


def test_it_works_without_parentheses_and_without_settings():
    @cached
    def ask(prompt):
        return [prompt]

    assert ask("hi") == ask("hi") == ["hi"]
    stats = ask.cache_stats()
    assert (stats["hits"], stats["misses"]) == (1, 1)
    assert (stats["default_ttl"], stats["max_bytes"]) == (None, 256 * 1024**2)


@pytest.mark.parametrize("value", [None, False, 0, "", (), [], {}])
def test_what_is_empty_is_a_value_like_any_other(way, value):
    model = Counted(lambda: value)
    ask = way.cached(asking(model))
    assert way.call(ask, "hi") == way.call(ask, "hi") == value
    assert model.count == 1


def test_exceptions_are_never_remembered(way):
    model = Counted()

    def fails():
        if model.count < 3:
            raise ConnectionError("down")
        return "up"

    model.answer = fails
    ask = way.cached(asking(model))
    for _ in range(2):
        with pytest.raises(ConnectionError, match="down"):
            way.call(ask, "hi")
    assert way.call(ask, "hi") == way.call(ask, "hi") == "up"
    assert model.count == 3


def test_it_keeps_name_signature_docstring_and_the_function_itself():
    def ask(prompt: str, *, n: int = 3) -> str:
        """Ask."""
        return prompt * n

    wrapped = cached(ask)
    assert (wrapped.__name__, wrapped.__doc__) == ("ask", "Ask.")
    assert wrapped.__wrapped__ is ask
    assert inspect.signature(wrapped) == inspect.signature(ask)
    assert wrapped.__annotations__ == ask.__annotations__
    assert wrapped.__module__ == __name__


# -- values cannot be poisoned ---------------------------------------------------------------


@dataclasses.dataclass
class Reply:
    text: str
    parts: list


class Struct(msgspec.Struct):
    parts: list


class Odd:
    def __init__(self):
        self.parts = ["a"]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: {"parts": ["a"]}, lambda value: value["parts"].append("poison")),
        (lambda: ["a"], lambda value: value.append("poison")),
        (lambda: ({"a": 1}, "b"), lambda value: value[0].update(a="poison")),
        (lambda: Reply("t", ["a"]), lambda value: value.parts.append("poison")),
        (lambda: Struct(["a"]), lambda value: value.parts.append("poison")),
        (lambda: bytearray(b"a"), lambda value: value.extend(b"poison")),
        (lambda: {1, 2}, lambda value: value.add("poison")),
        (Odd, lambda value: value.parts.append("poison")),
    ],
    ids=[
        "dict",
        "list",
        "tuple of a dict",
        "dataclass",
        "struct",
        "bytearray",
        "set",
        "any object",
    ],
)
def test_no_caller_can_change_what_the_next_one_gets(way, make, change):
    ask = way.cached(asking(Counted(make)))
    for _ in range(4):
        value = way.call(ask, "hi")
        assert "poison" not in repr(getattr(value, "parts", value))
        assert type(value) is type(make())
        change(value)


def test_the_function_cannot_change_what_was_stored(way):
    kept = ["a"]
    ask = way.cached(asking(Counted(lambda: kept)))
    way.call(ask, "hi")
    kept.append("poison")
    assert way.call(ask, "hi") == ["a"]


class Uncopied:
    def __deepcopy__(self, memo):
        raise RuntimeError("one of a kind")


@pytest.mark.parametrize("make", [threading.Lock, Uncopied, lambda: iter(x for x in "ab")])
def test_a_value_that_cannot_be_kept_is_returned_and_named_once(way, make, caplog):
    model = Counted(make)
    ask = way.cached(asking(model))
    assert len({id(value) for value in [way.call(ask, "hi") for _ in range(3)]}) > 1
    assert model.count == 3
    (record,) = caplog.records
    assert "ask runs uncached: a value of type" in record.getMessage()
    assert type(make()).__qualname__ in record.getMessage()


def test_a_value_that_cannot_be_kept_is_refused_by_a_store(way, tmp_path):
    with Cache(store=f"sqlite:///{tmp_path}/a.db") as cache:
        ask = way.cached(asking(Counted(threading.Lock)), cache=cache, version="1")
        with pytest.raises(TypeError, match=r"lock can be neither encoded nor copied.*serializer="):
            way.call(ask, "hi")


async def test_who_follows_a_call_whose_value_has_one_holder_calls_too():
    go, made = asyncio.Event(), []

    @cached
    async def ask(prompt):
        made.append(threading.Lock())
        mine = made[-1]
        await go.wait()
        return mine

    asking = [asyncio.create_task(ask("hi")) for _ in range(3)]
    await settle()
    assert len(made) == 1, "two follow"
    go.set()
    values = await asyncio.gather(*asking)
    assert len(made) == 3
    assert {id(value) for value in values} == {id(lock) for lock in made}


async def test_a_plain_function_around_a_coroutine_function_runs_uncached(caplog):
    runs = []

    async def model(prompt):
        runs.append(prompt)
        return prompt.upper()

    @cached
    def ask(prompt):
        return model(prompt)

    assert [await ask("a"), await ask("a")] == ["A", "A"]
    assert runs == ["a", "a"]
    (record,) = caplog.records
    assert "decorate the coroutine function itself" in record.getMessage()


def test_an_awaitable_is_refused_by_a_store(tmp_path):
    async def model(prompt):
        return prompt

    with (
        Cache(store=f"sqlite:///{tmp_path}/a.db") as cache,
        pytest.raises(TypeError, match="decorate the coroutine function itself"),
    ):
        cached(cache=cache)(lambda prompt: model(prompt))("hi")


def test_a_serializer_brings_values_of_ones_own(way):
    class Point:
        def __init__(self, x):
            self.x = x

    class Points:
        def dumps(self, value):
            return str(value.x).encode()

        def loads(self, raw):
            return Point(int(raw))

    ask = way.cached(asking(Counted(lambda: Point(7))), serializer=Points())
    assert [way.call(ask, "hi").x for _ in range(3)] == [7, 7, 7]


# -- time ----------------------------------------------------------------------------------


def test_an_answer_lives_as_long_as_was_said(way, model, clock):
    cache = way.cache(clock=clock, jitter=0)
    ask = way.cached(asking(model), cache=cache, ttl=60)
    way.call(ask, "hi")
    clock.advance(59.9)
    assert way.call(ask, "hi") == 1
    clock.advance(0.1)
    assert way.call(ask, "hi") == 2
    assert ask.cache_stats()["default_ttl"] == 60


@pytest.mark.parametrize(
    ("ttl", "priority"), [("hot", "high"), ("warm", "medium"), ("cold", "low")]
)
def test_a_class_sets_the_priority_unless_one_is_given(way, model, ttl, priority):
    ask = way.cached(asking(model), ttl=ttl)
    way.call(ask, "hi")
    assert ask.cache_stats()["by_priority"] == {priority: 1}
    ask = way.cached(asking(model), ttl=ttl, priority="pinned")
    way.call(ask, "hi")
    assert ask.cache_stats()["by_priority"] == {"pinned": 1}


def test_a_caches_class_sets_the_priority_of_its_functions_too(way, model):
    cache = way.cache(ttl="hot", jitter=0)
    ask = way.cached(asking(model), cache=cache)
    way.call(ask, "hi")
    cache.set("k", "v")
    assert cache.stats()["by_priority"] == {"high": 2}
    assert cache.stats()["default_ttl"] == 300
    other = way.cached(asking(model), cache=cache, ttl=60, version="other")
    way.call(other, "hi")
    assert cache.stats()["by_priority"] == {"high": 2, "medium": 1}, "seconds imply no priority"


def test_an_old_answer_is_given_while_a_new_one_is_made(way, model, clock):
    cache = way.cache(clock=clock, jitter=0)
    ask = way.cached(asking(model), cache=cache, ttl=10, stale_while_revalidate="1m")
    way.call(ask, "hi")
    clock.advance(11)
    assert way.call(ask, "hi") == 1
    way.renewed(cache)
    assert (way.call(ask, "hi"), model.count) == (2, 2)
    assert ask.cache_stats()["stale"] == 1


def test_a_dear_answer_is_renewed_early_whatever_the_policy(way, clock):
    """Also where the policy counts no hits."""
    for policy in ("cost", "lru", "sieve", "s3fifo", "arc"):
        cache = way.cache(clock=clock, jitter=0, policy=policy, chance=lambda: 1 - 1e-9)
        model = Counted()
        model.answer = lambda: clock.advance(2) or model.count  # noqa: B023
        ask = way.cached(asking(model), cache=cache, ttl=100)
        way.call(ask, "hi")
        clock.advance(95)  # 5 s left, 2 s to make: -2 * ln(1e-9) = 41 s
        assert way.call(ask, "hi") == 1
        way.renewed(cache)
        assert way.call(ask, "hi") == 2, policy


# -- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ttl": "lukewarm"}, r"ttl='lukewarm' does not work; use seconds, 5m, 1h"),
        ({"ttl": -1}, r"ttl=-1 does not work"),
        ({"priority": "urgent"}, r"priority='urgent' .* high \| medium \| low \| pinned"),
        ({"policy": "newest"}, r"policy='newest' .* arc \| cost \| lru"),
        ({"max_size": 0}, r"max_size=0"),
        ({"max_bytes": "lots"}, r"max_bytes='lots'"),
        ({"store": "mysql://x"}, r"store='mysql://x' .* sqlite:///"),
        ({"ignore": ["usr"]}, r"ignore=\['usr'\] .* parameters of .*ask: prompt"),
        ({"semantic": "yes"}, r"semantic=.yes. .* a smallest similarity"),
        ({"stale_while_revalidate": "x"}, r"stale_while_revalidate='x'"),
        ({"namespace": 5}, r"namespace=5 .* a text"),
        ({"key": "prompt"}, r"key='prompt' .* a function of the same arguments"),
        ({"cache": Cache(), "max_size": 3}, r"max_size=3 .* use it where the Cache is made"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_what_would(settings, text):
    def ask(prompt): ...

    with pytest.raises(ConfigError, match=text):
        cached(**settings)(ask)


def test_an_unknown_setting_is_a_type_error():
    with pytest.raises(TypeError, match="max_sise"):
        cached(max_sise=3)
    with pytest.raises(TypeError, match=r"cached\(ttl=...\)"):
        cached("1h")


def test_one_name_may_stand_for_a_list_of_one(way, model):
    cache = way.cache()
    ask = way.cached(asking(model), cache=cache, tags="faq", ignore="temperature")
    way.call(ask, "hi", temperature=1.0)
    way.call(ask, "hi", temperature=2.0)
    assert model.count == 1
    assert cache.purge(tags="faq") == 1


def test_a_key_function_names_the_call(way, model):
    ask = way.cached(asking(model), key=lambda prompt, **rest: prompt.strip().lower())
    assert way.call(ask, "Hi ") == way.call(ask, "hi", temperature=3.0) == 1
    assert way.call(ask, "ho") == 2


def test_a_key_function_that_fails_is_heard_of(way, model):
    ask = way.cached(asking(model), key=lambda prompt, **rest: prompt["no"])
    with pytest.raises(TypeError):
        way.call(ask, "hi")
    assert model.count == 0


def test_a_condition_decides_what_is_stored(way):
    model = Counted(lambda: "sorry" if model.count < 3 else "answer")
    ask = way.cached(asking(model), condition=lambda value: value != "sorry")
    assert [way.call(ask, "hi") for _ in range(4)] == ["sorry", "sorry", "answer", "answer"]
    assert model.count == 3


def test_a_condition_that_fails_is_heard_of(way, model):
    ask = way.cached(asking(model), condition=lambda value: value["no"])
    with pytest.raises(TypeError):
        way.call(ask, "hi")
    assert ask.cache_stats()["total_items"] == 0


def test_arguments_without_a_canonical_form_run_uncached_and_say_so_once(way, model, caplog):
    ask = way.cached(asking(model))
    assert [way.call(ask, object()) for _ in range(3)] == [1, 2, 3]
    stats = ask.cache_stats()
    assert (stats["bypassed"], stats["hits"], stats["misses"]) == (3, 0, 0)
    lines = [r for r in caplog.records if "runs uncached" in r.message]
    assert len(lines) == 1
    assert "ignore=['prompt']" in lines[0].message


def test_a_version_makes_old_answers_unreachable(way, model):
    cache = way.cache()
    body = asking(model)
    first = way.cached(body, cache=cache, version="1")
    again = way.cached(body, cache=cache, version="1")
    second = way.cached(body, cache=cache, version="2")
    assert way.call(first, "hi") == way.call(again, "hi") == 1
    assert way.call(second, "hi") == 2


# -- one cache for many functions --------------------------------------------------------------


def test_functions_of_one_cache_do_not_answer_for_each_other(way, model):
    cache = way.cache()

    def other(prompt, *, model_name="m", temperature=0.0):
        return model(prompt)

    ask, other = way.cached(asking(model), cache=cache), way.cached(other, cache=cache)
    assert way.call(ask, "hi") == 1
    assert way.call(other, "hi") == 2


def test_closures_of_one_cache_do_not_answer_for_each_other(way):
    cache = way.cache()

    def make(name):
        def ask(prompt):
            return f"{name} says {prompt}"

        return way.cached(ask, cache=cache)

    small, large = make("small"), make("large")
    assert way.call(small, "hi") == "small says hi"
    assert way.call(large, "hi") == "large says hi"


def test_decorating_twice_with_other_rules_does_not_mix_them(way, model):
    cache, runs = way.cache(), []

    def ask(a, b):
        runs.append((a, b))
        return (a, b)

    by_b = way.cached(ask, cache=cache, ignore=["a"])
    by_a = way.cached(ask, cache=cache, ignore=["b"])
    by_key = way.cached(ask, cache=cache, key=lambda a, b: b)
    assert way.call(by_b, 1, 2) == (1, 2)
    assert way.call(by_a, 2, 5) == (2, 5)
    assert way.call(by_key, 3, 2) == (3, 2)


@pytest.mark.parametrize(
    "make", [Counted, lambda: [Counted()], lambda: iter([])], ids=["object", "list", "iterator"]
)
def test_closures_over_nameless_objects_do_not_answer_for_each_other(way, make):
    cache = Cache()

    def asking(thing):
        return way.cached(lambda prompt: id(thing), cache=cache)

    one, other = make(), make()
    first, second = asking(one), asking(other)
    assert (way.call(first, "hi"), way.call(second, "hi")) == (id(one), id(other))
    assert way.call(first, "hi") == id(one)


def test_a_closure_over_a_nameless_object_needs_a_version_in_a_store(tmp_path):
    model = Counted()

    def ask(prompt):
        return model(prompt)

    with Cache(store=f"sqlite:///{tmp_path}/a.db") as cache:
        with pytest.raises(TypeError, match=r"variable 'model' holds a Counted.*version="):
            cached(cache=cache)(ask)
        assert cached(cache=cache, version="1")(ask)("hi") == 1


def test_a_key_function_bound_to_another_object_makes_other_answers():
    cache = Cache()

    class Shortened:
        def __init__(self, length):
            self.length = length

        def key(self, prompt):
            return prompt[: self.length]

    def ask(prompt):
        return prompt

    one = cached(cache=cache, key=Shortened(1).key)(ask)
    two = cached(cache=cache, key=Shortened(2).key)(ask)
    assert (one("a"), two("a1"), two("ab"), two("a")) == ("a", "a1", "ab", "a")


def test_closures_over_different_functions_do_not_answer_for_each_other(way):
    cache = way.cache()

    def make(render):
        def ask(prompt):
            return render(prompt)

        return way.cached(ask, cache=cache)

    assert way.call(make(lambda text: text.upper()), "hi") == "HI"
    assert way.call(make(lambda text: text.title()), "hi") == "Hi"


def test_partials_of_one_cache_do_not_answer_for_each_other(way):
    cache = way.cache()

    def ask(model_name, prompt):
        return f"{model_name} says {prompt}"

    body = way.body(ask)
    small = cached(cache=cache)(functools.partial(body, "small"))
    large = cached(cache=cache)(functools.partial(body, "large"))
    assert way.call(small, "hi") == "small says hi"
    assert way.call(large, "hi") == "large says hi"
    assert way.call(small, "hi") == "small says hi"


def test_a_partial_of_something_nameless_is_refused():
    with pytest.raises(TypeError, match=r"argument 'partial'.*no canonical form"):
        cached(functools.partial(print, object()))


def test_namespaces_and_tags_divide_a_cache(way, model):
    cache, body = way.cache(), asking(model)
    one = way.cached(body, cache=cache, namespace="v1", tags=["faq"])
    two = way.cached(body, cache=cache, namespace="v2", tags=["faq", "news"])
    assert (way.call(one, "hi"), way.call(two, "hi")) == (1, 2)
    assert cache.purge(namespace="v1") == 1
    assert (way.call(one, "hi"), way.call(two, "hi")) == (3, 2)
    assert cache.purge(tags=["news"]) == 1
    assert cache.purge(tags=["faq"]) == 1


# -- methods -------------------------------------------------------------------------------


class Bot:
    made = 0

    def __init__(self, name):
        self.name = name


def bot_class(way, cache, **settings):
    def ask(self, prompt):
        Bot.made += 1
        return f"{self.name} says {prompt}"

    ask.__qualname__ = "Bot.ask"
    return type("Bot", (Bot,), {"ask": way.cached(ask, cache=cache, **settings), "asked": ask})


def test_each_object_has_answers_of_its_own(way):
    Robot = bot_class(way, way.cache())
    a, b = Robot("a"), Robot("b")
    before = Bot.made
    for _ in range(3):
        assert way.call(a.ask, "hi") == "a says hi"
        assert way.call(b.ask, "hi") == "b says hi"
    assert Bot.made == before + 2


def test_an_object_at_the_address_of_a_dead_one_is_another(way):
    Robot = bot_class(way, way.cache())
    for number in range(50):
        robot = Robot(str(number))
        assert way.call(robot.ask, "hi") == f"{number} says hi"
        del robot


def test_classes_made_twice_do_not_mix_their_objects(way):
    cache = way.cache()
    First, Second = bot_class(way, cache), bot_class(way, cache)
    assert way.call(First("first").ask, "hi") == "first says hi"
    assert way.call(Second("second").ask, "hi") == "second says hi"


def test_the_cache_does_not_keep_objects_alive(way):
    Robot = bot_class(way, way.cache())
    robot = Robot("a")
    way.call(robot.ask, "hi")
    watch = weakref.ref(robot)
    del robot
    gc.collect()
    assert watch() is None


def test_objects_with_a_key_share_answers(way):
    Robot = bot_class(way, way.cache())
    Robot.__thinkonce_key__ = property(lambda self: self.name)
    before = Bot.made
    way.call(Robot("a").ask, "hi")
    way.call(Robot("a").ask, "hi")
    way.call(Robot("b").ask, "hi")
    assert Bot.made == before + 2


def test_an_ignored_self_is_shared_by_all(way):
    Robot = bot_class(way, way.cache(), ignore=["self"])
    assert way.call(Robot("a").ask, "hi") == way.call(Robot("b").ask, "hi") == "a says hi"


def test_what_a_method_offers_takes_the_object_first(way):
    Robot = bot_class(way, way.cache())
    robot = Robot("a")
    way.call(robot.ask, "hi")
    assert Robot.ask.explain(robot, "hi").outcome is Outcome.HIT
    assert Robot.ask.invalidate(robot, "hi") is True
    with pytest.raises(TypeError, match=r"is a method: give its object first"):
        robot.ask.invalidate("hi")


@pytest.mark.parametrize("inside", [True, False], ids=["over the method", "under the method"])
def test_class_methods_and_static_methods(way, inside):
    cache, runs = way.cache(), []

    def of(cls, prompt):
        runs.append(1)
        return f"{cls.__name__} says {prompt}"

    def alone(prompt):
        runs.append(1)
        return prompt

    of.__qualname__ = "Robot.of"
    decorate = cached(cache=cache)
    of, alone = way.body(of), way.body(alone)
    if inside:
        members = {"of": decorate(classmethod(of)), "alone": decorate(staticmethod(alone))}
    else:
        members = {"of": classmethod(decorate(of)), "alone": staticmethod(decorate(alone))}
    Robot = type("Robot", (), members)
    Child = type("Child", (Robot,), {})
    for _ in range(2):
        assert way.call(Robot.of, "hi") == "Robot says hi"
        assert way.call(Child().of, "hi") == "Child says hi"
        assert way.call(Robot.alone, "hi") == way.call(Robot().alone, "hi") == "hi"
    assert len(runs) == 3
    assert Robot.alone.cache is cache


# -- what the wrapper offers -------------------------------------------------------------------


def test_the_statistics_have_what_was_promised(way, model):
    ask = way.cached(asking(model), max_size=100, ttl=60)
    for prompt in ("a", "a", "a", "b"):
        way.call(ask, prompt)
    stats = ask.cache_stats()
    assert stats["hits"] == 2
    assert stats["misses"] == 2
    assert stats["hit_rate"] == stats["cache_hit_rate"] == 0.5
    assert stats["total_items"] == 2
    assert stats["max_size"] == 100
    assert stats["default_ttl"] == 60
    assert stats["evictions"] == {}
    assert stats["bytes"] > 0
    assert stats["by_priority"] == {"medium": 2}


def test_saved_seconds_are_the_models_time(way, clock):
    model = Counted(lambda: clock.advance(3) or "answer")
    ask = way.cached(asking(model), cache=way.cache(clock=clock))
    for _ in range(4):
        way.call(ask, "hi")
    assert ask.cache_stats()["saved_seconds"] == pytest.approx(9)


def test_statistics_are_of_the_function_and_of_the_whole_cache(way, model):
    cache = way.cache()
    one = way.cached(asking(model), cache=cache)
    two = way.cached(asking(model), cache=cache, namespace="two")
    for _ in range(3):
        way.call(one, "hi")
    way.call(two, "hi")
    assert (one.cache_stats()["hits"], two.cache_stats()["hits"]) == (2, 0)
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (2, 2)
    del one, two
    gc.collect()
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (2, 2), "the past stays counted"


def test_clearing_forgets_this_function_only(way, model):
    cache = way.cache()
    one = way.cached(asking(model), cache=cache)
    two = way.cached(asking(model), cache=cache, namespace="two")
    for prompt in "abc":
        way.call(one, prompt)
    way.call(two, "a")
    assert one.clear_cache() == 3
    assert one.clear_cache() == 0
    assert way.call(two, "a") == 4
    assert way.call(one, "a") == 5


def test_invalidating_forgets_one_call_however_it_is_spelled(way, model):
    ask = way.cached(asking(model))
    way.call(ask, "hi")
    assert ask.invalidate(prompt="hi", temperature=0.0) is True
    assert ask.invalidate("hi") is False
    assert way.call(ask, "hi") == 2
    assert ask.invalidate(object()) is False


def test_refreshing_asks_again_and_stores(way, model):
    ask = way.cached(asking(model))
    way.call(ask, "hi")
    assert way.run(ask.refresh("hi")) == 2
    assert way.call(ask, "hi") == 2
    assert ask.cache_stats()["refreshed"] == 1


def test_explaining_tells_what_a_call_would_get_and_counts_nothing(way, model, clock):
    cache = way.cache(clock=clock, jitter=0)
    ask = way.cached(asking(model), cache=cache, ttl=60)
    new = ask.explain("hi")
    assert (new.outcome, new.reason, new.tier, new.age) == (Outcome.MISS, Reason.NEW, None, None)
    assert len(new.key) == 64
    way.call(ask, "hi")
    clock.advance(10)
    hit = ask.explain(prompt="hi")
    assert (hit.outcome, hit.reason, hit.tier) == (Outcome.HIT, None, "memory")
    assert (hit.age, hit.life_left) == (10, 50)
    assert hit.key == new.key
    clock.advance(50)
    assert ask.explain("hi").reason is Reason.EXPIRED
    ask.invalidate("hi")
    assert ask.explain(object()).outcome is Outcome.BYPASS
    assert model.count == 1
    stats = ask.cache_stats()
    assert (stats["hits"], stats["misses"]) == (0, 1)


def test_explaining_knows_purged_from_new(way, model):
    ask = way.cached(asking(model))
    way.call(ask, "hi")
    ask.clear_cache()
    assert ask.explain("hi").reason is Reason.PURGED


def test_each_outcome_is_logged_with_the_life_left_and_without_the_prompt(
    way, model, clock, caplog
):
    cache = way.cache(clock=clock, jitter=0)
    ask = way.cached(asking(model), cache=cache, ttl=60)
    with caplog.at_level(logging.INFO, logger="thinkonce"):
        way.call(ask, "a secret")
        clock.advance(20)
        way.call(ask, "a secret")
    miss, hit = (r.message for r in caplog.records)
    assert miss.startswith("miss ")
    assert "reason=new" in miss
    assert hit.startswith("hit ")
    assert "match=exact tier=memory life_left=40s" in hit
    assert "secret" not in caplog.text


# -- many at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "plain"])
def test_thirty_two_threads_make_one_call(inline):
    gate, runs = threading.Barrier(32), []

    @cached(cache=Cache(inline=inline))
    def ask(prompt):
        runs.append(1)
        return {"n": len(runs)}

    def run():
        gate.wait(PATIENCE)
        return ask("hi")

    answers = in_threads([run] * 32)
    assert len(runs) == 1
    assert answers == [{"n": 1}] * 32
    assert len({id(answer) for answer in answers}) == 32, "everybody has a copy of his own"


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "plain"])
async def test_two_hundred_tasks_make_one_call(inline):
    go_on, runs = asyncio.Event(), []

    @cached(cache=Cache(inline=inline))
    async def ask(prompt):
        runs.append(1)
        await go_on.wait()
        return {"n": len(runs)}

    asks = [asyncio.ensure_future(ask("hi")) for _ in range(200)]
    await settle()
    go_on.set()
    answers = await asyncio.gather(*asks)
    assert len(runs) == 1
    assert answers == [{"n": 1}] * 200
    for answer in answers:
        answer["n"] = "poison"
    assert await ask("hi") == {"n": 1}
    stats = ask.cache_stats()
    assert (stats["misses"], stats["coalesced"], stats["hits"]) == (1, 199, 1)


def test_a_function_that_asks_itself_for_the_same_runs_through(way):
    depth = []

    def ask(prompt):
        depth.append(1)
        return "end" if len(depth) == 3 else way.again()

    ask = way.cached(ask)
    if way.is_async:
        depth = []

        async def inner(prompt):
            depth.append(1)
            return "end" if len(depth) == 3 else await ask(prompt)

        ask = cached(cache=way.cache())(inner)
    else:
        way.again = lambda: ask("hi")
    assert way.call(ask, "hi") == "end"
    assert len(depth) == 3


async def test_a_blocking_call_on_the_leaders_loop_runs_through():
    cache = Cache()

    def plain(prompt):
        return "from the blocking call"

    async def main(prompt):
        return cache.get_or_call(plain, "hi")

    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(prompt):
        started.set()
        await go_on.wait()
        return "from the loop"

    slow.__qualname__, slow.__module__ = plain.__qualname__, plain.__module__
    one = cached(cache=cache, version="1")(slow)
    other = cached(cache=cache, version="1")(plain)
    leader = asyncio.ensure_future(one("hi"))
    await started.wait()
    assert other("hi") == "from the blocking call", "waiting here would stop the loop for ever"
    go_on.set()
    assert await leader == "from the loop"


async def test_a_purge_during_a_slow_miss_is_not_undone():
    cache, go_on, started = Cache(), asyncio.Event(), asyncio.Event()
    answers = iter(["from before the purge", "from after it", "later still"])

    @cached(cache=cache, tags=["faq"])
    async def ask(prompt):
        answer = next(answers)
        started.set()
        await go_on.wait()
        return answer

    for forget in (ask.clear_cache, lambda: cache.purge(tags="faq"), lambda: ask.invalidate("hi")):
        answers, go_on, started = iter(["before", "after"]), asyncio.Event(), asyncio.Event()
        before = asyncio.ensure_future(ask("hi"))
        await started.wait()
        forget()
        after = asyncio.ensure_future(ask("hi"))
        await settle()
        go_on.set()
        assert await before == "before"
        assert await after == "after", "whoever asks after the purge gets nothing from before it"
        assert await ask("hi") == "after"
        ask.clear_cache()


def test_life_without_expiry_is_shown_as_such(way, model):
    ask = way.cached(asking(model))
    way.call(ask, "hi")
    assert ask.explain("hi").life_left == inf


def test_tags_that_are_none_are_a_mistake_with_a_message():
    with pytest.raises(ConfigError, match=r"tags=None.*\(\) for none"):
        cached(tags=None)
