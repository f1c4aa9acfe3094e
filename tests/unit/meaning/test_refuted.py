"""Pairs of questions that were found to be wrong for each other, and stay so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkonce.errors import TierError
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.meaning.audit import refuted as refuted_module
from thinkonce.meaning.audit.refuted import PAIR_BYTES, By, Refuted, pair_of
from thinkonce.tiers import ledger_table
from thinkonce.tiers.sqlite import SqliteTier

PARTITION = b"p" * 32
PAIR = pair_of(PARTITION, "How do I lose weight?", "How do I gain weight?")


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[SqliteTier]:
    path = tmp_path / "answers.db"
    found = SqliteTier(path, secret=b"s" * 32, host=HostFile(host_path(path)))
    yield found
    found.close()


class Failing:
    """A store that is not there."""

    def read(self, group: str, name: bytes | None = None) -> dict[bytes, bytes]:
        raise TierError("store", "refusing")

    def groups(self) -> list[str]:
        raise TierError("store", "refusing")

    def update(self, group: str, names: object, change: object) -> None:
        raise TierError("store", "refusing")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("How do I gain weight?", "How do I lose weight?", True),
        ("How do I lose weight ?!", "how do I gain weight, please...", True),
        ("How do I lose weight?", "How do I gain height?", False),
        ("How do I lose weight?", "How do I lose weight?", False),
        ("", "How do I lose weight? How do I gain weight?", False),
    ],
)
def test_a_pair_is_what_both_questions_say_whichever_was_first(
    one: str, other: str, same: bool
) -> None:
    assert (pair_of(PARTITION, one, other) == PAIR) is same
    assert len(pair_of(PARTITION, one, other)) == PAIR_BYTES
    assert pair_of(b"q" * 32, one, other) != PAIR


def test_texts_without_a_plain_form_and_odd_ones_are_pairs_too() -> None:
    assert pair_of(PARTITION, "?!", "\ud800") != pair_of(PARTITION, "!?", "\ud800")


@pytest.mark.parametrize("by", By)
def test_what_is_refuted_is_so_in_its_tenant_and_namespace(tier: SqliteTier, by: By) -> None:
    one, other = Refuted(tier.ledger), Refuted(tier.ledger)
    assert not other.knows("ann", "space", PAIR)
    one.add("ann", "space", PAIR, by)
    for process in (one, other):
        assert process.knows("ann", "space", PAIR), "at once, in every process"
        assert not process.knows("bob", "space", PAIR)
        assert not process.knows("ann", "", PAIR)


def test_audits_push_out_nothing_that_people_said(
    tier: SqliteTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_table, "MOST_NAMES", 3)
    one = Refuted(tier.ledger)
    one.add("ann", "", PAIR, By.SAID)
    pairs = [pair_of(PARTITION, "a", f"{number}") for number in range(9)]
    for pair in pairs:
        one.add("ann", "", pair, By.AUDITED)
    again = Refuted(tier.ledger)
    assert again.knows("ann", "", PAIR)
    assert sum(again.knows("ann", "", pair) for pair in pairs) == 3


def test_where_the_store_cannot_be_read_every_pair_may_be_refuted() -> None:
    assert Refuted(Failing()).knows("ann", "", PAIR)


def test_what_the_store_did_not_take_is_brought_with_the_next_one(tier: SqliteTier) -> None:
    one = Refuted(Failing())
    one.add("ann", "", PAIR, By.SAID)
    one._ledger = tier.ledger
    one.add("ann", "", pair_of(PARTITION, "a", "b"), By.SAID)
    assert Refuted(tier.ledger).knows("ann", "", PAIR)


def test_without_a_store_it_is_known_to_the_process_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refuted_module, "MOST_HELD", 4)
    one = Refuted()
    pairs = [pair_of(PARTITION, "a", f"{number}") for number in range(9)]
    for pair in pairs:
        one.add("ann", "", pair, By.SAID)
    assert [one.knows("ann", "", pair) for pair in pairs] == [False] * 5 + [True] * 4


def test_the_last_hits_of_an_entry_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refuted_module, "MOST_ASKED", 2)
    monkeypatch.setattr(refuted_module, "MOST_ENTRIES", 2)
    one = Refuted()
    for number in range(4):
        one.served(b"entry", b"%d" % number)
    assert one.lately(b"entry") == [b"2", b"3"]
    for number in range(2):
        one.served(b"%d" % number, b"pair")
    assert one.lately(b"entry") == []
