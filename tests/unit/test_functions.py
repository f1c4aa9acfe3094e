"""What makes two functions, or two objects a method is called on, different ones."""

from __future__ import annotations

import dataclasses
import functools
import gc
import linecache
import subprocess
import sys
import textwrap

import pytest

from thinkonce.closure import Held
from thinkonce.functions import Kind, Receiver, describe


def ask(prompt, model="m"):
    return prompt


def identity(function, version=None):
    return describe(function, version).identity


def made_of(text):
    space = {"__name__": "made"}
    exec(textwrap.dedent(text), space)
    return space["ask"]


# -- identity ------------------------------------------------------------------------------


def test_a_function_is_itself():
    assert identity(ask) == identity(ask)
    assert describe(ask).scope == f"{__name__}.ask"
    assert describe(ask).names == ("prompt", "model")


def test_editing_the_body_makes_another_function():
    first = made_of("def ask(p): return p + '1'")
    second = made_of("def ask(p): return p + '2'")
    assert identity(first) != identity(second)
    assert identity(first) == identity(made_of("def ask(p): return p + '1'"))


def test_a_version_stands_in_for_the_source():
    first, second = made_of("def ask(p): return 1"), made_of("def ask(p): return 2")
    assert identity(first, "v1") == identity(second, "v1")
    assert identity(first, "v1") != identity(first, "v2")


def test_without_source_nested_constants_tell_functions_apart():
    first = made_of("def ask(p): return (lambda: 'a')()")
    second = made_of("def ask(p): return (lambda: 'b')()")
    assert identity(first) != identity(second)


def test_the_identity_is_the_same_in_every_process():
    program = """
        from thinkonce.functions import describe
        space = {"__name__": "m"}
        exec("def ask(p): return p in {'a', 'b', 'c', 'd'}", space)
        print(describe(space["ask"]).identity.hex())
    """
    seen = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "src"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_the_name_and_the_module_count():
    def other(prompt, model="m"):
        return prompt

    first, second = made_of("def ask(p): return 1"), made_of("def ask(p): return 1")
    second.__module__ = "elsewhere"
    assert identity(first) != identity(second)
    assert identity(ask) != identity(other)


def test_lambdas_of_one_line_differ():
    first, second = (lambda: "a"), (lambda: "b")
    assert identity(first) != identity(second)


def test_closures_over_different_constants_differ():
    def make(model):
        def ask(prompt):
            return f"{model}: {prompt}"

        return ask

    assert identity(make("small")) != identity(make("large"))
    assert identity(make("small")) == identity(make("small"))
    assert identity(make(1)) != identity(make(True)), "equal values of other types differ too"
    assert identity(make((1, "a"))) != identity(make((1, "b")))


def test_what_a_function_changes_itself_does_not_count():
    def make():
        calls = 0

        def ask(prompt):
            nonlocal calls
            calls += 1
            return calls

        return ask

    function = make()
    before = identity(function)
    function("hi")
    assert identity(function) == before


def shouting(function):
    @functools.wraps(function)
    def wrapper(prompt, model="m"):
        return function(prompt, model).upper()

    return wrapper


def asking_twice(function):
    @functools.wraps(function)
    def wrapper(prompt, model="m"):
        return function(prompt, model) * 2

    return wrapper


def test_a_decorator_under_it_counts_though_it_wraps():
    assert identity(shouting(ask)) == identity(shouting(ask))
    assert len({identity(ask), identity(shouting(ask)), identity(asking_twice(ask))}) == 3


def test_code_that_was_loaded_before_its_file_was_edited_is_not_the_new_code(tmp_path):
    path = tmp_path / "edited.py"

    def loaded(text):
        space = {"__name__": "edited"}
        exec(compile(text, str(path), "exec"), space)
        return space["ask"]

    first, second = "def ask(p):\n    return 'old'\n", "def ask(p):\n    return 'new'\n"
    path.write_text(first)
    old = loaded(first)
    path.write_text(second)
    linecache.checkcache(str(path))
    assert identity(old) != identity(loaded(second))


@dataclasses.dataclass(frozen=True)
class Setup:
    model: str


def helper(suffix="!", *, prefix=""):
    def add(prompt, suffix=suffix, *, prefix=prefix):
        return prefix + prompt + suffix

    return add


def around(thing):
    def ask(prompt):
        return thing, prompt

    return ask


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a"], ["b"]),
        ({"a": 1}, {"a": True}),
        (Setup("a"), Setup("b")),
        (helper("!"), helper("?")),
        (helper(prefix="a"), helper(prefix="b")),
        (functools.partial(ask, "a"), functools.partial(ask, "b")),
        (functools.partial(ask, model="a"), functools.partial(ask, model="b")),
        (functools.partial(ask, model="a"), functools.partial(helper, model="a")),
        (functools.partial(ask, (1,), 2), functools.partial(ask, (1, 2))),
        ("a".join, "b".join),
        (len, max),
        (int, float),
        (sys, gc),
        (functools.lru_cache(ask), functools.lru_cache(helper)),
    ],
    ids=range(14),
)
def test_what_a_closure_holds_tells_functions_apart(one, other):
    assert identity(around(one)) == identity(around(one))
    assert identity(around(one)) != identity(around(other))
    assert describe(around(one)).held == (), "and does so in every process"


def test_what_has_no_canonical_form_is_named_with_its_variable():
    class Bound:
        def ask(self): ...

    thing, owner = object(), Bound()
    assert describe(around(thing)).held == (Held("thing", thing),)
    assert describe(around(owner.ask)).held == (Held("thing", owner),)
    assert describe(around(functools.partial(ask, thing))).held == (Held("thing", thing),)
    assert describe(around(thing), version="1").held == ()


def test_globals_of_its_own_count_where_a_function_is_not_its_modules():
    def made(**around):
        space = {"__name__": "made", **around}
        exec("def ask(p): return MODEL, of(p)", space)
        return space["ask"]

    first = made(MODEL="a", of=helper("!"))
    assert identity(first) == identity(made(MODEL="a", of=helper("!")))
    assert identity(first) != identity(made(MODEL="b", of=helper("!")))
    assert identity(first) != identity(made(MODEL="a", of=helper("?")))


def test_functions_that_close_over_each_other_have_an_identity():
    def make(model):
        def first(prompt):
            return second(prompt)

        def second(prompt):
            return first(prompt) + model

        return first

    assert identity(make("a")) == identity(make("a"))
    assert identity(make("a")) != identity(make("b"))


def test_two_scripts_may_both_define_main(tmp_path):
    program = "def ask(p): return 1\nfrom thinkonce.functions import describe\n"
    program += "print(describe(ask).scope)\n"
    scopes = []
    for name in ("one.py", "two.py"):
        script = tmp_path / name
        script.write_text(program)
        run = subprocess.run(
            [sys.executable, script],
            env={"PYTHONPATH": "src"},
            capture_output=True,
            text=True,
            check=True,
        )
        scopes.append(run.stdout.strip())
    assert scopes == [f"{tmp_path / 'one.py'}.ask", f"{tmp_path / 'two.py'}.ask"]


# -- kinds ---------------------------------------------------------------------------------


async def a_coroutine(): ...


def a_generator():
    yield


async def an_async_generator():
    yield


class Callable:
    async def __call__(self, prompt):
        return prompt


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (ask, Kind.PLAIN),
        (len, Kind.PLAIN),
        (a_coroutine, Kind.COROUTINE),
        (functools.partial(a_coroutine), Kind.COROUTINE),
        (Callable(), Kind.COROUTINE),
        (a_generator, Kind.GENERATOR),
        (an_async_generator, Kind.ASYNC_GENERATOR),
    ],
)
def test_the_kind_is_seen_through_partials_and_objects(function, kind):
    assert describe(function).kind is kind


@pytest.mark.parametrize("thing", ["1h", 5, None])
def test_what_cannot_be_called_is_refused_with_the_likely_reason(thing):
    with pytest.raises(TypeError, match=r"is no function; settings are given by name"):
        describe(thing)


def test_a_built_in_without_a_signature_is_refused():
    with pytest.raises(TypeError, match="no signature that could be read; wrap it"):
        describe(dict.update)


# -- what functions are bound to -------------------------------------------------------------


class Bot:
    def ask(self, prompt):
        return prompt

    def __call__(self, prompt):
        return prompt


def test_a_bound_method_a_partial_and_an_object_carry_something_along():
    bot = Bot()
    assert describe(bot.ask).owners == (bot,)
    assert describe(bot).owners == (bot,)
    assert describe("abc".upper).owners == ("abc",)
    partial = describe(functools.partial(ask, "hi", model="x"))
    assert partial.fixed == (["hi"], {"model": "x"})
    assert partial.scope == f"{__name__}.ask"
    nested = describe(functools.partial(bot.ask, "hi"))
    assert (nested.owners, nested.fixed) == ((bot,), (["hi"], {}))
    assert describe(ask).owners == describe(ask).fixed == ()


def test_a_method_is_known_by_its_first_parameter():
    class Inner:
        @classmethod
        def of(cls): ...

        @staticmethod
        def alone(prompt): ...

    assert describe(Bot.ask).is_method
    assert describe(Inner.__dict__["of"].__func__).is_method
    assert not describe(Inner.alone).is_method
    assert not describe(ask).is_method

    def loose(self): ...

    assert not describe(loose).is_method, "a function is no method for having a self"


# -- receivers -----------------------------------------------------------------------------


def name(receiver, thing, *, persistent=False):
    return receiver.name(thing, "scope", persistent=persistent)


def test_objects_have_serials_of_their_own_that_are_never_given_again():
    receiver, seen = Receiver(), set()
    for _ in range(100):
        bot = Bot()
        seen.add(name(receiver, bot))
        assert name(receiver, bot) in seen
        del bot  # the next object often takes its address
    assert len(seen) == 100
    gc.collect()
    assert receiver._held == {}, "the dead take no room"


def test_a_key_of_its_own_names_an_object_everywhere():
    class Named:
        def __init__(self, key):
            self.__thinkonce_key__ = key

    receiver = Receiver()
    first = name(receiver, Named("a"), persistent=True)
    assert first == name(receiver, Named("a"), persistent=True)
    assert first != name(receiver, Named("b"), persistent=True)


def test_a_key_may_be_computed():
    class Named:
        def __thinkonce_key__(self):
            return ("model", 3)

    assert name(Receiver(), Named())[-1] == ("model", 3)


def test_a_class_is_named_by_its_name_unless_a_function_made_it():
    def make():
        class Local: ...

        return Local

    receiver, first, second = Receiver(), make(), make()
    assert name(receiver, Bot, persistent=True) == ("class", __name__, "Bot")
    assert name(receiver, first) != name(receiver, second)
    with pytest.raises(TypeError, match="__thinkonce_key__"):
        name(receiver, first, persistent=True)


def test_a_nameless_object_cannot_be_told_apart_in_a_store():
    with pytest.raises(TypeError, match=r"scope: a Bot has no __thinkonce_key__.*ignore="):
        name(Receiver(), Bot(), persistent=True)


def test_an_object_without_weak_references_is_refused():
    class Slotted:
        __slots__ = ()

    with pytest.raises(TypeError, match=r"allows no weak reference; define __thinkonce_key__"):
        name(Receiver(), Slotted())
