"""Audits as they were measured, drawn again: what the meter, the ladder and auto make of them.

Each audit is one real prompt's KL and agreement under a setting, drawn with a seed. `link 16` is
served well for 300 audits; then, unknown to the meter, its answers are those of chunks side by
side (k forced to 0). Counted is how many audits pass until something else is served.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from thinkonce.kv.reuse.auto import Auto
from thinkonce.kv.reuse.budget import AuditBudget
from thinkonce.kv.reuse.ladder import EXACT, Case, Ladder
from thinkonce.kv.reuse.meter import Audit, Meter

__all__ = ("Settled", "corrected", "settled")

SEEDS, GOOD, MOST, ANSWERS = 200, 300, 200, 20_000
PLACES = 16

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Settled:
    """Over seeds: what auto served in the end, answers until it first served anything, and what
    audits took of the saved compute outside of the times that have the larger share.
    """

    served: Counter[str]
    first: list[int]
    share: float


def corrected(good: Rows, wrong: Rows, rungs: Sequence[str]) -> list[int]:
    """Audits until a seeded degradation was corrected, a number a seed, sorted."""
    case, found = Case("bench", lambda setting: 1.0, 2.0), []
    for seed in range(SEEDS):
        drawn = random.Random(seed)
        ladder, first = Ladder(rungs, rungs[0], Meter()), rungs[0]
        for _ in range(GOOD):
            if ladder.served(case) == first:
                ladder.audited(case.namespace, first, _audit(drawn, good))
        if ladder.served(case) != first:
            continue  # it was left before anything was wrong
        count = 0
        while ladder.served(case) == first and count < MOST:
            ladder.audited(case.namespace, first, _audit(drawn, wrong))
            count += 1
        found.append(count)
    return sorted(found)


def settled(by_setting: Mapping[str, Rows], length: float, seeds: int = 20) -> Settled:
    """Auto over many answers to prompts of so many tokens; each asks the budget for an audit."""
    costs = {name: fmean(each["rows"] for each in rows) for name, rows in by_setting.items()}
    runs = [
        _Run(by_setting, Case("bench", costs.__getitem__, length), seed) for seed in range(seeds)
    ]
    for run in runs:
        run.answer(ANSWERS)
    served = Counter(run.auto.served(run.case) for run in runs)
    return Settled(served, sorted(run.first for run in runs), fmean(run.share for run in runs))


class _Run:
    """One traffic, drawn with a seed. `first`: answers until one was approximate."""

    def __init__(self, by_setting: Mapping[str, Rows], case: Case, seed: int) -> None:
        self.case, self._rows, self._drawn = case, by_setting, random.Random(seed)
        self.auto, self._budget = Auto(list(by_setting), Meter()), AuditBudget()
        self.first, self._answers = ANSWERS, 0
        self._saved = self._spent = 0.0

    @property
    def share(self) -> float:
        return self._spent / self._saved if self._saved else 0.0

    def answer(self, count: int) -> None:
        budget = self._budget
        for _ in range(count):
            saved, spent, is_steady = budget.saved, budget.spent, not budget.is_careful
            self._answer()
            if is_steady:
                self._saved += budget.saved - saved
                self._spent += budget.spent - spent

    def _answer(self) -> None:
        case, budget = self.case, self._budget
        setting = self.auto.served(case)
        self._answers += 1
        self.auto.answered(case.namespace, setting)
        wanted = self.auto.audited_next(case)
        if setting != EXACT:
            self.first = min(self.first, self._answers)
            budget.hit(case.exact - case.cost(setting))
        elif wanted is not None:
            budget.trial(case.exact - case.cost(wanted))
        if wanted is None or not budget.allows(cost := case.exact + case.cost(wanted) + 2 * PLACES):
            return
        budget.audited(cost)
        if self.auto.audited(case.namespace, wanted, _audit(self._drawn, self._rows[wanted])):
            budget.alarm()


def _audit(drawn: random.Random, rows: Rows) -> Audit:
    row = drawn.choice(rows)
    return Audit(row["kl"], round(PLACES * row["agree"]), PLACES)
