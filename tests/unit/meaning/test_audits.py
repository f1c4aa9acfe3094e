"""Audits that live: drawn by dice, judged in the background, stored, told once, and recovered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import Protocol

import pytest

from thinkonce.errors import TierError
from thinkonce.meaning.audit import account as account_module
from thinkonce.meaning.audit.account import HEAD, RESET, Account, Result
from thinkonce.meaning.audit.audits import MOST_WAITING, REFRESH, TRY_AGAIN, Audits
from thinkonce.meaning.audit.budget import ALARMS, Draw, Event, Mode, Standing
from thinkonce.meaning.audit.judge import Agreement, How, Judge
from thinkonce.meaning.verdict.calibration import Platt
from thinkonce.meaning.verdict.grounds import Grounds
from thinkonce.meaning.verdict.ruling import Judged, Ruling
from thinkonce.meaning.verdict.verifier import Scale
from thinkonce.testing import FakeClock

LONG = 20.0
BUDGET = 0.05
GROUNDS = Grounds("en", None, Scale(Platt(1.0, 0.0)), (3.0, 2.0, 1.0), 0, "a basis")


class Shelf:
    """A `Ledger` in memory that refuses when a test says so."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = {}
        self.fails = False
        self.updates = 0
        self._lock = threading.Lock()

    def read(self, group: str, name: bytes | None = None) -> dict[bytes, bytes]:
        self._check()
        held = self.rows.get(group, {})
        return dict(held) if name is None else {key: held[key] for key in held if key == name}

    def groups(self) -> list[str]:
        self._check()
        return [group for group, held in self.rows.items() if b"" in held]

    def update(
        self,
        group: str,
        names: Collection[bytes],
        change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]],
    ) -> None:
        self._check()
        with self._lock:
            self.updates += 1
            held = self.rows.setdefault(group, {})
            held.update(change({name: held[name] for name in names if name in held}))

    def _check(self) -> None:
        if self.fails:
            raise TierError("shelf", "refusing")


class Equal(Judge):
    """Two answers are the same or not; "?" is undecided, "!" breaks. Waits when told to."""

    def __init__(self) -> None:
        super().__init__(None)
        self.go, self.began, self.closed = threading.Event(), threading.Event(), False
        self.go.set()

    def compare(self, stored: str, fresh: str) -> Agreement:
        self.began.set()
        assert self.go.wait(LONG)
        if fresh == "!":
            raise RuntimeError("broken")
        return Agreement(None if fresh == "?" else stored == fresh, How.EQUAL)

    def close(self) -> None:
        self.closed = True


class Make(Protocol):
    def __call__(self, ledger: bool = True) -> Audits: ...


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def judge() -> Equal:
    return Equal()


@pytest.fixture
def make(clock: FakeClock, shelf: Shelf, judge: Equal) -> Iterator[Make]:
    """As many processes as a test likes, on one shelf; dice always fall for an audit."""
    made = []

    def make(ledger: bool = True) -> Audits:
        found = Audits(judge, shelf if ledger else None, clock=clock.clock, dice=lambda: 0.0)
        made.append(found)
        return found

    yield make
    judge.go.set()
    shelf.fails = False
    for audits in made:
        audits.close()


def account_of(audits: Audits, mode: Mode = Mode.CALIBRATED, grounds: Grounds = GROUNDS) -> Account:
    return audits.account("space", grounds, BUDGET, mode)


def judged(band: int = 0, entry: bytes = b"entry", score: float = 3.5) -> Judged:
    return Judged(entry, "a question", 0.9, score=score, chance=0.97, band=band)


def audit(audits: Audits, account: Account, fresh: str = "same", band: int = 0) -> None:
    found = judged(band)
    draw = audits.draw(account, Ruling((found,), 0))
    assert draw is not None
    audits.compare(account, draw, found, "same", fresh)


def audited(audits: Audits, account: Account, *fresh: str) -> None:
    """One after the other, as events in between change what is drawn."""
    for one in fresh:
        audit(audits, account, one)
        assert audits.flush(LONG)


def test_an_audit_is_judged_counted_and_stored(make: Make, shelf: Shelf) -> None:
    audits = make()
    account = account_of(audits)
    for fresh in ("same", "same", "other"):
        audit(audits, account, fresh)
    assert audits.flush(LONG)
    shown = account.shown()
    assert (shown.audits, shown.wrong) == (3, 1)
    assert audits.numbers().compared == 3
    again = account_of(make())
    assert again.shown() == shown, "another process, or this one after a restart"
    assert (again.entries, account.entries) == (1, 1)
    assert again.sure(b"entry", 3.0) == account.sure(b"entry", 3.0)
    assert again.sure(b"entry", 3.0) < again.sure(b"unknown", 3.0), "it was wrong once"


def test_dice_and_bands_decide_what_is_audited(shelf: Shelf, judge: Equal) -> None:
    rolls = iter([0.99, 0.0, 0.99])
    audits = Audits(judge, shelf, dice=lambda: next(rolls))
    account = account_of(audits)
    for _ in range(100):
        account.enter(Result(account.draw(0, 0.0), b"", 0.0, False))
    served, loose = Ruling((judged(0),), 0), Ruling((judged(2),), 0)
    assert [audits.draw(account, one) is not None for one in (served, served, loose)] == [
        False, True, True,
    ]  # fmt: skip
    assert audits.draw(account, Ruling()) is None
    assert audits.draw(account, Ruling((Judged(b"e", "q", 0.9, score=0.1),), 0)) is None
    audits.close()


def test_an_alarm_is_heeded_at_once_by_the_process_and_told_once(
    make: Make, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make(), make()
    mine, other = account_of(one), account_of(two)
    with caplog.at_level(logging.INFO, "thinkonce.semantic"):
        while mine.alarms == 0:
            audited(one, mine, "other")
    assert mine.step == -1
    assert mine.shown().standing is Standing.SHADOW
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "alarm in 'space' (en): too many hits are wrong; now shadow" in caplog.text
    assert other.step == 0, "it has not looked yet"
    clock.advance(REFRESH + 1)
    assert account_of(two) is other
    assert two.flush(LONG)
    assert other.step == -1
    assert len(caplog.records) == 1, "the others do not say it again"


def test_certificates_are_told_and_offered_for_metrics(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    audits = make()
    account = account_of(audits, Mode.CERTIFIED)
    assert account.step == -1
    assert audits.numbers().bound("space") is None, "nothing is known yet"
    with caplog.at_level(logging.INFO, "thinkonce.semantic"):
        for _ in range(120):
            audit(audits, account)
        assert audits.flush(LONG)
    assert account.step == 0
    assert "'space' (en) is certified: error at most 0.0" in caplog.text
    bound = audits.numbers().bound("space")
    assert bound is not None
    assert bound < BUDGET
    tallied = audits.numbers().accounts[0]
    assert (tallied.namespace, tallied.language, tallied.steps, tallied.alarms) == (
        "space", "en", 3, 0,
    )  # fmt: skip


def test_off_after_alarms_means_nothing_is_drawn_until_a_reset(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    audits = make()
    account = account_of(audits)
    while account.alarms < ALARMS:
        audited(audits, account, *(["other"] if account.step >= 0 else ["same"] * 90))
    assert account.is_off
    assert account.draw(0, 0.0) is None
    assert "now off" in caplog.text
    assert audits.reset("elsewhere") == 0
    assert audits.reset("space") == 1
    assert audits.flush(LONG)
    assert account.shown().standing is Standing.SERVING
    assert account_of(make()).shown().standing is Standing.SERVING, "it is stored, too"


def test_what_nobody_asked_since_the_start_is_reset_in_the_store(make: Make) -> None:
    first = make()
    account = account_of(first)
    while not account.alarms:
        audited(first, account, *(["other"] if account.step >= 0 else ["same"] * 90))
    assert first.flush(LONG)
    second = make()
    assert second.reset("elsewhere") == 0
    assert second.reset(None) == 1
    assert account_of(second).alarms == 0
    assert account_of(second).shown().standing is Standing.SERVING


def test_what_somebody_calls_wrong_teaches_the_entry_and_stays_out_of_the_bound(
    make: Make,
) -> None:
    audits = make()
    account = account_of(audits)
    before = account.sure(b"entry", 3.0)
    audits.wrong("space", b"entry")
    assert audits.flush(LONG)
    assert account.sure(b"entry", 3.0) < before - 0.5
    assert account.shown().audits == 0
    assert account_of(make()).sure(b"entry", 3.0) == account.sure(b"entry", 3.0)


def test_what_no_judge_can_tell_counts_neither_way(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    audits = make()
    account = account_of(audits)
    for fresh in ("?", "!", "same"):
        audit(audits, account, fresh)
    assert audits.flush(LONG)
    assert account.shown().audits == 1
    assert audits.numbers()[:3] == (3, 2, 0)
    assert "the judge failed: broken" in caplog.text


def test_a_judge_that_cannot_keep_up_is_not_waited_for(make: Make, judge: Equal) -> None:
    audits = make()
    account = account_of(audits)
    judge.go.clear()
    audit(audits, account)
    assert judge.began.wait(LONG)
    for _ in range(MOST_WAITING + 7):
        audit(audits, account)
    assert audits.numbers().left_out == 7
    assert not audits.flush(0.01)
    judge.go.set()
    assert audits.flush(LONG)
    assert account.shown().audits == MOST_WAITING + 1


def test_while_the_store_refuses_audits_count_here_and_are_stored_later(
    make: Make, shelf: Shelf, clock: FakeClock
) -> None:
    audits = make()
    account = account_of(audits)
    shelf.fails = True
    audit(audits, account, "other")
    assert not audits.flush(LONG), "judged, and not stored"
    assert account.shown().wrong == 1
    assert account.waiting == 1
    shelf.fails = False
    audit(audits, account)
    audits.flush(LONG)
    assert shelf.updates == 0, "the store is left alone for a while"
    clock.advance(TRY_AGAIN + 1)
    audit(audits, account)
    assert audits.flush(LONG)
    assert account.waiting == 0
    assert account_of(make()).shown().audits == 3


def test_results_that_wait_for_the_store_are_bounded(
    make: Make, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_module, "MOST_PENDING", 4)
    audits = make()
    account = account_of(audits)
    shelf.fails = True
    for _ in range(6):
        audit(audits, account)
    audits.flush(LONG)
    assert (account.waiting, audits.numbers().lost) == (4, 2)


def test_a_store_that_cannot_be_read_at_first_is_read_again(
    make: Make, shelf: Shelf, clock: FakeClock
) -> None:
    audited(one := make(), account_of(one), "other", "same")
    shelf.fails = True
    account = account_of(two := make())
    assert account.shown().audits == 0
    shelf.fails = False
    clock.advance(REFRESH + 1)
    account_of(two)
    assert two.flush(LONG)
    assert account.shown().audits == 2


def test_without_a_store_all_works_and_is_forgotten(make: Make) -> None:
    audits = make(ledger=False)
    account = account_of(audits)
    audit(audits, account)
    assert audits.flush(LONG)
    assert account.shown().audits == 1
    assert account_of(make(ledger=False)).shown().audits == 0


def test_another_basis_or_mode_has_an_account_of_its_own_and_finds_it_again(
    make: Make,
) -> None:
    audits = make()
    account = account_of(audits)
    audited(audits, account, "same")
    other = Grounds(**{**as_dict(GROUNDS), "basis": "another verifier"})
    assert account_of(audits, grounds=other).shown().audits == 0
    assert account_of(audits, Mode.CERTIFIED).shown().audits == 0
    assert account_of(audits) is account


def as_dict(grounds: Grounds) -> dict[str, object]:
    return {name: getattr(grounds, name) for name in grounds.__struct_fields__}


def test_a_state_that_cannot_be_read_begins_anew(make: Make, shelf: Shelf) -> None:
    audited(one := make(), account_of(one), "same")
    held = next(iter(shelf.rows.values()))
    held[HEAD], held[b"entry"] = b"\xff", b"\xff"
    account = account_of(two := make())
    assert account.shown().audits == 0
    audited(two, account, "same")
    assert account_of(make()).shown().audits == 1


def test_entries_with_a_history_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_module, "MOST_ENTRIES", 5)
    audits = make(ledger=False)
    account = account_of(audits)
    for number in range(9):
        account.enter(Result(None, b"%d" % number, 3.0, True))
    assert account.entries == 5
    assert account.sure(b"0", 3.0) == account.sure(b"unknown", 3.0)
    assert account.sure(b"8", 3.0) < account.sure(b"unknown", 3.0)


def test_the_prior_follows_the_entries_of_the_namespace(make: Make) -> None:
    audits = make(ledger=False)
    account = account_of(audits)
    before = account.sure(b"unknown", 2.0)
    rng = Random(1)
    for number in range(account_module.REFIT):
        account.enter(Result(None, b"%d" % (number % 40), 2.0 + rng.random(), rng.random() < 0.7))
    assert account.refit()
    assert account.sure(b"unknown", 2.0) < before - 0.5
    assert not account.refit(), "not before as many observations again"


@pytest.mark.parametrize("score", [-2.0, -1.0, 0.0, 1.0, 2.0, 4.0])
def test_a_fit_to_good_entries_lets_no_other_question_reach_a_stricter_cut(
    make: Make, score: float
) -> None:
    """Audits said how many were wrong among those that reached it before."""
    account = account_of(make(ledger=False))
    account.enter(Result(None, b"once", score, False))
    before = account.sure(b"unknown", score), account.sure(b"once", score)
    rng = Random(1)
    for number in range(account_module.REFIT):
        name, at = b"%d" % (number % 60), rng.uniform(-2.0, 4.0)
        account.enter(Result(None, name, at, rng.random() < 0.03))
    assert account.refit()
    assert account.sure(b"unknown", score) <= before[0]
    assert account.sure(b"once", score) <= before[1]


def test_closing_ends_the_thread_and_stores_what_there_is(make: Make, judge: Equal) -> None:
    audits = make()
    account = account_of(audits)
    for _ in range(20):
        audit(audits, account)
    audits.close()
    assert judge.closed
    assert account_of(make()).shown().audits == 20
    audit(audits, account)
    assert audits.numbers().compared == 20, "nothing is done after it"


def test_a_draw_of_an_older_term_changes_nothing(make: Make) -> None:
    audits = make()
    account = account_of(audits)
    late = account.draw(0, 0.0)
    while account.alarms == 0:
        audited(audits, account, "other")
    assert isinstance(late, Draw)
    assert account.enter(Result(late, b"", 0.0, True)) == []
    assert account.shown().audits == 0


def test_a_reset_in_another_process_is_no_event_here(make: Make) -> None:
    one, two = make(), make()
    mine, other = account_of(one), account_of(two)
    audited(one, mine, "other", "same")
    assert [happened.event for happened in mine.enter(RESET)] == [RESET]
    assert mine.shown().audits == 0
    audited(two, other, "same")
    assert Event.ALARM not in [happened.event for happened in other.enter(RESET)]


PAIR = b"p" * 16


def audit_pair(audits: Audits, account: Account, pair: bytes, fresh: str = "same") -> bool:
    """Whether it was drawn."""
    found = judged()
    draw = audits.draw(account, Ruling((found,), 0), pair)
    audits.compare(account, draw, found, "same", fresh, pair=pair)
    return draw is not None


@pytest.mark.parametrize("ledger", [True, False])
def test_one_pair_is_one_piece_of_evidence_however_often_it_comes(
    make: Callable[..., Audits], ledger: bool
) -> None:
    audits = make(ledger=ledger)
    account = account_of(audits)
    assert [audit_pair(audits, account, PAIR) for _ in range(3)] == [True, False, False]
    assert audits.flush(LONG)
    assert not audit_pair(audits, account, PAIR)
    assert audit_pair(audits, account, b"q" * 16)
    assert audits.flush(LONG)
    assert account.shown().audits == 2


def test_a_pair_that_two_processes_audited_counts_once(
    make: Callable[[], Audits], clock: FakeClock
) -> None:
    one, two = make(), make()
    mine, other = account_of(one), account_of(two)
    assert audit_pair(one, mine, PAIR)
    assert audit_pair(two, other, PAIR)
    assert one.flush(LONG)
    assert two.flush(LONG)
    assert account_of(third := make()).shown().audits == 1
    assert not audit_pair(third, account_of(third), PAIR), "nor after a restart"


def test_in_a_new_term_a_pair_says_something_again(make: Callable[[], Audits]) -> None:
    audits = make()
    account = account_of(audits)
    assert audit_pair(audits, account, PAIR)
    assert audits.flush(LONG)
    audits.reset("space")
    assert audit_pair(audits, account, PAIR)
    assert audits.flush(LONG)
    assert account.shown().audits == 1


def test_pairs_that_are_remembered_are_bounded(
    make: Callable[..., Audits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_module, "MOST_PAIRS", 3)
    audits = make(ledger=False)
    account = account_of(audits)
    pairs = [bytes([number]) * 16 for number in range(6)]
    for pair in pairs:
        assert audit_pair(audits, account, pair)
        assert audits.flush(LONG)
    assert [account.draw(0, 0.0, pair) is not None for pair in pairs] == [True] * 3 + [False] * 3


def test_an_audited_pair_that_is_wrong_is_refuted_for_its_tenant(
    make: Callable[[], Audits],
) -> None:
    audits = make()
    account = account_of(audits)
    audit_pair(audits, account, PAIR, "other")
    audit_pair(audits, account, b"q" * 16)
    assert audits.flush(LONG)
    assert audits.refuted.knows("", "space", PAIR)
    assert not audits.refuted.knows("", "space", b"q" * 16)
    assert not audits.refuted.knows("another", "space", PAIR)
