"""A question goes where its entry goes: into an export, another store, another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from thinkonce.backing import Crossing
from thinkonce.entry import Entry, Form, Meta
from thinkonce.errors import CorruptEntry
from thinkonce.freshness import Rules
from thinkonce.insight.carried import Carried, carried, line_of, read_line
from thinkonce.insight.carried_hint import hint_for
from thinkonce.insight.moving import Importer, export_lines, read_opening
from thinkonce.likeness import Hint
from thinkonce.protocols.question import question_in
from thinkonce.request.kept import KeptRequest, pack
from thinkonce.request.key import Keyer
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.steps import Made
from thinkonce.testing.entries import hint_of
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.keyring import Keyring
from thinkonce.tiers.tier import Key

SECRET = "m" * 32
DIGEST = bytes(range(32))
HINT = replace(hint_of("限额是多少", vector=bytes(range(256))), member=b"who asked")


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
    assert found.hint == Hint(HINT.partition, HINT.text, member=HINT.member)
    row = other.store.questions.of(DIGEST)
    assert row is not None
    assert row[2:] == (HINT.embedder, HINT.vector, HINT.fingerprint, HINT.member)


def asked_for(text: str, tenant: str = "one") -> KeptRequest:
    identity = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return KeptRequest("chat/completions", "main", tenant, identity=identity)


def partition_for(tenant: str) -> bytes:
    """What a gateway would make of such a request, whatever its question says."""
    parts = asked_for("", tenant)
    question = question_in(parts.identity)
    assert question is not None
    return Keyer(bytes(32)).partition_of(replace(parts, identity=question.rest).parts())


def line_with(hint: Hint, text: str = HINT.text) -> Carried:
    entry = entry_with(hint)
    entry.request = pack(asked_for(text).parts())
    return read_line(line_of(carried(entry, hint)))


def test_a_question_moves_into_the_partition_of_whom_it_is_carried_to() -> None:
    hint = replace(HINT, partition=partition_for("one"))
    found = hint_for(line_with(hint), Keyer(bytes(32)), "another")
    assert found == replace(hint, partition=partition_for("another"), member=b"")
    assert hint_for(line_with(hint), Keyer(bytes(32)), None) == hint


def test_a_partition_that_a_line_makes_up_is_not_believed() -> None:
    found = hint_for(line_with(HINT), Keyer(bytes(32)), None)
    assert found is not None
    assert found.partition == partition_for("one") != HINT.partition


@pytest.mark.parametrize(
    "changed", [{}, {"override": True, "label": "l"}, {"sample": 1}], ids=["text", "label", "nth"]
)
def test_a_hint_that_is_not_its_requests_question_fails_its_line(changed: dict[str, Any]) -> None:
    item = line_with(HINT, "another question")
    if changed:
        item = replace(item, request=replace(asked_for(HINT.text), **changed))
    with pytest.raises(CorruptEntry, match="not the question of its request"):
        hint_for(item, Keyer(bytes(32)), None)


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
    assert landed.entry.hint == Hint(HINT.partition, HINT.text, member=HINT.member)
