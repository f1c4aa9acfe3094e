"""Vectors in time or not at all: shared, batched, remembered, and harmless when they fail."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from thinkonce.circuit import FAILURES_IN_A_ROW, PAUSE_SECONDS
from thinkonce.clock import Clock
from thinkonce.meaning.embedders.embedder import Vectors
from thinkonce.meaning.embedders.embeddings import MOST_WAITING, Embeddings

LONG = 20.0


class Letters:
    """Counts letters. Waits, fails or answers nonsense when a test says so."""

    name, family, dimensions, concurrency = "letters", "", 26, 1

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go, self.began = threading.Event(), threading.Event()
        self.go.set()
        self.spoil: Callable[[Vectors], object] = lambda rows: rows
        self.closed = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.began.set()
        self.go.wait()
        if any("poison" in text for text in texts):
            raise ValueError("poison")
        rows = np.ones((len(texts), 26), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text:
                row[ord(letter) % 26] += 1
        return self.spoil(rows)  # type: ignore[return-value]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def embeddings(letters: Letters) -> Iterator[Embeddings]:
    made = Embeddings(letters, timeout=LONG)
    yield made
    letters.go.set()
    made.close()


def test_a_vector_is_made_once_and_then_remembered(
    embeddings: Embeddings, letters: Letters
) -> None:
    first, second = embeddings.get("hello"), embeddings.get("hello")
    assert first is second
    assert first is not None
    assert np.linalg.norm(first) == pytest.approx(1)
    assert letters.calls == [["hello"]]


def test_a_vector_can_be_begun_and_looked_for_later(
    embeddings: Embeddings, letters: Letters
) -> None:
    assert embeddings.known("hello") is None
    letters.go.clear()
    embeddings.begin("hello")
    assert embeddings.known("hello") is None, "it is being made"
    letters.go.set()
    assert embeddings.get("hello") is embeddings.known("hello")
    assert letters.calls == [["hello"]]


def test_nobody_can_change_what_others_get(embeddings: Embeddings) -> None:
    vector = embeddings.get("hello")
    assert vector is not None
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 5


def test_askers_at_once_share_the_making_and_later_texts_are_made_together(
    embeddings: Embeddings, letters: Letters
) -> None:
    letters.go.clear()
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(embeddings.get, "one")
        letters.began.wait()
        others = [pool.submit(embeddings.get, text) for text in ["one", "two", "three"] * 3]
        while len(embeddings._queue) < 2:
            pass
        letters.go.set()
        assert all(found.result() is not None for found in [first, *others])
    assert letters.calls[0] == ["one"]
    assert sorted(letters.calls[1]) == ["three", "two"]


def test_who_cannot_have_it_in_time_goes_on_without_and_the_next_one_has_it(
    embeddings: Embeddings, letters: Letters
) -> None:
    letters.go.clear()
    assert embeddings.get("slow", timeout=0.0) is None
    assert embeddings.late == 1
    letters.go.set()
    assert embeddings.get("slow") is not None
    assert letters.calls == [["slow"]]


def test_one_bad_text_costs_the_others_nothing(embeddings: Embeddings, letters: Letters) -> None:
    letters.go.clear()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(embeddings.get, "one")
        letters.began.wait()
        texts = ["two", "poison", "three"]
        others = [pool.submit(embeddings.get, text) for text in texts]
        while len(embeddings._queue) < 3:
            pass
        letters.go.set()
        assert first.result() is not None
        assert [found.result() is not None for found in others] == [True, False, True]
    assert embeddings.failures == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows * np.nan,
        lambda rows: rows * 0,
        lambda rows: rows[:, :7],
        lambda rows: rows[:-1],
        lambda rows: [[1.0], [1.0, 2.0]],
        lambda rows: "vectors",
    ],
    ids=["nan", "zero", "other dimension", "one too few", "ragged", "text"],
)
def test_nonsense_is_no_vector(
    embeddings: Embeddings, letters: Letters, spoil: Callable[[Vectors], object]
) -> None:
    letters.spoil = spoil
    assert embeddings.get("hello") is None
    assert embeddings.failures == 1
    letters.spoil = lambda rows: rows
    assert embeddings.get("hello") is not None


def test_after_failures_in_a_row_it_is_left_alone_for_a_while(letters: Letters) -> None:
    now = [0.0]
    embeddings = Embeddings(letters, timeout=LONG, clock=Clock(lambda: 0.0, lambda: now[0]))
    for n in range(FAILURES_IN_A_ROW + 3):
        assert embeddings.get(f"poison {n}") is None
    assert len(letters.calls) == FAILURES_IN_A_ROW
    assert embeddings.refused == 3
    now[0] += PAUSE_SECONDS
    assert embeddings.get("hello") is not None
    embeddings.close()


def test_the_queue_is_bounded(embeddings: Embeddings, letters: Letters) -> None:
    letters.go.clear()
    embeddings.get("first", timeout=0.0)
    letters.began.wait()
    for n in range(MOST_WAITING + 5):
        assert embeddings.get(str(n), timeout=0.0) is None
    assert embeddings.refused == 5


def test_what_is_remembered_is_bounded(letters: Letters) -> None:
    embeddings = Embeddings(letters, timeout=LONG, max_bytes=5000)
    for n in range(100):
        embeddings.get(f"text {n}")
    assert embeddings._bytes <= 5000
    assert 0 < len(embeddings._known) < 15
    embeddings.close()


def test_closing_ends_the_threads_and_whoever_waits(letters: Letters) -> None:
    embeddings = Embeddings(letters, timeout=LONG)
    assert embeddings.get("hello") is not None
    embeddings.close()
    embeddings.close()
    assert letters.closed
    assert embeddings.get("other") is None
    assert not any(thread.is_alive() for thread in embeddings._threads)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_vectors_of_its_own(embeddings: Embeddings) -> None:
    assert embeddings.get("parent") is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if embeddings.get("child") is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
