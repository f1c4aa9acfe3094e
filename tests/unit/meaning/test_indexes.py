"""Both indexes against a dict and a matrix product."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thinkonce.meaning.index import flat as flat_index
from thinkonce.meaning.index.flat import FlatIndex
from thinkonce.meaning.index.graph import GraphIndex
from thinkonce.meaning.index.packed import pack, packed_bytes, unpack, unpack_all

WIDTH = 64
CLOSE = 0.01  # of a cosine: what packing may cost at 64 dimensions
Index = FlatIndex | GraphIndex


def vector_of(seed: int) -> Any:
    found = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return found / np.linalg.norm(found)


class Compared(RuleBasedStateMachine):
    """Rows come, change and go; what a search gives is what a model gives."""

    make: Any = FlatIndex

    def __init__(self) -> None:
        super().__init__()
        self.index: Index = type(self).make(WIDTH)
        self.model: dict[bytes, Any] = {}

    @rule(name=st.integers(0, 40), seed=st.integers(0, 10_000))
    def put(self, name: int, seed: int) -> None:
        vector = vector_of(seed)
        self.index.put(b"%d" % name, pack(vector))
        self.model[b"%d" % name] = vector

    @rule(name=st.integers(0, 40))
    def remove(self, name: int) -> None:
        known = self.model.pop(b"%d" % name, None) is not None
        assert self.index.remove(b"%d" % name) is known

    @rule(seed=st.integers(0, 10_000), count=st.integers(1, 6))
    def search(self, seed: int, count: int) -> None:
        vector = vector_of(seed)
        found = self.index.search(vector, count)
        wanted = sorted((float(row @ vector) for row in self.model.values()), reverse=True)[:count]
        assert [near.similarity for near in found] == pytest.approx(wanted, abs=CLOSE)
        for near in found:
            exact = float(self.model[near.name] @ vector)
            assert near.similarity == pytest.approx(exact, abs=CLOSE)

    @rule(seed=st.integers(0, 10_000))
    def find_itself(self, seed: int) -> None:
        for name, vector in list(self.model.items())[:1]:
            assert self.index.search(vector, 1)[0].similarity == pytest.approx(1, abs=CLOSE)
            assert name in self.index

    @invariant()
    def as_many(self) -> None:
        assert len(self.index) == len(self.model)
        assert {name for name, _ in self.index.rows()} == set(self.model)


class ComparedBlocks(Compared):
    """Blocks so small that rows cross them all the time."""

    def __init__(self) -> None:
        super().__init__()
        self._block, flat_index.BLOCK = flat_index.BLOCK, 4

    def teardown(self) -> None:
        flat_index.BLOCK = self._block


class ComparedGraph(Compared):
    make = GraphIndex


TestFlat = Compared.TestCase
TestGraph = ComparedGraph.TestCase
TestBlocks = ComparedBlocks.TestCase
TestFlat.settings = TestGraph.settings = TestBlocks.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None
)


@pytest.fixture(params=[FlatIndex, GraphIndex])
def index(request: pytest.FixtureRequest) -> Index:
    made: Index = request.param(WIDTH)
    return made


def test_an_empty_index_finds_nothing(index: Index) -> None:
    assert index.search(vector_of(1), 5) == []


def test_threads_that_write_and_search_see_whole_rows(index: Index) -> None:
    vectors = {b"%d" % n: vector_of(n) for n in range(200)}
    wrong: list[object] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            question = vector_of(7)
            for name, similarity in index.search(question, 3):
                if abs(float(vectors[name] @ question) - similarity) > CLOSE:
                    wrong.append((name, similarity))

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()
    for _ in range(3):
        for name, vector in vectors.items():
            index.put(name, pack(vector))
        for name in list(vectors)[::2]:
            index.remove(name)
    stop.set()
    for thread in searching:
        thread.join()
    assert wrong == []
    assert len(index) == 100


def test_memory_is_given_back(index: Index) -> None:
    if isinstance(index, GraphIndex):
        pytest.skip("usearch keeps what it has for rows to come")
    for n in range(1000):
        index.put(b"%d" % n, pack(vector_of(n)))
    full = index.nbytes
    for n in range(990):
        index.remove(b"%d" % n)
    assert index.nbytes < full / 10


def test_rows_added_together_are_found_like_those_added_one_by_one() -> None:
    index = FlatIndex(WIDTH)
    index.put(b"first", pack(vector_of(0)))
    names = [b"%d" % n for n in range(1, 70)]
    index.extend(names, *unpack_all([packed_bytes(vector_of(n)) for n in range(1, 70)])[:2])
    assert len(index) == 70
    for n in (1, 35, 69):
        assert index.search(vector_of(n), 1)[0].name == b"%d" % n
    assert index.remove(b"1")
    assert index.search(vector_of(69), 1)[0].name == b"69"
    assert sorted(index.names()) == sorted([b"first", *names[1:]])


def test_the_nearest_of_many_rows_are_the_nearest_of_all() -> None:
    count, width = 30_000, 8  # more rows than are ranked one by one
    rows = np.random.default_rng(5).standard_normal((count, width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = FlatIndex(width)
    packed = [packed_bytes(row) for row in rows]
    index.extend([b"%d" % n for n in range(count)], *unpack_all(packed)[:2])
    for question in rows[::5000]:
        found = index.search(question, 5)
        wanted = np.sort(rows @ question)[::-1][:5]
        assert [near.similarity for near in found] == pytest.approx(wanted, abs=0.02)


def test_a_packed_vector_comes_back_and_a_damaged_one_does_not() -> None:
    vector = vector_of(3)
    packed = packed_bytes(vector)
    numbers, scale = unpack(packed, WIDTH)
    assert float(numbers.astype(np.float32) @ vector) * scale == pytest.approx(1, abs=CLOSE)
    for damaged in (packed[:-1], packed + b"x", b"\0" * len(packed), b"\xff" * len(packed), b""):
        with pytest.raises(ValueError, match=r"scale|bytes"):
            unpack(damaged, WIDTH)
