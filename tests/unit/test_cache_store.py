"""A cache over a file: what other processes see; here mostly two caches that share nothing else."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading

import apsw
import pytest

from leaks import until
from standins import PATIENCE, forked, in_threads
from thinkonce import Cache, ConfigError, Outcome, Reason, TierError, cached
from thinkonce.testing.clock import FakeClock


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'answers.db'}"


@pytest.fixture(params=[True, False], ids=["inline", "plain"])
def opened(request, url):
    """Opens caches on the same file."""
    caches = []

    def open_cache(**settings):
        caches.append(Cache(store=url, inline=request.param, **settings))
        return caches[-1]

    yield open_cache
    for cache in caches:
        cache.close()


class Model:
    def __init__(self):
        self.count = 0

    def __call__(self, prompt):
        self.count += 1
        return {"n": self.count}


def asking(cache, model, **settings):
    def ask(prompt):
        return model(prompt)

    return cached(cache=cache, version="1", **settings)(ask)


def test_an_answer_survives_its_process(opened):
    model = Model()
    first = opened()
    asking(first, model)("hi")
    first.close()
    ask = asking(opened(), model)
    told = ask.explain("hi")
    assert (told.outcome, told.tier) == (Outcome.HIT, "sqlite")
    assert ask("hi") == ask("hi") == {"n": 1}
    assert ask.explain("hi").tier == "memory", "a far hit is copied near"
    assert ask.cache_stats()["hits"] == 2


def test_a_far_hit_keeps_its_expiry(opened):
    clock, model = FakeClock(), Model()
    first = opened(clock=clock, jitter=0)
    asking(first, model, ttl=60)("hi")
    first.close()
    clock.advance(40)
    ask = asking(opened(clock=clock, jitter=0), model, ttl=60)
    assert ask("hi") == {"n": 1}
    clock.advance(20)
    assert ask("hi") == {"n": 2}


@pytest.mark.parametrize(
    "forget",
    [
        lambda ask: ask.cache.purge(tags="faq"),
        lambda ask: ask.cache.purge(all=True),
        lambda ask: ask.clear_cache(),
        lambda ask: ask.invalidate("hi"),
    ],
    ids=["by tag", "all", "clear_cache", "invalidate"],
)
def test_what_one_forgets_the_other_has_forgotten_at_once(opened, forget):
    model = Model()
    mine, yours = (asking(opened(), model, tags=["faq"]) for _ in range(2))
    assert mine("hi") == {"n": 1}
    assert mine.cache.flush()
    for _ in range(3):
        assert yours("hi") == {"n": 1}
    assert forget(mine)
    assert yours("hi") == {"n": 2}, "the very next hit compares epochs"
    assert yours("hi") == {"n": 2}


def test_purging_what_one_key_means_leaves_the_others_hits(opened):
    model = Model()
    mine, yours = (asking(opened(), model) for _ in range(2))
    for prompt in ("a", "b"):
        mine(prompt)
    mine.cache.flush()
    yours("a"), yours("b")
    mine.invalidate("a")
    assert yours.explain("b").tier == "memory"
    assert yours("a") == {"n": 3}


def test_a_purge_by_another_during_a_slow_call_is_not_undone(opened):
    begun, go_on, answers = threading.Event(), threading.Event(), iter(["before", "after"])

    def slow(prompt):
        answer = next(answers)
        if answer == "before":
            begun.set()
            assert go_on.wait(PATIENCE)
        return answer

    mine, yours = (asking(opened(), slow, tags=["faq"]) for _ in range(2))

    def purge():
        assert begun.wait(PATIENCE)
        yours.cache.purge(tags="faq")
        go_on.set()

    told, _ = in_threads([lambda: mine("hi"), purge])
    assert told == "before"
    mine.cache.flush()
    assert mine.explain("hi").outcome is yours.explain("hi").outcome is Outcome.MISS
    assert yours("hi") == "after"


def test_a_purge_holds_after_everybody_has_gone(opened):
    model = Model()
    for _ in range(3):
        cache = opened()
        asking(cache, model)("hi")
        cache.purge(all=True)
        cache.close()
    assert model.count == 3
    cache = opened()
    assert asking(cache, model)("hi") == {"n": 4}


def test_an_answer_older_than_many_purges_is_still_copied_near(opened):
    model = Model()
    mine = asking(opened(), model)
    mine("hi")
    mine.cache.flush()
    other = opened()
    for number in range(30):
        other.purge(tags=f"tag {number}")
    yours = asking(opened(), model)
    yours("hi")
    assert yours.explain("hi").tier == "memory"
    other.purge(tags="one more")
    assert yours.explain("hi").tier == "memory", "a purge of others does not take it either"


def test_a_value_only_memory_can_hold_is_named(opened):
    class Odd:
        pass

    ask = asking(opened(), lambda prompt: Odd())
    with pytest.raises(TypeError, match=r"Odd.*serializer="):
        ask("hi")
    with pytest.raises(TypeError, match=r"Odd.*serializer="):
        opened().set("q", Odd())


def test_a_serializer_reaches_the_other_side(opened):
    class Point:
        def __init__(self, x):
            self.x = x

    class Points:
        def dumps(self, value):
            return str(value.x).encode()

        def loads(self, raw):
            return Point(int(raw))

    first = opened()
    asking(first, lambda prompt: Point(7), serializer=Points())("hi")
    first.close()
    ask = asking(opened(), lambda prompt: 1 / 0, serializer=Points())
    assert [ask("hi").x for _ in range(3)] == [7, 7, 7]


class Loud:
    """A serializer; what it rebuilds shows that it did."""

    def __init__(self, sign):
        self.sign = sign

    def dumps(self, value):
        return value.rstrip("!?").encode()

    def loads(self, data):
        return data.decode() + self.sign


def test_answers_with_and_without_a_serializer_are_two(opened):
    cache, asked = opened(), []

    def ask(prompt):
        asked.append(prompt)
        return prompt

    plain, loud = cached(cache=cache)(ask), cached(cache=cache, serializer=Loud("!"))(ask)
    assert [(plain("hi"), loud("hi")) for _ in range(3)] == [("hi", "hi")] + [("hi", "hi!")] * 2
    assert len(asked) == 2
    assert cache.stats()["tier_errors"] == {}


def test_an_entry_that_others_hold_keeps_what_rebuilds_it(opened):
    cache = opened()
    ways = {sign: asking(cache, str, serializer=Loud(sign)) for sign in "!?"}
    ways["!"]("hi")
    (entry,) = cache.memory.map.values()
    entry.inline_until, made_with = 0, entry.thaw
    assert ways["?"]("hi") == "hi?"
    assert entry.thaw is made_with


def test_a_call_of_another_process_is_rebuilt_by_ones_own_serializer(opened):
    first, second = opened(), opened()
    begun, go_on, given = threading.Event(), threading.Event(), []

    def slow(prompt):
        begun.set()
        assert go_on.wait(PATIENCE)
        return prompt

    leads = asking(first, slow, serializer=Loud("!"))
    follows = asking(second, lambda prompt: 1 / 0, serializer=Loud("?"))
    threads = [threading.Thread(target=lambda: given.append(leads("hi")))]
    threads[0].start()
    assert begun.wait(PATIENCE)
    threads.append(threading.Thread(target=lambda: given.append(follows("hi"))))
    threads[1].start()
    (flight,) = first.shelf.flights._table.values()
    until(lambda: flight.followers, "the follower from elsewhere")
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(given) == ["hi", "hi?"]
    assert second.stats()["coalesced"] == 1
    assert second.stats()["tier_errors"] == {}


def test_a_serializer_that_no_longer_fits_costs_a_miss(opened):
    class Versioned:
        def __init__(self, version):
            self.version = version

        def dumps(self, value):
            return self.version

        def loads(self, raw):
            if raw != self.version:
                raise ValueError("not mine")
            return f"read by {raw.decode()}"

    model = Model()
    first = opened()
    asking(first, model, serializer=Versioned(b"v1"))("hi")
    first.close()
    ask = asking(opened(), model, serializer=Versioned(b"v2"))
    assert ask("hi") == {"n": 2}
    assert ask("hi") == "read by v2"
    assert ask.cache_stats()["tier_errors"] == {"sqlite": 1}


def test_a_nameless_object_cannot_have_answers_in_a_file(opened):
    class Bot:
        def __init__(self, name=None):
            self.name = name

        @cached(cache=opened())
        def ask(self, prompt):
            return f"{self.name} says {prompt}"

    with pytest.raises(TypeError, match="a Bot has no __thinkonce_key__"):
        Bot().ask("hi")
    Bot.__thinkonce_key__ = property(lambda self: self.name)
    assert Bot("a").ask("hi") == "a says hi"
    assert Bot("b").ask("hi") == "b says hi"
    with pytest.raises(TypeError, match="has no __thinkonce_key__"):
        opened().get_or_call([].append, 1)


def test_streams_are_replayed_from_the_file(opened):
    runs = []

    def stream(prompt):
        runs.append(1)
        yield {"text": prompt}
        yield None

    def decorated():
        return cached(cache=opened(), version="1")(stream)

    mine = decorated()
    assert list(mine("hi")) == [{"text": "hi"}, None]
    mine.cache.close()
    assert list(decorated()("hi")) == [{"text": "hi"}, None]
    assert len(runs) == 1


async def test_an_event_loop_reads_the_file_too(opened):
    runs = []

    async def ask(prompt):
        runs.append(1)
        return [prompt]

    mine = cached(cache=opened(), version="1")(ask)
    assert await mine("hi") == ["hi"]
    await asyncio.to_thread(mine.cache.flush)
    yours = cached(cache=opened(), version="1")(ask)
    assert await yours("hi") == await yours("hi") == ["hi"]
    assert len(runs) == 1


async def test_purges_made_elsewhere_are_not_read_on_the_event_loop(opened):
    async def ask(prompt):
        other.purge(tags="another")
        return [prompt]

    other, cache = opened(), opened()
    database, readers = cache.store.tier._database, []
    rows = database.rows

    def read(*query):
        readers.append(threading.current_thread())
        return rows(*query)

    database.rows = read
    mine = cached(cache=cache, version="1")(ask)
    assert await mine("hi") == ["hi"]
    other.purge(tags="yet another")
    assert await mine("hi") == ["hi"]
    assert len(readers) >= 2
    assert threading.current_thread() not in readers
    database.rows = rows


async def test_an_answer_that_cannot_be_rebuilt_is_removed_without_waiting_for_who_writes(opened):
    async def ask(prompt):
        return [prompt]

    cache = opened()
    mine = cached(cache=cache, version="1")(ask)
    await mine("hi")
    await asyncio.to_thread(cache.flush)
    (entry,) = cache.memory.map.values()
    entry.inline_until, entry.thaw = 0, lambda payload: 1 / 0
    elsewhere = apsw.Connection(str(cache.store.tier.path))
    elsewhere.execute("BEGIN IMMEDIATE")
    assert await mine("hi") == ["hi"]
    assert cache.stats()["tier_errors"] == {"memory": 1}, "and not that the store was busy"
    elsewhere.execute("ROLLBACK")
    elsewhere.close()


def test_explain_finds_what_a_call_would_get_and_counts_no_use(opened):
    clock, model = FakeClock(), Model()
    settings = {"ttl": 10, "jitter": 0, "early_refresh": 0, "stale_if_error": 1000, "clock": clock}
    mine, yours = (asking(opened(**settings), model) for _ in range(2))
    mine("hi")
    mine.cache.flush()
    clock.advance(20)  # here it has expired; the other process makes it anew
    yours("hi")
    yours.cache.flush()
    told = mine.explain("hi")
    assert (told.outcome, told.reason, told.tier) == (Outcome.HIT, None, "sqlite")
    assert (told.age, told.life_left) == (0, 10)
    (entry,) = mine.cache.memory.map.values()
    assert entry.expires_at < clock.wall(), "what was looked at is not copied near"
    (entry,) = yours.cache.memory.map.values()
    hits, uses = entry.hits, dict(mine.cache.store.tier._writer.uses)
    assert yours.explain("hi").tier == "memory"
    mine.explain("hi")
    assert (entry.hits, mine.cache.store.tier._writer.uses) == (hits, uses)


def test_a_broken_file_costs_misses_and_nothing_else(opened):
    model = Model()
    ask = asking(opened(), model)
    store = ask.cache.store

    def broken(*args):
        raise TierError("sqlite", "reading")

    store.get = store.peek = store.put = broken
    assert ask("hi") == {"n": 1}
    assert ask("hi") == {"n": 1}, "memory serves on"
    assert ask("ho") == {"n": 2}
    told = ask.explain("hu")
    assert (told.outcome, told.reason) == (Outcome.MISS, Reason.TIER_ERROR)
    assert ask.cache_stats()["tier_errors"]["sqlite"] >= 4


def test_a_closed_cache_serves_from_memory_and_stores_no_more(opened):
    model = Model()
    ask = asking(opened(), model)
    ask("hi")
    ask.cache.close()
    ask.cache.close()
    assert ask("hi") == {"n": 1}
    assert ask("ho") == ask("ho") == {"n": 2}
    assert ask.cache_stats()["tier_errors"] == {}
    yours = asking(opened(), model)
    assert yours("hi") == {"n": 1}
    assert yours("ho") == {"n": 3}


def test_a_closed_cache_hears_no_purges_and_makes_none_but_in_its_own_memory(opened):
    model = Model()
    mine, other = asking(opened(), model), opened()
    mine("hi")
    mine.cache.close()
    other.purge(tags="another")
    assert [mine("hi"), mine("ho"), mine("ho")] == [{"n": 1}, {"n": 2}, {"n": 2}]
    assert mine.cache_stats()["tier_errors"] == {}
    with pytest.raises(TierError):  # its store would still give it to others
        mine.cache.purge(all=True)
    assert mine("hi") == {"n": 3}


def test_a_purge_that_could_not_be_read_before_closing_concerns_all_there_was(opened):
    model = Model()
    ask, other = asking(opened(), model), opened()
    ask("hi")
    other.purge(tags="another")

    def broken(*query):
        raise TierError("sqlite", "reading")

    ask.cache.store.tier._database.rows = broken
    ask.cache.close()
    assert [ask("hi"), ask("hi")] == [{"n": 2}] * 2


def test_the_context_manager_flushes(opened):
    model = Model()
    with opened() as cache:
        asking(cache, model)("hi")
    assert asking(opened(), model)("hi") == {"n": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reopens_its_store(opened):
    model = Model()
    ask = asking(opened(), model)
    ask("hi")
    ask.cache.flush()

    def child():
        answered = ask("hi") == {"n": 1} and ask("of the child") == {"n": 2}
        return answered and ask.cache.flush() and ask.invalidate("hi")

    assert forked(child) == 0
    assert ask("hi") == {"n": 2}, "the child's purge is seen here"
    assert ask.explain("of the child").tier == "sqlite"


def test_two_callers_in_different_caches_make_one_call(opened):
    begun, runs, seats = threading.Event(), [], []

    def slow(prompt):
        runs.append(1)
        begun.set()
        until(lambda: seats[0].followers > 0, "a follower")
        return "the answer"

    mine, yours = (asking(opened(), slow) for _ in range(2))
    join = mine.cache.shelf.flights.join

    def noted_join(key, digest):
        seats.append(join(key, digest))
        return seats[-1]

    mine.cache.shelf.flights.join = noted_join

    def follow():
        assert begun.wait(PATIENCE)
        return yours("hi")

    assert in_threads([lambda: mine("hi"), follow]) == ["the answer"] * 2
    assert len(runs) == 1


async def test_closing_in_a_thread_waits_for_a_renewal_on_the_loop(opened):
    clock, gate, runs = FakeClock(), asyncio.Event(), []

    async def ask(prompt):
        runs.append(prompt)
        if len(runs) > 1:
            await gate.wait()
        return len(runs)

    cache = opened(clock=clock, jitter=0, stale_while_revalidate=60)
    mine = cached(cache=cache, version="1", ttl=10)(ask)
    assert await mine("hi") == 1
    clock.advance(11)
    assert await mine("hi") == 1
    while len(runs) < 2:
        await asyncio.sleep(0)
    waiting, wait = asyncio.Event(), cache._async.wait_for_renewals

    async def watched(timeout):
        waiting.set()
        await wait(timeout)

    cache._async.wait_for_renewals = watched
    closing = asyncio.create_task(asyncio.to_thread(cache.close))
    await asyncio.wait_for(waiting.wait(), PATIENCE)
    assert not closing.done()
    gate.set()
    await closing
    yours = cached(cache=opened(clock=clock, jitter=0), version="1", ttl=10)(ask)
    assert await yours("hi") == 2
    assert len(runs) == 2


# -- what cannot be opened ---------------------------------------------------------------------


def test_a_missing_folder_is_made_also_when_the_secret_is_given(tmp_path):
    url = f"sqlite:///{tmp_path / 'not' / 'yet' / 'answers.db'}"
    with Cache(store=url, secret="s" * 32) as cache:
        cache.set("question", 42)
    with Cache(store=url, secret="s" * 32) as cache:
        assert cache.get("question") == 42


@pytest.mark.parametrize("secret", ["", "s" * 32], ids=["file", "given"])
@pytest.mark.parametrize("place", ["/proc/thinkonce/answers.db", "{}/file/answers.db"])
def test_an_impossible_path_is_refused_in_one_line_that_names_the_store(tmp_path, place, secret):
    (tmp_path / "file").write_text("")
    path = place.format(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Cache(store=f"sqlite:///{path}", secret=secret)
    line = str(caught.value)
    assert line.startswith(f"store={path!r} does not work; use a path that this user may")
    assert "\n" not in line


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["too long", "a zero byte"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="store="):
        Cache(store=f"sqlite:///{tmp_path / name}")


def test_a_folder_in_the_place_of_the_host_file_is_refused(tmp_path):
    (tmp_path / "answers.db.host").mkdir()
    with pytest.raises(ConfigError, match=r"answers\.db.*Is a directory"):
        Cache(store=f"sqlite:///{tmp_path / 'answers.db'}")


@pytest.mark.parametrize("store", [None, "sqlite:///{}/answers.db"], ids=["memory", "file"])
def test_a_secret_is_as_long_as_the_settings_want_it(tmp_path, store):
    url = store and store.format(tmp_path)
    with pytest.raises(ConfigError, match="32 characters or more") as caught:
        Cache(store=url, secret="hush" * 7 + "mum")
    assert "hush" not in str(caught.value)
    Cache(store=url, secret="hush" * 8).close()


def test_a_store_whose_folder_was_deleted_is_begun_anew_with_the_same_secret(tmp_path, caplog):
    folder = tmp_path / "deep"
    url = f"sqlite:///{folder / 'answers.db'}"
    with Cache(store=url) as cache:
        cache.set("before", "gone")
        assert cache.store.flush(5)
        kept = (folder / "answers.db.secret").read_text()
        shutil.rmtree(folder)
        with caplog.at_level("WARNING", "thinkonce"):
            cache.set("after", "kept")
            assert cache.store.flush(5)
            cache.set("later", "kept too")
            assert cache.store.flush(5)
        assert len([line for line in caplog.messages if "was gone; a new one" in line]) == 1
        assert (folder / "answers.db.secret").read_text() == kept
    with Cache(store=url) as again:
        assert again.get("after") == "kept"
        assert again.get("before") is None
