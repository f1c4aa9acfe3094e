"""A question goes where its entry goes: into an export, another store, another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkonce.backing import Crossing
from thinkonce.entry import Entry, Form, Meta
from thinkonce.freshness import Rules
from thinkonce.insight.carried import carried, entry_from, line_of, read_line
from thinkonce.insight.moving import Importer, export_lines, read_opening
from thinkonce.likeness import Hint
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.steps import Made
from thinkonce.testing.entries import hint_of
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.keyring import Keyring
from thinkonce.tiers.tier import Key

SECRET = "m" * 32
DIGEST = bytes(range(32))
HINT = hint_of("限额是多少", vector=bytes(range(256)))


def entry_with(hint: Hint | None) -> Entry:
    return Entry(None, b"x", Meta(), DIGEST, payload_size=1, form=Form.ENCODED, hint=hint)


@pytest.fixture
def shelves(tmp_path: Path) -> Iterator[tuple[Shelf, Shelf]]:
    made = [
        open_shelf(
            f"sqlite:///{tmp_path / name}.db",
            Rules(),
            keys=Keyring(SECRET),
            max_bytes=2**24,
            store_max_bytes=2**24,
            policy="cost",
        )
        for name in ("one", "other")
    ]
    yield made[0], made[1]
    for shelf in made:
        shelf.close()


def lines_of(shelf: Shelf, hint: Hint | None) -> list[bytes]:
    assert shelf.store is not None
    shelf.store.put(Key(DIGEST, DIGEST), entry_with(hint))
    assert shelf.store.flush(10)
    return list(export_lines(shelf, Selector()))


def test_an_export_carries_the_question_whole(shelves: tuple[Shelf, Shelf]) -> None:
    one, other = shelves
    lines = lines_of(one, HINT)
    importer = Importer(other, read_opening(lines[0]), None, 2**20)
    assert [importer.take(n, line) for n, line in enumerate(lines[1:], start=2)] == [""] * 2
    assert importer.settle() == []
    assert other.store is not None
    found = other.store.get(Key(DIGEST, DIGEST))
    assert found is not None
    assert found.hint == Hint(HINT.partition, HINT.text)
    row = other.store.questions.of(DIGEST)
    assert row is not None
    assert row[2:] == (HINT.embedder, HINT.vector, HINT.fingerprint)


def test_a_question_of_one_tenant_is_none_of_another_s() -> None:
    item = read_line(line_of(carried(entry_with(HINT), HINT)))
    assert entry_from(item, DIGEST).hint == HINT
    assert entry_from(item, DIGEST, "another").hint is None


def test_a_line_without_a_question_is_as_it_was_before_there_were_any() -> None:
    line = line_of(carried(entry_with(None), None))
    assert b"hint" not in line
    assert read_line(line).check == read_line(line_of(carried(entry_with(None), None))).check


def test_a_question_that_is_no_text_stays_behind_alone() -> None:
    hint = Hint(HINT.partition, "\ud83d")
    assert b"hint" not in line_of(carried(entry_with(hint), hint))


def test_a_follower_in_another_process_sees_which_question_was_answered() -> None:
    crossing = Crossing(Codec(bytes(32)))
    landed = crossing.decode(crossing.encode(Made(None, entry_with(HINT), None)))
    assert isinstance(landed, Made)
    assert landed.entry.hint == Hint(HINT.partition, HINT.text)
