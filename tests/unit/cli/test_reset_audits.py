"""`reset-audits` on a store that no gateway has open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thinkonce.cli import main
from thinkonce.clock import SYSTEM
from thinkonce.meaning.audit.audits import Audits
from thinkonce.meaning.audit.budget import Mode
from thinkonce.meaning.audit.judge import Judge
from thinkonce.meaning.verdict.calibration import Platt
from thinkonce.meaning.verdict.grounds import Grounds
from thinkonce.meaning.verdict.ruling import Judged
from thinkonce.meaning.verdict.verifier import Scale
from thinkonce.store_file import open_file
from thinkonce.tiers.keyring import Keyring

GROUNDS = Grounds("en", None, Scale(Platt(1.0, 0.0)), (3.0, 2.0, 1.0), 0, "a basis")
PLACES = [(tenant, space) for tenant in ("one", "two") for space in ("faq", "")]
Out = pytest.CaptureFixture[str]


def alarms(path: Path, *, wrong: bool = False) -> dict[tuple[str, str], int]:
    """Alarms by tenant and namespace; with `wrong`, each has one more."""
    file = open_file(path, Keyring(), clock=SYSTEM, max_bytes=2**30)
    audits = Audits(Judge(None), file.tier.ledger, dice=lambda: 0.0)
    accounts = {
        place: audits.account(place[1], GROUNDS, 0.3, Mode.CALIBRATED, tenant=place[0])
        for place in PLACES
    }
    for account in accounts.values() if wrong else ():
        before = account.alarms
        while account.alarms == before:
            draw = account.draw(0, 0.0)
            judged = Judged(b"entry", "a question", 0.9, score=3.5, chance=0.97, band=0)
            audits.compare(account, draw, judged, "At nine.", "At ten.")
            assert audits.flush(20)
    found = {place: account.alarms for place, account in accounts.items()}
    audits.close()
    file.close()
    return found


def test_audits_begin_anew_where_they_are_named(tmp_path: Path, capsys: Out) -> None:
    path = tmp_path / "answers.db"
    assert set(alarms(path, wrong=True).values()) == {1}
    store = f"--store=sqlite:///{path}"
    assert main(["reset-audits", "--namespace=faq", "--tenant=one", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reset"] == 1
    assert [place for place, count in alarms(path).items() if not count] == [("one", "faq")]
    assert main(["reset-audits", "--namespace=", store]) == 0
    assert capsys.readouterr().out.startswith("reset 2 accounts of audits in ")
    assert [place for place, count in alarms(path).items() if count] == [("two", "faq")]
    assert main(["reset-audits", "--all", store]) == 0
    assert not any(alarms(path).values())


def test_whose_audits_must_be_said(capsys: Out) -> None:
    assert main(["reset-audits"]) == 2
    assert "--namespace faq, --tenant ID, or --all" in capsys.readouterr().err
