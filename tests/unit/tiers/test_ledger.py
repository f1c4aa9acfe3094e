"""What is learned of answers, in the store: added to by many, bounded, and under its key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from thinkonce.errors import TierError
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.testing.clock import FakeClock
from thinkonce.tiers import ledger_table
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.ledger_table import KEPT_SECONDS, LedgerTable
from thinkonce.tiers.sqlite import SqliteTier

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextmanager
def opened(path: Path, clock: FakeClock, *keys: bytes) -> Iterator[SqliteTier]:
    host = HostFile(host_path(path))
    try:
        cipher = Cipher(keys) if keys else None
        tier = SqliteTier(path, secret=b"s" * 32, host=host, clock=clock.clock, cipher=cipher)
        try:
            yield tier
        finally:
            tier.close()
    finally:
        host.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


def put(ledger: LedgerTable, group: str, **data: bytes) -> None:
    written = {name.encode(): value for name, value in data.items()}
    ledger.update(group, written, lambda held: written)


def test_a_group_is_what_was_written_to_it_and_no_other(path: Path, clock: FakeClock) -> None:
    with opened(path, clock) as tier:
        assert tier.ledger.read("one") == {}, "reading makes no table"
        put(tier.ledger, "one", a=b"1", b=b"2")
        put(tier.ledger, "two", a=b"3")
        assert tier.ledger.read("one") == {b"a": b"1", b"b": b"2"}
        assert tier.ledger.read("one", b"b") == {b"b": b"2"}
        assert tier.ledger.read("one", b"c") == {}
    with opened(path, clock) as tier:
        assert tier.ledger.read("two") == {b"a": b"3"}


def test_who_writes_sees_what_is_held_of_the_names_it_gave(path: Path, clock: FakeClock) -> None:
    seen = []
    with opened(path, clock) as tier:
        put(tier.ledger, "one", a=b"1", b=b"2")

        def change(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
            seen.append(held)
            return {b"a": held[b"a"] + b"!"}

        tier.ledger.update("one", [b"a", b"c"], change)
        assert seen == [{b"a": b"1"}]
        assert tier.ledger.read("one") == {b"a": b"1!", b"b": b"2"}


def test_nothing_is_written_where_the_change_fails(path: Path, clock: FakeClock) -> None:
    with opened(path, clock) as tier:
        put(tier.ledger, "one", a=b"1")
        with pytest.raises(ZeroDivisionError):
            tier.ledger.update("one", [b"a"], lambda held: {b"a": bytes(1 // 0)})
        assert tier.ledger.read("one") == {b"a": b"1"}


def test_many_add_to_one_account_and_none_undoes_another(path: Path, clock: FakeClock) -> None:
    def one_more(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return {b"": b"%d" % (int(held.get(b"", b"0")) + 1)}

    with opened(path, clock) as tier, opened(path, clock) as other:

        def work(which: SqliteTier) -> None:
            done = 0
            while done < 30:
                try:
                    which.ledger.update("one", [b""], one_more)
                    done += 1
                except TierError:  # another one's turn took too long
                    continue

        threads = [threading.Thread(target=work, args=(which,)) for which in (tier, other) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert tier.ledger.read("one") == {b"": b"120"}


def test_a_group_keeps_what_was_written_last_and_its_head(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_table, "MOST_NAMES", 3)
    with opened(path, clock) as tier:
        tier.ledger.update("one", [b""], lambda held: {b"": b"head"})
        put(tier.ledger, "two", a=b"another group's")
        for name in "abcde":
            clock.advance(1)
            put(tier.ledger, "one", **{name: b"1"})
        assert sorted(tier.ledger.read("one")) == [b"", b"c", b"d", b"e"]
        assert tier.ledger.read("two") == {b"a": b"another group's"}


def test_what_nobody_wrote_to_for_months_goes_when_something_new_comes(
    path: Path, clock: FakeClock
) -> None:
    with opened(path, clock) as tier:
        put(tier.ledger, "old", a=b"1")
        clock.advance(KEPT_SECONDS - 10)
        put(tier.ledger, "fresh", a=b"1")
        clock.advance(20)
        put(tier.ledger, "new", a=b"1")
        assert tier.ledger.read("old") == {}
        assert tier.ledger.read("fresh") == {b"a": b"1"}


def test_a_damaged_row_is_as_good_as_none(path: Path, clock: FakeClock) -> None:
    with opened(path, clock) as tier:
        put(tier.ledger, "one", a=b"1", b=b"2")
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE ledger SET value = x'ff00' WHERE name = x'61'")
        connection.close()
        assert tier.ledger.read("one") == {b"b": b"2"}
        put(tier.ledger, "one", a=b"3")
        assert tier.ledger.read("one") == {b"a": b"3", b"b": b"2"}


def test_with_a_key_neither_groups_nor_values_can_be_read_in_the_file(
    path: Path, clock: FakeClock
) -> None:
    with opened(path, clock, NEW) as tier:
        put(tier.ledger, "MarkedSpace", a=b"MarkedValue")
        assert tier.ledger.read("MarkedSpace") == {b"a": b"MarkedValue"}
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"Marked" not in files
    with opened(path, clock, OLD) as tier:
        assert tier.ledger.read("MarkedSpace") == {}, "another key opens nothing"
        put(tier.ledger, "MarkedSpace", a=b"mine")
    with opened(path, clock, NEW) as tier:
        assert tier.ledger.read("MarkedSpace") == {b"a": b"MarkedValue"}, "and removes nothing"


@pytest.mark.parametrize("before", [(), (OLD,)])
def test_what_was_plain_or_under_an_older_key_is_brought_under_the_new_one(
    path: Path, clock: FakeClock, before: tuple[bytes, ...]
) -> None:
    with opened(path, clock, *before) as tier:
        put(tier.ledger, "MarkedSpace", a=b"MarkedValue", b=b"2")
    with opened(path, clock, NEW, *before) as tier:
        assert tier.ledger.read("MarkedSpace") == {b"a": b"MarkedValue", b"b": b"2"}
        put(tier.ledger, "MarkedSpace", a=b"MarkedAgain")
        assert tier.ledger.read("MarkedSpace") == {b"a": b"MarkedAgain", b"b": b"2"}
        tier.tidy()
    with opened(path, clock, NEW) as tier:
        assert tier.ledger.read("MarkedSpace") == {b"a": b"MarkedAgain", b"b": b"2"}
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"Marked" not in files


@pytest.mark.parametrize("keys", [(), (OLD,)])
def test_groups_with_a_head_are_listed_by_their_names(
    path: Path, clock: FakeClock, keys: tuple[bytes, ...]
) -> None:
    with opened(path, clock, *keys) as tier:
        assert tier.ledger.groups() == []
        for group in ("one", "other"):
            tier.ledger.update(group, (b"",), lambda _: {b"": b"head"})
        put(tier.ledger, "headless", a=b"1")
        assert tier.ledger.groups() == ["one", "other"]
    with opened(path, clock, NEW) as tier:
        assert tier.ledger.groups() == ([] if keys else ["one", "other"])
