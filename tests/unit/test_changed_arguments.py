"""Lists, dicts and objects that change after the key was made never change what it stands for."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import threading

import pytest

from standins import PATIENCE, DictTier, in_threads, make_ask, make_setting, settle
from thinkonce import Cache, Outcome, Reason, cached
from thinkonce.drive import BlockingWorld, drive
from thinkonce.flights.seat import Seat
from thinkonce.flights.singleflight import Flights
from thinkonce.flow import answer
from thinkonce.testing.clock import FakeClock


@dataclasses.dataclass
class Talk:
    lines: list[str]


class OneOfAKind(str):
    """Has a canonical form, and can neither be encoded nor copied."""

    __slots__ = ()

    def __deepcopy__(self, memo):
        raise RuntimeError("one of a kind")


class Model:
    """Answers with the last line of what it is given; `meanwhile` is what the caller does then."""

    def __init__(self, last):
        self.last, self.runs, self.meanwhile = last, 0, lambda: None

    def body(self):
        def ask(talk):
            self.runs += 1
            self.meanwhile()
            return f"{self.last(talk)}, run {self.runs}"

        return ask

    def stream(self):
        def ask(talk):
            self.runs += 1
            self.meanwhile()
            yield f"{self.last(talk)}, run {self.runs}"

        return ask


KINDS = {
    "list": (lambda: ["one"], lambda talk: talk[-1], lambda talk: talk.append("two")),
    "dicts": (
        lambda: [{"content": "one"}],
        lambda talk: talk[-1]["content"],
        lambda talk: talk[0].update(content="two"),
    ),
    "dataclass": (
        lambda: Talk(["one"]),
        lambda talk: talk.lines[-1],
        lambda talk: talk.lines.append("two"),
    ),
    "deque": (
        lambda: collections.deque(["one"]),
        lambda talk: talk[-1],
        lambda talk: talk.append("two"),
    ),
    "within a tuple": (lambda: (["one"],), lambda talk: talk[0][-1], lambda t: t[0].append("two")),
}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def last(talk):
    return talk[-1]


# -- renewals ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["body", "stream"])
def test_a_renewal_reads_what_was_asked_and_not_what_the_caller_made_of_it(way, clock, kind, shape):
    make, read, change = kind
    model, live = Model(read), make()
    cache = way.cache(clock=clock, jitter=0)
    ask = way.cached(getattr(model, shape)(), cache=cache, ttl=10, stale_while_revalidate=60)
    way.call(ask, make())
    clock.advance(11)
    model.meanwhile = lambda: change(live)
    assert "one, run 1" in way.call(ask, live)
    way.renewed(cache)
    model.meanwhile = lambda: None
    assert "one, run 2" in way.call(ask, make())
    assert model.runs == 2


def test_an_early_renewal_reads_what_was_asked(way, clock):
    model, live = Model(last), ["one"]
    cache = way.cache(clock=clock, jitter=0, chance=lambda: 1 - 1e-9)
    ask = way.cached(model.body(), cache=cache, ttl=100)
    model.meanwhile = lambda: clock.advance(2)
    way.call(ask, ["one"])
    clock.advance(95)
    model.meanwhile = lambda: live.append("two")
    assert way.call(ask, live) == "one, run 1"
    way.renewed(cache)
    assert way.call(ask, ["one"]) == "one, run 2"


def test_a_hit_that_renews_nothing_copies_nothing(way, clock, monkeypatch):
    model, copies = Model(last), []
    cache = way.cache(clock=clock, jitter=0)
    ask = way.cached(model.body(), cache=cache, ttl=10)
    way.call(ask, ["one"])
    monkeypatch.setattr("thinkonce.calls.keys.copied", lambda *given: copies.append(given))
    assert way.call(ask, ["one"]) == "one, run 1"
    assert not copies


@pytest.mark.parametrize("way_to_name", ["nameless", "uncopied"])
def test_what_cannot_be_copied_is_renewed_in_the_callers_own_turn(way, clock, way_to_name):
    talk, settings = object(), {"key": lambda talk: "k"}
    if way_to_name == "uncopied":
        talk, settings = OneOfAKind("a"), {}
    model = Model(lambda talk: "same")
    cache = way.cache(clock=clock, jitter=0, stale_if_error=60, chance=lambda: 1 - 1e-9)
    ask = way.cached(model.body(), cache=cache, ttl=10, stale_while_revalidate=60, **settings)
    model.meanwhile = lambda: clock.advance(1)
    way.call(ask, talk)
    clock.advance(9)
    assert way.call(ask, talk) == "same, run 1", "about to expire: a hit"
    clock.advance(2)
    assert way.call(ask, talk) == "same, run 2", "expired: the caller waits"
    assert ask.cache_stats()["stale"] == 0

    def fail():
        raise ConnectionError("down")

    clock.advance(11)
    model.meanwhile = fail
    assert way.call(ask, talk) == "same, run 2", "something stale may stand in for a failure"


def test_an_ignored_argument_is_not_copied(way, clock):
    seen = []

    def ask(talk, client):
        seen.append(client)
        return talk[-1]

    cache, client = way.cache(clock=clock, jitter=0), threading.Lock()
    ask = way.cached(ask, cache=cache, ttl=10, stale_while_revalidate=60, ignore=["client"])
    way.call(ask, ["one"], client)
    clock.advance(11)
    way.call(ask, ["one"], client)
    way.renewed(cache)
    assert seen == [client, client]


# -- calls under way -----------------------------------------------------------------------


def test_an_answer_to_changed_arguments_is_for_its_caller_alone(way, kind, caplog):
    make, read, change = kind
    model, cache = Model(read), way.cache()
    ask = way.cached(model.body(), cache=cache)
    for _ in range(2):
        live = make()
        model.meanwhile = lambda live=live: change(live)
        way.call(ask, live)
    assert model.runs == 2
    assert not cache.memory.map
    (record,) = caplog.records
    assert "ask runs uncached: an argument was changed while the call ran" in record.getMessage()
    model.meanwhile = lambda: None
    assert way.call(ask, make()) == way.call(ask, make()) == "one, run 3"


def test_a_changed_answer_is_told_by_its_reason_and_kept_nowhere(clock):
    tier = DictTier("memory", clock)
    setting = make_setting([tier], clock)
    ask = make_ask(lambda: "answer")
    ask.intact = lambda: False
    world = BlockingWorld(setting, Flights(clock=clock), lambda tier, error: None)
    told = drive(answer(ask, setting), world)
    assert (told.outcome, told.value, told.refused) == (Outcome.MISS, "answer", Reason.CHANGED)
    assert not tier.kept


async def test_who_follows_a_call_whose_arguments_changed_makes_a_call_of_its_own():
    go, begun = asyncio.Event(), []

    @cached
    async def ask(talk):
        begun.append(talk)
        await go.wait()
        return f"{talk[-1]}, run {len(begun)}"

    live = ["one"]
    leading = asyncio.create_task(ask(live))
    await settle()
    following = [asyncio.create_task(ask(["one"])) for _ in range(3)]
    await settle()
    assert len(begun) == 1, "three follow"
    live.append("two")
    go.set()
    assert (await leading).startswith("two")
    assert set(await asyncio.gather(*following)) == {"one, run 2"}, "one of them led the rest"
    assert await ask(["one"]) == "one, run 2"


def test_threads_that_follow_a_call_whose_arguments_changed_make_their_own(monkeypatch):
    follows, live, begun = threading.Event(), ["one"], []
    leads = threading.Event()
    follow = Seat.follow

    def followed(seat, *args, **kwargs):
        follows.set()
        return follow(seat, *args, **kwargs)

    monkeypatch.setattr(Seat, "follow", followed)

    @cached
    def ask(talk):
        begun.append(talk)
        if talk is live:
            leads.set()
            assert follows.wait(PATIENCE)
            live.append("two")
        return talk[-1]

    def come_later():
        assert leads.wait(PATIENCE)
        return ask(["one"])

    assert in_threads([lambda: ask(live), come_later]) == ["two", "one"]
    assert ask(["one"]) == "one"
    assert len(begun) == 2


async def test_arguments_changed_while_a_store_is_read_are_not_mistaken_for_those_asked(tmp_path):
    async with asyncio.timeout(PATIENCE):
        with Cache(store=f"sqlite:///{tmp_path}/a.db") as cache:

            @cached(cache=cache, version="1")
            async def ask(talk):
                return talk[-1]

            live = ["one"]
            looking = asyncio.create_task(ask(live))
            await asyncio.sleep(0)  # it has made its key, and reads the store in a thread
            live.append("two")
            assert await looking == "two"
            assert await ask(["one"]) == "one"


# -- streams -------------------------------------------------------------------------------


def test_a_stream_goes_on_about_what_was_asked_while_its_caller_goes_on():
    runs = []

    @cached
    def ask(talk):
        runs.append(1)
        yield f"first {talk[-1]}"
        yield f"then {talk[-1]}"

    live = ["one"]
    reading = ask(live)
    items = [next(reading)]
    live.append("two")
    joining = ask(["one"])
    assert [next(joining), next(joining)] == ["first one", "then one"]
    items += reading
    assert items == [*ask(["one"])] == ["first one", "then one"]
    assert list(joining) == []
    assert len(runs) == 1


async def test_an_async_stream_goes_on_about_what_was_asked():
    runs = []

    @cached
    async def ask(talk):
        runs.append(1)
        yield f"first {talk[-1]}"
        yield f"then {talk[-1]}"

    live = ["one"]
    reading = ask(live)
    items = [await anext(reading)]
    live.append("two")
    assert [item async for item in ask(["one"])] == ["first one", "then one"]
    items += [item async for item in reading]
    assert items == [item async for item in ask(["one"])] == ["first one", "then one"]
    assert len(runs) == 1


def test_a_stream_that_changes_its_arguments_is_not_kept(way, caplog):
    def ask(talk):
        talk.append("two")
        yield talk[-1]

    cache = way.cache()
    ask = way.cached(ask, cache=cache)
    assert way.call(ask, ["one"]) == way.call(ask, ["one"]) == ["two"]
    assert not cache.memory.map
    (record,) = caplog.records
    assert "an argument was changed" in record.getMessage()


def test_a_stream_whose_key_never_holds_is_read_by_its_caller_alone(way):
    model, cache, numbers = Model(last), way.cache(), itertools.count()
    ask = way.cached(model.stream(), cache=cache, key=lambda talk: next(numbers))
    assert way.call(ask, ["one"]) == ["one, run 1"]
    assert way.call(ask, ["one"]) == ["one, run 2"]
    assert not cache.memory.map


# -- types of one name ---------------------------------------------------------------------


def test_a_store_tells_the_members_of_a_named_tuple_apart(way, tmp_path):
    before = collections.namedtuple("P", "account amount")
    after = collections.namedtuple("P", "amount account")

    def ask(p):
        return f"pay {p.amount} to account {p.account}"

    for version in (before, after):
        with Cache(store=f"sqlite:///{tmp_path}/a.db") as cache:
            paid = way.cached(ask, cache=cache, version="1")
            p = version(1, 2)
            assert way.call(paid, p) == f"pay {p.amount} to account {p.account}"


def local_talk(word):
    @dataclasses.dataclass
    class Local:
        a: int

        def prompt(self):
            return word

    return Local


def test_two_local_classes_of_one_name_have_answers_of_their_own(way):
    ask = way.cached(lambda talk: talk.prompt())
    yes, no = local_talk("yes"), local_talk("no")
    assert [way.call(ask, kind(1)) for kind in (yes, no, yes, no)] == ["yes", "no", "yes", "no"]
    assert ask.cache_stats()["hits"] == 2
    cache = way.cache()
    cache.set(yes(1), "yes")
    assert cache.get(yes(1)) == "yes"
    assert cache.get(no(1)) is None


def test_a_local_class_is_refused_by_a_store_by_the_name_of_its_argument(way, tmp_path):
    with Cache(store=f"sqlite:///{tmp_path}/a.db") as cache:
        ask = way.cached(lambda talk: talk.prompt(), cache=cache, version="1")
        with pytest.raises(TypeError, match=r"argument 'talk'.*<locals>.Local.*in its module"):
            way.call(ask, local_talk("yes")(1))
