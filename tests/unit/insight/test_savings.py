"""What was saved: sums by dimension, exact, bounded, over processes and restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Meta
from thinkonce.errors import TierError
from thinkonce.freshness import Rules
from thinkonce.insight.savings import (
    COLUMNS,
    KEPT_HOURS,
    KEPT_NAMES,
    MOST_NAMES,
    MOST_REPEATS,
    Book,
    Repeats,
    Saved,
    Savings,
    by_dimension,
    fold,
    nanos,
)
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.keyring import Keyring
from thinkonce.tiers.savings_table import SavingsTable

HOUR = 3600.0


def row(tokens: int = 1) -> list[int]:
    return [1, 0, tokens, 10 * tokens, 5, 1, 0, 0]


NAMES = st.sampled_from(["", "a", "b", "other", "earlier", *(f"n{n}" for n in range(300))])
META = st.builds(
    Meta, model=NAMES, tenant=NAMES, namespace=NAMES, tags=st.lists(NAMES, max_size=3).map(tuple)
)
SAVED = st.tuples(
    st.sampled_from(Saved),
    META,
    st.booleans(),  # priced
    st.booleans(),  # estimated
    st.integers(0, 10**9),  # tokens
    st.integers(0, 10**12),  # nanos
    st.integers(0, 10**9),  # micros
    st.integers(0, 20_000_000),  # seconds that passed before it
)


@given(st.lists(SAVED, max_size=60))
def test_every_dimension_adds_up_to_the_total(saved: list[tuple]) -> None:
    now = [1_700_000_000.0]
    savings = Savings(lambda: now[0])
    tags = 0
    for kind, meta, priced, estimated, tokens, money, micros, passed in saved:
        now[0] += passed
        account = savings.account(kind, meta, priced=priced, estimated=estimated)
        account.add(tokens, money, micros)
        tags += tokens * max(len({*meta.tags}), 1)
        if passed % 3 == 0:
            savings.collect()
    book = savings.collect()
    expected = [sum(each[at] for each in saved) for at in (4, 5, 6)]
    assert book.total()[COLUMNS.index("tokens") :][:3] == expected
    assert book.total()[0] == len(saved)
    for dimension, names in book.rows.items():
        total = [sum(each[at] for each in names.values()) for at in range(len(COLUMNS))]
        if dimension == "tag":  # an answer with two tags is counted under each
            assert total[COLUMNS.index("tokens")] == tags
        elif names:
            assert total == book.total()


def test_names_that_clients_choose_are_bounded_and_the_greatest_stay() -> None:
    savings = Savings(lambda: 0.0)
    great = savings.account(Saved.HIT, Meta(namespace="great"))
    for n in map(str, range(3000)):
        great.add(10, 10, 0)
        savings.account(Saved.HIT, Meta(namespace=f"{n}", tenant=f"{n}", tags=(f"{n}",))).add(
            1, 1, 0
        )
        if n.endswith("0"):
            savings.collect()
    book = savings.collect()
    for dimension in ("namespace", "tenant", "tag"):
        assert len(book.rows[dimension]) <= MOST_NAMES
        assert sum(each[2] for each in book.rows[dimension].values()) == 33_000
    assert book.rows["namespace"]["great"][2] == 30_000
    assert book.rows["namespace"]["other"][2] > 2000


def test_a_week_of_hours_is_kept_and_the_rest_is_earlier() -> None:
    now = [0.0]
    savings = Savings(lambda: now[0])
    account = savings.account(Saved.HIT, Meta())
    for _ in range(400):
        account.add(1, 1, 1)
        savings.collect()
        now[0] += HOUR
    hours = savings.collect().rows["hour"]
    assert KEPT_HOURS <= len(hours) - 1 <= KEPT_HOURS + 24
    assert max(set(hours) - {"earlier"}) == "1970-01-17T15Z"
    assert sum(each[2] for each in hours.values()) == 400


def test_an_account_counts_on_after_it_was_collected_or_forgotten() -> None:
    savings = Savings(lambda: 0.0)
    kept = savings.account(Saved.HIT, Meta(model="m"))
    kept.add(1, 1, 1)
    savings.collect()
    for n in range(5000):  # more than are found again
        savings.account(Saved.HIT, Meta(model=f"{n}"))
    kept.add(2, 2, 2)
    savings.account(Saved.HIT, Meta(model="m")).add(4, 4, 4)
    assert savings.collect().rows["model"]["m"][2] == 7


def test_repeats_are_added_up_when_they_are_collected() -> None:
    savings, told, woken = Savings(lambda: 0.0), [], []
    savings.wake = lambda: woken.append(len(woken))
    account = savings.account(Saved.HIT, Meta(model="m"))
    repeats = Repeats(account, (3, 20, 100), told.append)
    for times in (4, 1):
        savings.wait(repeats)
        assert woken, "whoever keeps the sums collects soon"
        woken.clear()
        repeats.times += times
        savings.collect()
    savings.collect()
    assert told == [4, 1]
    assert savings.book.total()[:5] == [5, 0, 15, 100, 500]
    assert repeats.times == 0


def test_repeats_of_many_answers_are_collected_before_they_take_much_room() -> None:
    savings, told = Savings(lambda: 0.0), []
    account = savings.account(Saved.HIT, Meta(model="m"))
    for _ in range(2 * MOST_REPEATS + 10):
        repeats = Repeats(account, (1, 0, 0), told.append)
        savings.wait(repeats)
        repeats.times += 1
        assert len(savings._repeats) <= MOST_REPEATS
    assert len(told) == 2 * MOST_REPEATS
    assert savings.collect().total()[2] == 2 * MOST_REPEATS + 10


def test_money_is_null_where_no_price_was_known_and_counted_as_unknown() -> None:
    savings = Savings(lambda: 0.0)
    savings.account(Saved.HIT, Meta(model="free"), priced=False).add(18, 0, 0)
    savings.account(Saved.HIT, Meta(model="dear")).add(18, nanos(0.5), 0)
    found = by_dimension(savings.collect())
    assert (found["by_model"]["free"]["usd"], found["by_model"]["free"]["unpriced"]) == (None, 1)
    assert (found["by_model"]["dear"]["usd"], found["by_model"]["dear"]["unpriced"]) == (0.5, 0)
    assert (found["totals"]["usd"], found["totals"]["unpriced"]) == (0.5, 1)
    assert list(found["by_model"]) == ["dear", "free"], "the greatest first"


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Shelf]:
    def make() -> Shelf:
        url = f"sqlite:///{tmp_path / 'answers.db'}"
        return open_shelf(url, Rules(), max_bytes=2**20, store_max_bytes=2**22, policy="lru")

    return make


def sums(shelf: Shelf) -> SavingsTable:
    assert shelf.store is not None
    assert isinstance(shelf.store.savings, SavingsTable)
    return shelf.store.savings


def test_sums_of_processes_and_restarts_add_up_in_the_store(opened: Callable[[], Shelf]) -> None:
    for _ in range(2):
        one, other = opened(), opened()
        sums(one).add([("model", "m", row(1)), ("outcome", "hit", row(1))], fold)
        sums(other).add([("model", "m", row(2))], fold)
        one.close()
        other.close()
    again = opened()
    book = Book(sums(again).read())
    again.close()
    assert book.rows["model"] == {"m": [4, 0, 6, 60, 20, 4, 0, 0]}
    assert book.rows["outcome"]["hit"][2] == 2


@pytest.mark.parametrize("width", [2, 5, 8, 9])
def test_rows_of_a_release_with_other_columns_are_added_up(
    opened: Callable[[], Shelf], width: int
) -> None:
    shelf = opened()
    theirs = [7] * width
    names = [("tag", f"{n}", list(theirs)) for n in range(MOST_NAMES + 1)]  # folded as well
    sums(shelf).add([("outcome", "hit", theirs), ("region", "eu", theirs), *names], fold)
    sums(shelf).add([("outcome", "hit", row())], fold)
    read = sums(shelf).read()
    shelf.close()
    shared = min(width, len(COLUMNS))
    ours = [7 * (at < width) + each for at, each in enumerate(row())]
    assert Book(read).total() == ours
    (kept,) = [numbers for dimension, _, numbers in read if dimension == "outcome"]
    assert kept == ours + theirs[len(COLUMNS) :], "whoever knows them finds their columns again"
    tags = [numbers[shared - 1] for dimension, _, numbers in read if dimension == "tag"]
    assert sum(tags) == 7 * (MOST_NAMES + 1)


def test_a_store_nothing_was_saved_in_has_none(opened: Callable[[], Shelf]) -> None:
    shelf = opened()
    assert sums(shelf).read() == []
    shelf.close()


def test_the_store_keeps_few_names_and_loses_no_sum(opened: Callable[[], Shelf]) -> None:
    shelf, names = opened(), count()
    for _ in range(10):
        rows = [("tag", f"{next(names)}", row()) for _ in range(90)]
        sums(shelf).add([*rows, ("tag", "great", row(50))], fold)
    found = Book(sums(shelf).read()).rows["tag"]
    shelf.close()
    assert len(found) <= MOST_NAMES
    assert found["great"][2] == 500
    assert sum(each[2] for each in found.values()) == 1400
    assert KEPT_NAMES < MOST_NAMES


def test_threads_that_add_at_once_lose_nothing(opened: Callable[[], Shelf]) -> None:
    shelf = opened()

    def add() -> None:
        for _ in range(20):
            sums(shelf).add([("outcome", "hit", row())], fold)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = Book(sums(shelf).read())
    shelf.close()
    assert found.total()[0] == 80


def test_more_tokens_than_there_can_be_are_kept_as_many(opened: Callable[[], Shelf]) -> None:
    shelf = opened()
    sums(shelf).add([("outcome", "hit", row(10**30))], fold)
    assert Book(sums(shelf).read()).total()[2] == 2**53
    shelf.close()


def test_a_closed_store_says_so(opened: Callable[[], Shelf]) -> None:
    shelf = opened()
    shelf.close()
    with pytest.raises(TierError):
        sums(shelf).add([("outcome", "hit", row())], fold)


def test_sums_of_an_encrypted_store_are_sealed_and_read_by_any_of_its_keys(tmp_path: Path) -> None:
    old, new, strange = b"o" * 32, b"n" * 32, b"x" * 32
    path, found = tmp_path / "answers.db", []
    for keys in ((), (old,), (new, old)):
        shelf = open_shelf(
            f"sqlite:///{path}",
            Rules(),
            keys=Keyring(encryption=keys),
            max_bytes=2**20,
            store_max_bytes=2**22,
            policy="lru",
        )
        sums(shelf).add([("namespace", "secret-project", row())], fold)
        found.append(Book(sums(shelf).read()).rows["namespace"]["secret-project"][2])
        if keys:
            assert shelf.store is not None
            shelf.store.tier.tidy()
        assert keys == () or b"secret-project" not in written(path)
        if keys == (new, old):
            database = sums(shelf)._database
            stranger = SavingsTable(database, Aliases(Cipher([strange])))
            assert stranger.read() == []
            stranger.add([("namespace", "another", row())], fold)
            owner = SavingsTable(database, Aliases(Cipher([new])))
            assert Book(owner.read()).rows["namespace"].keys() == {"secret-project"}
        shelf.close()
    assert found == [1, 2, 3], "older sums are brought under the key in use"


def written(path: Path) -> bytes:
    """Everything that lies in the store's files now."""
    files = [path, path.with_name(path.name + "-wal")]
    return b"".join(file.read_bytes() for file in files if file.exists())
