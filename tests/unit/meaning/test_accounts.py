"""Accounts of audits in memory: as many as have room, and no alarm is forgotten for lack of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from thinkonce.meaning.audit import accounts as accounts_module
from thinkonce.meaning.audit.account import Account
from thinkonce.meaning.audit.audits import Audits
from thinkonce.meaning.audit.budget import Mode
from thinkonce.meaning.audit.judge import Agreement, How, Judge
from thinkonce.meaning.verdict.grounds import Grounds
from thinkonce.meaning.verdict.ruling import Judged, Ruling

GROUNDS = Grounds("en", None, None, (3.0, 2.0, 1.0), 0, "a basis")
LONG = 20.0


class Equal(Judge):
    """Two answers are the same or not."""

    def compare(self, stored: str, fresh: str) -> Agreement:
        return Agreement(stored == fresh, How.EQUAL)


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Audits]:
    """With room for four accounts, and no store."""
    monkeypatch.setattr(accounts_module, "MOST_ACCOUNTS", 4)
    found = Audits(Equal(None), dice=lambda: 0.0)
    yield found
    found.close()


def account_of(audits: Audits, tenant: str, namespace: str = "") -> Account:
    return audits.account(namespace, GROUNDS, 0.05, Mode.CALIBRATED, tenant=tenant)


def audit(audits: Audits, account: Account, fresh: str) -> None:
    found = Judged(b"entry", "a question", 0.9, score=3.5, chance=0.97, band=0)
    draw = audits.draw(account, Ruling((found,), 0))
    audits.compare(account, draw, found, "At nine.", fresh)
    assert audits.flush(LONG)


def alarmed(audits: Audits, tenant: str) -> Account:
    account = account_of(audits, tenant)
    while not account.alarms:
        audit(audits, account, "Never.")
    return account


def held(audits: Audits) -> list[tuple[str, str]]:
    return sorted((one.tenant, one.namespace) for one in audits.numbers().accounts)


def test_each_tenant_has_an_account_of_its_own(audits: Audits) -> None:
    one, other = account_of(audits, "one"), account_of(audits, "other")
    audit(audits, one, "At nine.")
    assert (one.shown().audits, other.shown().audits) == (1, 0)
    assert account_of(audits, "one") is one


@pytest.mark.parametrize("tenant", ["anonymous", "0" * 32])
def test_no_namespace_can_be_named_so_that_it_is_another_tenant_s(
    audits: Audits, tenant: str
) -> None:
    groups = [account_of(audits, tenant, "x").group]
    groups += [account_of(audits, "", f"{tenant} x").group, account_of(audits, "", tenant).group]
    assert len({*groups, account_of(audits, tenant).group}) == 4


def test_whoever_has_most_accounts_makes_room(audits: Audits) -> None:
    mine = account_of(audits, "quiet")
    for number in range(9):
        account_of(audits, "busy", f"{number}")
    assert account_of(audits, "quiet") is mine
    assert held(audits) == [("busy", "6"), ("busy", "7"), ("busy", "8"), ("quiet", "")]


def test_an_alarm_outlives_any_number_of_quiet_accounts(audits: Audits) -> None:
    mine = alarmed(audits, "loud")
    for number in range(20):
        account_of(audits, f"{number}")
    assert account_of(audits, "loud") is mine


def test_an_alarm_that_had_to_make_room_for_alarms_comes_back_with_its_account(
    audits: Audits,
) -> None:
    tenants = [f"{number}" for number in range(6)]
    for tenant in tenants:
        alarmed(audits, tenant)
    assert len(held(audits)) == 4
    for tenant in tenants:
        again = account_of(audits, tenant)
        assert (again.alarms, again.step) == (1, -1), tenant


def test_a_reset_is_one_tenant_s_or_everybody_s(audits: Audits) -> None:
    one, other = alarmed(audits, "one"), alarmed(audits, "other")
    assert audits.reset("", tenant="one") == 1
    assert (one.alarms, other.alarms) == (0, 1)
    assert audits.reset("") == 2
    assert other.alarms == 0


def test_a_reset_reaches_alarms_whose_accounts_had_to_make_room(audits: Audits) -> None:
    for number in range(6):
        alarmed(audits, f"{number}")
    assert len(held(audits)) == 4
    assert audits.reset("") == 6
    assert [account_of(audits, f"{number}").alarms for number in range(6)] == [0] * 6


def test_a_report_teaches_the_accounts_of_its_tenant_alone(audits: Audits) -> None:
    one, other = account_of(audits, "one"), account_of(audits, "other")
    assert audits.wrong("", b"entry", tenant="one")
    assert one.sure(b"entry", 3.0) < other.sure(b"entry", 3.0)
    assert not audits.wrong("", b"entry", tenant="nobody")


def test_without_a_store_no_result_waits_for_one(audits: Audits) -> None:
    account = account_of(audits, "one")
    for _ in range(3):
        audit(audits, account, "At nine.")
    assert account.waiting == 0
    assert account.shown().audits == 3
