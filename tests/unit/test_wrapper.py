"""The generated wrapper: any signature, no wrong sharing, readable tracebacks."""

from __future__ import annotations

import asyncio
import enum
import gc
import inspect
import linecache
import logging
import math
import traceback
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thinkonce import Cache, cached
from thinkonce.request.arguments import canonical_args


@pytest.fixture(params=[True, False], ids=["inline", "plain"])
def cache(request):
    return Cache(inline=request.param)


# -- signatures ----------------------------------------------------------------------------


def none(): ...
def one(a): ...
def positional_only(a, b=2, /): ...
def mixed(a, /, b, *, c): ...
def keyword_only(*, a, b=2): ...
def starred(a, *rest, b=2, **more): ...
def only_star(*rest): ...
def only_stars(**more): ...
def defaults(a=[1], b={"x": 1}, c=None, d=..., e=object): ...  # noqa: B006
def clash(_, __, _slow, _map, repr, Exception, type, wrapper): ...
def underscores(_entry=1, _ok=2, __now=3, _v=4, v=5, call=6): ...
def 问(问题: str, 模型: str = "小", *, 温度: float = 0.0): ...
def annotated(a: int, b: list[dict], *, c: float | None = None) -> str: ...


CALLS = [
    (none, (), {}),
    (one, (1,), {}),
    (one, (), {"a": 1}),
    (positional_only, (1,), {}),
    (positional_only, (1, 3), {}),
    (mixed, (1, 2), {"c": 3}),
    (mixed, (1,), {"b": 2, "c": 3}),
    (keyword_only, (), {"a": 1}),
    (starred, (1, 2, 3), {"b": 4, "z": 5}),
    (starred, (1,), {}),
    (only_star, (1, 2), {}),
    (only_star, (), {}),
    (only_stars, (), {"a": 1, "b": 2}),
    (defaults, (), {}),
    (defaults, ([2],), {"d": 1}),
    (clash, (1, 2, 3, 4, 5, 6, 7, 8), {}),
    (underscores, (), {"v": 9}),
    (问, ("你好",), {"温度": -0.0}),
    (annotated, (1, [{"role": "user"}]), {}),
]


def recording(function):
    """The same signature; returns the bound arguments and counts its runs."""
    signature = inspect.signature(function)
    runs = []

    def run(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        runs.append(1)
        return repr(bound.arguments)

    run.__signature__ = signature
    run.__name__ = run.__qualname__ = function.__name__
    return run, runs


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_every_kind_of_parameter_arrives_as_it_was_given(cache, function, args, kwargs):
    run, runs = recording(function)
    wrapped = cached(cache=cache, version=function.__name__)(run)
    expected = run(*args, **kwargs)
    runs.clear()
    for _ in range(3):
        assert wrapped(*args, **kwargs) == expected
    keyable = "e" not in inspect.signature(function).parameters
    assert len(runs) == (1 if keyable else 3)


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_the_wrapper_keeps_the_signature(cache, function, args, kwargs):
    wrapped = cached(cache=cache)(function)
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert inspect.signature(wrapped, follow_wrapped=False).parameters.keys() == (
        inspect.signature(function).parameters.keys()
    )
    kinds = [p.kind for p in inspect.signature(wrapped, follow_wrapped=False).parameters.values()]
    assert kinds == [p.kind for p in inspect.signature(function).parameters.values()]
    assert wrapped.__wrapped__ is function
    assert wrapped.__name__ == function.__name__


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"a": 2}), ((), {"b": 1})]
)
def test_a_wrong_call_is_refused_as_the_function_itself_would(cache, args, kwargs):
    wrapped = cached(cache=cache)(one)
    with pytest.raises(TypeError) as ours:
        wrapped(*args, **kwargs)
    with pytest.raises(TypeError) as own:
        one(*args, **kwargs)
    assert str(ours.value) == str(own.value)


def test_a_default_is_the_same_as_giving_it(cache):
    runs = []

    @cached(cache=cache)
    def ask(prompt, model="m", *, temperature=0.0):
        runs.append(1)

    ask("hi")
    ask("hi", "m")
    ask(prompt="hi", model="m", temperature=0.0)
    ask("hi", temperature=0.0)
    assert len(runs) == 1


async def test_the_kind_of_function_stays(cache):
    @cached(cache=cache)
    async def coroutine(): ...

    @cached(cache=cache)
    def generator():
        yield 1

    @cached(cache=cache)
    async def async_generator():
        yield 1

    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert await coroutine() is None


# -- what may share ------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Number(int): ...


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    ONE = 1


class Liar:
    """Says that it is a text, and compares and hashes like one."""

    def __init__(self, text):
        self.text = text

    @property
    def __class__(self):
        return str

    def __eq__(self, other):
        return self.text == other

    def __hash__(self):
        return hash(self.text)


def unannotated(x): ...
def a_str(x: str): ...
def an_int(x: int): ...
def a_float(x: float): ...
def a_bool(x: bool): ...
def some_bytes(x: bytes): ...
def a_list(x: list): ...
def default_float(x=0.0): ...
def default_int(x=0): ...
def default_none(x=None): ...
def default_str(x=""): ...


SHAPES = [
    unannotated,
    a_str,
    an_int,
    a_float,
    a_bool,
    some_bytes,
    a_list,
    default_float,
    default_int,
    default_none,
    default_str,
]

same_looking = st.sampled_from(
    [
        *(0, 0.0, -0.0, False, "0", "0.0", "-0.0", "False", b"", b"0", "", "''", "b''", "None"),
        *(1, 1.0, True, "1", "1.0", "True", 2**64, 2.0**64, -1, math.nan, math.inf, None, ...),
        *(Text("1"), Number(1), Colour.RED, "red", Text("red"), Level.ONE, Decimal(1), 1 + 0j),
        *((), (0.0,), (-0.0,), (1,), (1.0,), (True,), ("0.0",), ("-0.0",), [1], [1.0], [True]),
        *({"a": 1}, {"a": True}, {"a": 1.0}, {1: 2}, {True: 2}, {1}, {1.0}, frozenset({1}), [[]]),
        *(
            b"\x91\x01",
            b"\x91\x00",
            b"\x91\xa11",
            bytearray(b"0"),
            "\ud800",
            Liar("1"),
            Liar("red"),
        ),
    ]
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
values = same_looking | plain


def canonical(value):
    try:
        return canonical_args(("x",), (value,))
    except TypeError:
        return None


def shares(cache, function, first, second):
    """Whether a call with `second` is answered by what a call with `first` left."""
    runs = []

    def run(x):
        runs.append(1)
        return len(runs)

    run.__signature__ = inspect.signature(function)
    run.__annotations__ = function.__annotations__
    wrapped = cached(cache=cache)(run)
    wrapped(first), wrapped(first)  # the second answer may come from the probe
    before = len(runs)
    wrapped(second), wrapped(second)
    return len(runs) == before


@pytest.mark.parametrize("function", SHAPES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "plain"])
@settings(max_examples=30)
@given(first=values, second=values)
@example(first=b"\x91\x01", second=1)
@example(first=1, second=b"\x91\x01")
@example(first="''", second="")
@example(first=-0.0, second=0.0)
@example(first=math.nan, second=float("nan"))
def test_two_calls_share_exactly_if_their_arguments_are_the_same(inline, function, first, second):
    logging.getLogger("thinkonce").isEnabledFor(logging.INFO)
    mine, other = canonical(first), canonical(second)
    same = mine is not None and mine == other
    assert shares(Cache(inline=inline), function, first, second) == same


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "plain"])
@given(first=st.tuples(values, values), second=st.tuples(values, values))
def test_two_arguments_do_not_flow_into_each_other(inline, first, second):
    runs = []

    @cached(cache=Cache(inline=inline))
    def ask(x, y=0.0):
        runs.append(1)

    ask(*first)
    ask(*first)
    before = len(runs)
    ask(*second)
    forms = []
    for pair in (first, second):
        try:
            forms.append(canonical_args(("x", "y"), pair))
        except TypeError:
            forms.append(None)
    assert (len(runs) == before) == (forms[0] is not None and forms[0] == forms[1])


def test_an_object_that_lies_about_its_class_is_never_in_a_key(cache):
    seen = []

    @cached(cache=cache)
    def ask(prompt: str):
        seen.append(prompt)
        return len(seen)

    liar = Liar("hi")
    assert ask("hi") == ask("hi") == 1
    assert ask(liar) == 2, "nobody knows what else it carries"
    assert ask(liar) == 3
    assert all(type(part) is not Liar for local in cache.memory.map for part in local)


def test_what_is_ignored_does_not_count(cache):
    runs = []

    @cached(cache=cache, ignore=["user"])
    def ask(prompt, user=None):
        runs.append(1)
        return prompt

    assert ask("hi", user=object()) == ask("hi", user=[1]) == ask("hi")
    assert len(runs) == 1


# -- the probe -----------------------------------------------------------------------------


def test_a_probe_answers_without_the_flow(monkeypatch):
    @cached
    def ask(prompt):
        return "answer"

    ask("hi")
    ask("hi")
    monkeypatch.setattr(ask.cache, "answer", None)
    assert ask("hi") == "answer"
    assert ask.cache_stats()["hits"] == 2


def test_with_the_switch_off_every_call_goes_through_the_flow(monkeypatch):
    @cached(cache=Cache(inline=False))
    def ask(prompt):
        return "answer"

    ask("hi")
    ask("hi")
    asked = []
    answer = ask.cache.answer
    monkeypatch.setattr(ask.cache, "answer", lambda request: asked.append(1) or answer(request))
    assert ask("hi") == "answer"
    assert asked


def test_a_hit_that_cannot_be_rebuilt_asks_the_model(cache):
    """Somebody's class changed under the entry: a miss, never an error."""
    runs = []

    @cached(cache=cache)
    def ask(prompt):
        runs.append(1)
        return {"n": len(runs)}

    assert ask("hi") == ask("hi") == {"n": 1}
    (entry,) = cache.memory.map.values()
    entry.thaw = lambda payload: 1 / 0
    assert ask("hi") == {"n": 2}
    assert ask("hi") == {"n": 2}
    assert ask.cache_stats()["tier_errors"] == {"memory": 1}


def test_nobody_misses_an_info_line_for_a_probe(caplog):
    @cached
    def ask(prompt):
        return "answer"

    ask("hi")
    ask("hi")
    with caplog.at_level(logging.INFO, logger="thinkonce"):
        ask("hi")
    assert [r.message for r in caplog.records if "hit" in r.message]
    assert "answer" not in caplog.text
    assert "hi " not in caplog.text


# -- tracebacks and room -------------------------------------------------------------------


def test_a_traceback_shows_the_text_of_the_wrapper(cache):
    @cached(cache=cache)
    def ask(prompt):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        ask("hi")
    text = "".join(traceback.format_exception(caught.value))
    assert "<thinkonce" in text
    assert "slow((prompt, ))" in text


def test_between_a_caller_and_a_function_that_raises_lies_the_wrapper_alone(cache):
    @cached(cache=cache)
    def ask(prompt):
        raise ValueError("no")

    @cached(cache=cache)
    async def wait(prompt):
        raise ValueError("no")

    def names(error):
        return [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    with pytest.raises(ValueError, match="no") as caught:
        ask("hi")
    assert names(caught.value)[1:] == ["wrapper", "ask"]
    with pytest.raises(ValueError, match="no") as caught:
        asyncio.run(wait("hi"))
    assert names(caught.value)[-1:] == ["wait"]
    assert not [name for name in names(caught.value) if name in ("drive_async", "carry_out")]


def test_a_fault_of_our_own_keeps_all_of_its_frames(cache):
    @cached(cache=cache, serializer=object())
    def ask(prompt):
        return object()

    with pytest.raises(AttributeError) as caught:
        ask("hi")
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert sum("thinkonce" in file for file in files) > 3


def test_the_text_of_a_dropped_wrapper_is_dropped(cache):
    @cached(cache=cache)
    def ask(prompt): ...

    def held():
        return [name for name in linecache.cache if "test_the_text_of_a_dropped" in name]

    assert held()
    del ask
    gc.collect()
    assert not held()


def test_coroutines_are_wrapped_as_coroutines(cache):
    runs = []

    @cached(cache=cache)
    async def ask(prompt, *, n=1):
        runs.append(1)
        return [prompt] * n

    async def main():
        return [await ask("hi", n=2) for _ in range(3)]

    assert asyncio.run(main()) == [["hi", "hi"]] * 3
    assert len(runs) == 1
