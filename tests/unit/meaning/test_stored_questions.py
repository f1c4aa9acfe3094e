"""Stored questions as candidates: read from the tiers, forgotten only when they are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkonce.meaning.stored import Stored
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import hint_of
from thinkonce.testing.faults import FlakyTier
from unit.meaning.question_desk import Desk, vector_of

PARTITION = hint_of("").partition


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "answers.db", FakeClock())
    yield made
    made.close()


def found(stored: Stored, text: str) -> set[str]:
    space = stored.spaces.space(PARTITION)
    near = {candidate.question.text for candidate in stored.nearest(space, vector_of(text))}
    return near | {found.question.text for found in stored.in_the_same_words(space, text)}


def test_what_a_failing_store_cannot_show_now_is_there_when_it_works_again(desk: Desk) -> None:
    desk.put("How do I reset the router?")
    desk.flush()
    assert desk.store is not None
    flaky = FlakyTier(desk.store, "peek")
    stored = Stored(desk.spaces, lambda: (flaky,), desk.clock.clock)
    assert found(stored, "please how do i reset the router") == set()
    flaky.broken.clear()
    assert found(stored, "please how do i reset the router") == {"How do I reset the router?"}


def test_what_is_gone_is_forgotten(desk: Desk) -> None:
    key = desk.put("How do I reset the router?")
    desk.flush()
    assert desk.store is not None
    stored = Stored(desk.spaces, lambda: (desk.store,) if desk.store else (), desk.clock.clock)
    assert found(stored, "please how do i reset the router")
    assert desk.store.delete(key)
    assert found(stored, "please how do i reset the router") == set()
    space = desk.spaces.space(PARTITION)
    assert len(space) == 0
    assert space.alike(desk.hint("please how do i reset the router").fingerprint) == []
