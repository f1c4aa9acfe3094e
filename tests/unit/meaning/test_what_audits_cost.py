"""How many audits it takes, as docs/semantic-safety.md tells its readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkonce.meaning.audit.budget import SCHEDULE, Budget, Event, Mode

PAGE = Path(__file__).parents[3] / "docs" / "semantic-safety.md"
CUTS = 9


def until_certified(max_error: float, *, wrong_at: int = 0) -> int:
    budget, audits = Budget(max_error, CUTS, "", mode=Mode.CERTIFIED), 0
    while True:
        drawn = budget.draw(0, 0.0)
        assert drawn is not None
        audits += 1
        if budget.audited(drawn, audits == wrong_at) is Event.CERTIFIED:
            return audits


@pytest.mark.parametrize(
    ("max_error", "none_wrong", "one_wrong"), [(0.01, 599, 860), (0.03, 198, 284), (0.05, 117, 169)]
)
def test_a_bound_is_certified_when_the_page_says(
    max_error: float, none_wrong: int, one_wrong: int
) -> None:
    assert until_certified(max_error) == none_wrong
    assert until_certified(max_error, wrong_at=10) == one_wrong
    section = PAGE.read_text(encoding="utf-8").partition("### What audits cost")[2]
    assert f"{none_wrong} " in section
    assert str(one_wrong) in section


def test_the_shares_of_the_page_are_the_schedule() -> None:
    assert SCHEDULE == ((0.5, 1.0), (1.0, 0.5), (3.0, 0.2), (10.0, 0.1), (30.0, 0.05))
    assert Budget(0.01, CUTS, "").least_rate == 1 / 50
