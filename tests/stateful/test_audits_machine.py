"""Accounts of three processes and a store that fails, against a list of results in order.

The model: the store holds the results that were settled, in the order they were; a process knows
those it last saw there and its own that wait. Whatever is shown follows from such a list.
"""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thinkonce.meaning.audit.account import RESET, Account, Result
from thinkonce.meaning.audit.budget import Budget, Draw, Mode, Standing
from thinkonce.meaning.verdict.grounds import Grounds
from thinkonce.meaning.verdict.learning import SHIPPED, History, belief

GROUNDS = Grounds("en", None, None, (3.0, 2.0, 1.0), 0, "a basis")
PROCESSES = (0, 1, 2)
ENTRIES = (b"", b"one", b"two")
which = st.sampled_from(PROCESSES)


def untouched() -> Budget:
    return Budget(0.2, 3, "a basis", Mode.CALIBRATED)


def replayed(results: list[Result | str]) -> Budget:
    budget = untouched()
    for result in results:
        if isinstance(result, str):
            budget.reset()
        elif result.draw is not None:
            budget.audited(result.draw, result.is_wrong)
    return budget


class AuditsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[bytes, bytes] = {}
        self.stored: list[Result | str] = []
        self.accounts = [self._fresh() for _ in PROCESSES]
        self.seen: list[list[Result | str]] = [[] for _ in PROCESSES]
        self.waiting: list[list[Result | str]] = [[] for _ in PROCESSES]

    def _fresh(self) -> Account:
        return Account("group", untouched(), "space", GROUNDS)

    @rule(
        process=which,
        entry=st.sampled_from(ENTRIES),
        score=st.integers(-4, 6),
        results=st.lists(st.booleans(), min_size=1, max_size=30),
        band=st.integers(0, 2),
    )
    def audit(self, process: int, entry: bytes, score: int, results: list[bool], band: int) -> None:
        account = self.accounts[process]
        for is_wrong in results:
            draw: Draw | None = account.draw(band, 0.0)
            if draw is None:
                assert account.is_off
                return
            result = Result(draw, entry, float(score), is_wrong)
            account.enter(result)
            self.waiting[process].append(result)

    @rule(process=which)
    def reset(self, process: int) -> None:
        self.accounts[process].enter(RESET)
        self.waiting[process].append(RESET)

    @rule(process=which, refuses=st.booleans())
    def settle(self, process: int, refuses: bool) -> None:
        account = self.accounts[process]
        results, names = account.settling()
        held = {name: data for name, data in self.rows.items() if name in names}
        rows = account.written(results, held)
        if refuses:  # the transaction did not take place
            return
        self.rows.update(rows)
        account.settled(results, rows)
        self.stored += self.waiting[process]
        self.waiting[process] = []
        self.seen[process] = list(self.stored)

    @rule(process=which)
    def look(self, process: int) -> None:
        self.accounts[process].seen(dict(self.rows))
        self.seen[process] = list(self.stored)

    @rule(process=which)
    def kill_and_start_again(self, process: int) -> None:
        self.accounts[process] = self._fresh()
        self.accounts[process].seen(dict(self.rows))
        self.waiting[process], self.seen[process] = [], list(self.stored)

    @invariant()
    def each_shows_what_it_has_seen_and_what_waits(self) -> None:
        for process in PROCESSES:
            account = self.accounts[process]
            expected = replayed(self.seen[process] + self.waiting[process])
            assert account.shown() == expected.shown()
            assert (account.step, account.alarms) == (expected.step, expected.alarms)
            assert account.is_off == (expected.standing is Standing.OFF)

    @invariant()
    def the_store_holds_what_was_settled_in_that_order(self) -> None:
        if self.rows:
            held = msgspec.msgpack.decode(self.rows[b""], type=Budget)
            assert held == msgspec.msgpack.decode(
                msgspec.msgpack.encode(replayed(self.stored)), type=Budget
            )

    @invariant()
    def histories_in_the_store_are_those_of_all_processes(self) -> None:
        for entry in ENTRIES[1:]:
            history = History()
            for result in self.stored:
                if not isinstance(result, str) and result.entry == entry:
                    history.add(result.score, not result.is_wrong)
            if entry in self.rows:
                assert msgspec.msgpack.decode(self.rows[entry], type=History) == history
                fresh = self._fresh()
                fresh.seen(self.rows)
                assert fresh._beliefs[entry] == belief(SHIPPED, history.weighted())
            else:
                assert not history.scores


TestAudits = AuditsMachine.TestCase
TestAudits.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
