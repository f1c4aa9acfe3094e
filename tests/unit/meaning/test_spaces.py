"""Partitions in memory: made of a store's rows, fed by puts, bounded, and never one's truth."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from thinkonce.meaning.index import space as space_module
from thinkonce.meaning.index import spaces as spaces_module
from thinkonce.meaning.index.packed import packed_bytes
from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import hint_of, key_of
from unit.meaning.question_desk import WIDTH, Desk, Fixed, kept_of, vector_of

SETTLING = 20.0  # seconds; far more than any of it takes
RECALL = 0.99  # what a graph is set up for; its vectors are the same in every run
Make = Callable[..., Desk]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock) -> Iterator[Make]:
    made: list[Desk] = []

    def make(*, stored: bool = True, **options: Any) -> Desk:
        made.append(Desk(tmp_path / "answers.db" if stored else None, clock, **options))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture(params=[True, False], ids=["stored", "in memory"])
def desk(request: pytest.FixtureRequest, make: Make) -> Desk:
    return make(stored=request.param)


def settled(desk: Desk) -> None:
    assert desk.spaces.settle(SETTLING)


# -- what is put is found --------------------------------------------------------------------


def test_a_question_is_found_as_soon_as_it_was_put(desk: Desk) -> None:
    assert desk.found("how do I pay") == []
    desk.put("how do I pay")
    assert desk.found("how do I pay") == ["how do I pay"]


def test_no_question_of_another_partition_is_found(desk: Desk) -> None:
    desk.put("how do I pay", "tenant one")
    assert desk.found("how do I pay", "tenant two") == []
    assert desk.alike("how do I pay", "tenant two") == []


def test_the_key_is_the_one_that_memory_knows_it_by(desk: Desk) -> None:
    key = desk.put("how do I pay")
    found = desk.spaces.key_of(key.digest)
    assert (found.local, found.digest) == (key.local, key.digest)
    unknown = desk.spaces.key_of(b"u" * 32)
    assert (unknown.local, unknown.digest) == (b"u" * 32, b"u" * 32)


def test_the_same_words_are_found_without_a_vector(desk: Desk) -> None:
    desk.put("How do I reset the router?", timely=False)
    desk.put("另一个问题怎么办")
    assert desk.alike("please, how do i reset the router") == ["How do I reset the router?"]
    assert desk.alike("请问另一个问题怎么办？") == ["另一个问题怎么办"]
    assert desk.alike("how do i reset my phone") == []


def test_of_equal_wordings_the_newest_answers(make: Make) -> None:
    desk = make()
    desk.put("How do I pay?")
    desk.put("how do i pay")
    assert desk.alike("Hi, how do I pay") == ["how do i pay"]
    desk.flush()
    assert make().alike("Hi, how do I pay") == ["how do i pay"], "in whatever order rows are read"


@pytest.mark.parametrize(
    "vector",
    [np.full(WIDTH, np.nan, np.float32), np.ones(WIDTH + 1, np.float32)],
    ids=["not a number", "another width"],
)
def test_a_vector_that_is_none_finds_nothing(desk: Desk, vector: Any) -> None:
    desk.put("how do I pay")
    assert desk.spaces.space(hint_of("").partition).nearest(vector, 3) == []


def test_what_is_gone_is_given_no_longer_once_it_was_missed(desk: Desk) -> None:
    key = desk.put("how do I pay")
    desk.put("something else")
    desk.memory.delete(key)
    if desk.store is not None:
        desk.store.delete(key)
    assert desk.found("how do I pay", count=1) == ["something else"]
    space = desk.spaces.space(hint_of("").partition)
    assert len(space) == 1


# -- the store, and other processes --------------------------------------------------------------


def test_a_new_process_finds_what_an_older_one_stored(make: Make) -> None:
    first = make()
    for number in range(30):
        first.put(f"question {number}")
    first.flush()
    second = make()
    for number in (0, 29):
        assert second.found(f"question {number}", count=1) == [f"question {number}"]


def test_two_on_one_store_find_each_other_s_questions(make: Make) -> None:
    one, other = make(), make()
    assert one.found("asked first") == other.found("asked later") == []
    one.put("asked first")
    one.flush()
    assert other.found("asked first") == ["asked first"]
    other.put("asked later")
    other.flush()
    assert set(one.found("asked later")) == {"asked later", "asked first"}


def test_a_large_partition_answers_at_once_and_is_read_to_its_end_meanwhile(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    for number in range(120):
        first.put(f"question {number}")
    first.flush()
    monkeypatch.setattr(spaces_module, "AT_ONCE", 10)
    monkeypatch.setattr(spaces_module, "PAGE", 7)
    second = make()
    second.found("question 119")
    settled(second)
    assert len(second.spaces.space(hint_of("").partition)) == 120
    assert second.found("question 0", count=1) == ["question 0"]


def test_a_question_stored_while_older_ones_are_read_is_not_missed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces_module, "AT_ONCE", 3)
    one, other = make(), make()
    for number in range(20):
        one.put(f"question {number}")
        one.flush()
        assert other.found(f"question {number}", count=1) == [f"question {number}"]
    settled(other)
    assert len(other.spaces.space(hint_of("").partition)) == 20


def test_another_process_s_purge_leaves_nothing_to_be_found(make: Make) -> None:
    one, other = make(), make()
    for number in range(40):
        one.put(f"question {number}")
    one.flush()
    kept = other.put("stays", "q")
    other.flush()
    assert len(one.found("question 1")) == 3
    assert other.store is not None
    other.store.purges.append(Selector(older_than=other.clock.wall() + 1))
    assert one.found("question 1") == []
    settled(one)
    assert len(one.spaces.space(hint_of("").partition)) == 0
    assert one.question(kept.digest) is None


def test_rows_of_purged_and_evicted_entries_are_swept_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces_module, "STALE_FROM", 20)
    keys = [desk.put(f"question {number}") for number in range(60)]
    if desk.store is not None:
        desk.flush()
        desk.found("x")
    for key in keys[:40]:
        desk.memory.delete(key)
        if desk.store is not None:
            desk.store.delete(key)
    space = desk.spaces.space(hint_of("").partition)
    settled(desk)
    assert len(space) >= 20
    for number in range(60, 130):
        desk.put(f"question {number}")
        settled(desk)
    assert {*space._names()} >= {key_of(f"p/question {n}").digest for n in range(40, 130)}
    assert len(space) < 115, "most of the 40 that are gone were swept out by now"


def test_damaged_and_foreign_rows_are_passed_over_and_made_anew(make: Make, tmp_path: Path) -> None:
    first = make()
    for number in range(3):
        first.put(f"question {number}")
    first.flush()
    behind = apsw.Connection(str(tmp_path / "answers.db"))
    for number, value in enumerate((b"\x01\x05abc", b"\x01\x05fixed\x00torn")):
        digest = key_of(f"p/question {number}").digest
        behind.execute("UPDATE questions SET value=? WHERE digest=?", (value, digest))
    second = make()
    assert second.found("question 2", count=1) == ["question 2"]
    settled(second)
    assert second.found("question 0", count=1) == ["question 0"]
    assert sorted(second.embedder.asked) == ["question 0", "question 1"]


def test_a_store_that_cannot_be_read_finds_what_is_in_memory_and_says_so(make: Make) -> None:
    desk = make()
    desk.put("how do I pay")
    desk.found("x")
    desk.flush()
    assert desk.store is not None
    desk.store.close()
    assert desk.found("how do I pay") == ["how do I pay"]
    assert desk.found("how do I pay", "never read") == []
    assert desk.spaces.failures >= 2
    settled(desk)


# -- embedders -----------------------------------------------------------------------------------


def test_a_vector_that_came_too_late_is_made_in_the_background(desk: Desk) -> None:
    desk.put("how do I pay", timely=False)
    if desk.store is not None:
        desk.flush()
    desk.found("x")
    settled(desk)
    assert desk.found("how do I pay") == ["how do I pay"]


def test_vectors_of_another_embedder_are_never_compared_and_made_anew(make: Make) -> None:
    old = make(embedder=Fixed("older"))
    for number in range(20):
        old.put(f"question {number}")
    old.flush()
    gate = Gated("newer")
    new = make(embedder=gate)
    assert new.found("question 3") == [], "not before they were embedded again"
    gate.open()
    settled(new)
    assert new.found("question 3", count=1) == ["question 3"]
    assert len(gate.asked) == 20
    another = make(embedder=Fixed("newer"))
    assert another.found("question 3", count=1) == ["question 3"], "the store has the new vectors"
    assert another.embedder.asked == []


class Gated(Fixed):
    """Embeds nothing until it is opened."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._gate = threading.Event()

    def open(self) -> None:
        self._gate.set()

    def embed(self, texts: Any) -> Any:
        assert self._gate.wait(SETTLING)
        return super().embed(texts)


def test_a_text_that_cannot_be_embedded_costs_the_others_nothing(make: Make) -> None:
    desk = make()
    desk.embedder.failing.add("question 4")
    for number in range(9):
        desk.put(f"question {number}", timely=False)
    desk.flush()
    desk.found("x")
    settled(desk)
    space = desk.spaces.space(hint_of("").partition)
    assert len(space) == 8
    assert desk.found("question 3", count=1) == ["question 3"]


def test_an_embedder_that_fails_is_left_alone_for_a_while(make: Make) -> None:
    desk = make()
    desk.embedder.failing |= {f"question {number}" for number in range(9)}
    for number in range(9):
        desk.put(f"question {number}", timely=False)
    desk.flush()
    for _ in range(5):
        desk.found("x")
        settled(desk)
    assert len(desk.embedder.asked) <= 2 * 9


def test_without_an_embedder_wordings_are_found_and_nothing_else(make: Make) -> None:
    desk = make()
    desk.put("how do I pay")
    desk.flush()
    spaces = spaces_module.Spaces(desk.memory, desk.store, None)
    space = spaces.space(hint_of("").partition)
    assert space.alike(desk.hint("How do i pay?").fingerprint) == [key_of("p/how do I pay").digest]
    assert space.nearest(vector_of("how do I pay"), 3) == []
    spaces.close()


# -- bounds --------------------------------------------------------------------------------------


def test_partitions_asked_for_longest_ago_make_room(desk: Desk) -> None:
    desk.spaces.max_bytes = 60_000
    for number in range(200):
        desk.put(f"question {number}", f"conversation {number}")
        desk.found("x", f"conversation {number}")
    assert desk.spaces.nbytes <= 60_000
    assert 5 < len(desk.spaces) < 100
    if desk.store is not None:
        assert desk.found("question 0", "conversation 0") == ["question 0"], "read again"


def test_a_partition_larger_than_all_room_holds_its_newest_questions(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AT_ONCE", "PAGE", "LATELY"):
        monkeypatch.setattr(spaces_module, name, 30)
    first = make()
    for number in range(600):
        first.put(f"question {number}")
    first.flush()
    second = make(max_bytes=100_000)
    second.found("x")
    settled(second)
    space = second.spaces.space(hint_of("").partition)
    assert 100 < len(space) < 400
    assert second.spaces.nbytes <= 100_000
    assert second.found("question 599", count=1) == ["question 599"]
    for number in range(600, 1000):
        second.put(f"question {number}")
        second.found("x", count=1)
    settled(second)
    assert second.spaces.nbytes <= 100_000
    assert second.found("question 999", count=1) == ["question 999"]


def test_in_memory_the_oldest_questions_of_a_partition_make_room(make: Make) -> None:
    desk = make(stored=False, max_bytes=250_000)
    for number in range(2000):
        desk.put(f"question {number}")
        if number % 50 == 0:
            settled(desk)
    settled(desk)
    assert desk.spaces.nbytes <= 250_000
    assert desk.found("question 1999", count=1) == ["question 1999"]
    assert desk.found("question 0", count=1) != ["question 0"]


def test_keys_that_memory_no_longer_has_are_forgotten(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces_module, "LOCALS_FROM", 50)
    desk = make(stored=False)
    for number in range(500):
        desk.memory.delete(desk.put(f"question {number}"))
    assert len(desk.spaces._locals) <= 51


# -- many rows -----------------------------------------------------------------------------------


def test_of_rows_that_move_into_a_graph_99_in_100_are_found_at_every_moment(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "GRAPH_FROM", 100)
    monkeypatch.setattr(space_module, "MOVE_FROM", 40)
    monkeypatch.setattr(space_module, "MOVED", 7)
    desk = make(stored=False)
    found = []
    for number in range(300):
        desk.put(f"question {number}")
        for asked in (f"question {each}" for each in (0, number // 2, number)):
            found.append(desk.found(asked, count=1) == [asked])
    assert sum(found) / len(found) >= RECALL
    settled(desk)
    space = desk.spaces.space(hint_of("").partition)
    assert len(space) == 300
    assert space._graph is not None
    assert len(space._graph) > 100
    desk.memory.delete(key_of("p/question 5"))
    assert desk.found("question 5", count=1) != ["question 5"]
    assert len(space) == 299


def test_a_row_forgotten_while_it_is_moved_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = space_module.Space(b"p", "fixed", WIDTH)
    for name in (b"a", b"b"):
        vector = packed_bytes(vector_of(name.decode()))
        space.add(name, hint_of("", embedder="fixed", vector=vector))
    put = space_module.GraphIndex.put

    def forgetting(graph: Any, name: bytes, vector: Any) -> None:
        put(graph, name, vector)
        if name == b"b":
            space.forget(b"b")

    monkeypatch.setattr(space_module.GraphIndex, "put", forgetting)
    assert space.move()
    assert [near.name for near in space.nearest(vector_of("b"), 3)] == [b"a"]


# -- forks ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_finds_and_adds_though_a_lock_was_held(desk: Desk) -> None:
    desk.put("how do I pay")
    if desk.store is not None:
        desk.flush()
    space = desk.spaces.space(hint_of("").partition)
    with space._lock, desk.spaces._lock:
        child = os.fork()
        if child == 0:
            right = desk.found("how do I pay") == ["how do I pay"]
            desk.put("asked by the child")
            right &= desk.found("asked by the child", count=1) == ["asked by the child"]
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


# -- against a plain dict ------------------------------------------------------------------------


class Questions(RuleBasedStateMachine):
    """Two processes on one store, each compared with all that is known to be stored."""

    texts = st.integers(0, 30).map("question {}".format)
    partitions = st.sampled_from("pq")
    sides = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path, clock = Path(self.folder.name) / "answers.db", FakeClock()
        self.desks = [Desk(path, clock), Desk(path, clock)]
        self.stored: dict[tuple[str, str], bool] = {}  # (partition, text)

    @rule(side=sides, text=texts, partition=partitions, timely=st.booleans())
    def put(self, side: int, text: str, partition: str, timely: bool) -> None:
        self.desks[side].put(text, partition, timely=timely)
        self.desks[side].flush()
        self.stored[partition, text] = True

    @rule(side=sides, text=texts, partition=partitions)
    def delete(self, side: int, text: str, partition: str) -> None:
        store = self.desks[side].store
        assert store is not None
        purged = store.purges.append(Selector(key=key_of(f"{partition}/{text}").digest))[1]
        assert (purged > 0) is (self.stored.pop((partition, text), None) is not None)

    @rule(side=sides)
    def purge_all(self, side: int) -> None:
        store = self.desks[side].store
        assert store is not None
        store.purges.append(Selector())
        self.stored.clear()

    @rule(side=sides)
    @precondition(lambda self: self.stored)
    def begin_anew(self, side: int) -> None:
        self.desks[side].spaces.close()
        self.desks[side].spaces = self.desks[side].opened()

    @rule(side=sides, text=texts, partition=partitions)
    def find(self, side: int, text: str, partition: str) -> None:
        desk = self.desks[side]
        desk.found(text, partition)  # reads what there is; vectors that were late are made then
        assert desk.spaces.settle(SETTLING)
        there = [told for where, told in self.stored if where == partition]
        asked = vector_of(text)
        near = {told: float(kept_of(told) @ asked) for told in there}
        found = desk.found(text, partition, count=1)
        assert len(found) == min(1, len(near))
        assert all(near[told] == pytest.approx(max(near.values()), abs=1e-5) for told in found)
        alike = desk.alike(text, partition)
        assert [told for told in alike if told is not None] == [text] * (text in there)

    def teardown(self) -> None:
        for desk in self.desks:
            desk.close()
        self.folder.cleanup()


TestQuestions = Questions.TestCase
TestQuestions.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
