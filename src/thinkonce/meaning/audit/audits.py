"""Audits as they happen: draws, comparisons in the background, what they teach, who is told.

    ruling ──► draw? ──► the model answers as well ──► queue ──► thread: judge ──► account ──► store
                                                                   │
                                                                   └──► a line in the log

One thread does all that waits; requests only draw and hand over. Where comparisons come faster
than they are judged some are left out, whichever they are, so what is left is a fair sample.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import TierError
from thinkonce.host.fork import on_fork
from thinkonce.meaning.audit.account import HEAD, RESET, Account, Happened, Result
from thinkonce.meaning.audit.account_name import account_name
from thinkonce.meaning.audit.accounts import Accounts
from thinkonce.meaning.audit.agreement import Agreement, Vouching, adds_no_address
from thinkonce.meaning.audit.budget import Budget, Draw, Event, Mode, Shown, Standing
from thinkonce.meaning.audit.judge import Judge
from thinkonce.meaning.audit.refuted import By, Refuted
from thinkonce.meaning.audit.resetting import reset_stored
from thinkonce.meaning.verdict.grounds import SAME_WORDS, Grounds
from thinkonce.meaning.verdict.ruling import Judged, Ruling
from thinkonce.tiers.tier import Ledger

__all__ = ("Audits", "Numbers", "Tallied")

log = logging.getLogger("thinkonce.semantic")

MOST_WAITING = 256  # comparisons in the queue
REFRESH = 5.0  # seconds between two looks at what other processes found
TRY_AGAIN = 5.0  # seconds after the store refused a write
TENANT_DIGITS = 12  # of a tenant in a line of the log, as in the access log


class Comparison(NamedTuple):
    """What was answered from `judged`, or would have been, and what the model says."""

    account: Account
    draw: Draw | None
    judged: Judged
    stored: str
    fresh: str
    vouching: Vouching | None
    pair: bytes


class Tallied(NamedTuple):
    """Of one tenant's hits in a namespace and language; `entries` have a history. `name` tells
    it from all others."""

    name: str
    tenant: str
    namespace: str
    language: str
    shown: Shown
    steps: int
    alarms: int
    entries: int


class Numbers(NamedTuple):
    """`compared` answers, of which `undecided` by any judge; `left_out` for lack of time; `lost`
    results that the store did not take for too long."""

    compared: int
    undecided: int
    left_out: int
    lost: int
    accounts: tuple[Tallied, ...]

    def bound(self, namespace: str) -> float | None:
        """The share of wrong hits that audits have not excluded: its worst tenant's, in the
        worst language."""
        shown = [one.shown for one in self.accounts if one.namespace == namespace]
        return max((one.bound for one in shown if one.audits), default=None)


class Audits:
    """Thread-safe. `ledger` None: what is learned is forgotten with the process."""

    def __init__(
        self,
        judge: Judge,
        ledger: Ledger | None = None,
        *,
        clock: Clock = SYSTEM,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.judge, self._ledger, self._clock, self._dice = judge, ledger, clock, dice
        self._accounts = Accounts(persistent=ledger is not None)
        self.agreement, self.refuted = Agreement(ledger, clock=clock), Refuted(ledger)
        self._queue: deque[Comparison] = deque()
        self._looking: set[Account] = set()  # at what others found
        self._unsaved: set[Account] = set()
        self._compared = self._undecided = self._left_out = 0
        self._refused_until = 0.0
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = self._closing = False
        on_fork(self._in_child)

    # -- what requests ask -------------------------------------------------------------------

    def account(
        self, namespace: str, grounds: Grounds, max_error: float, mode: Mode, *, tenant: str = ""
    ) -> Account:
        """Where rulings on these grounds are accounted for; read from the store at first use.

        What one tenant asks is no evidence for another's hits: `tenant` is a part of its name.
        """
        group = account_name(tenant, namespace, grounds, mode)
        account = self._accounts.get(group)
        if account is None:
            budget = Budget(
                max_error,
                len(grounds.cuts),
                grounds.basis,
                mode,
                first=grounds.first,
                misjudgement=self.judge.misjudgement,
            )
            account = self._opened(Account(group, budget, namespace, grounds, tenant))
        elif self._ledger is not None and account.looked_at + REFRESH < self._clock.monotonic():
            account.looked_at = self._clock.monotonic()
            self._do(lambda: self._looking.add(account))
        return account

    def draw(self, account: Account, ruling: Ruling, pair: bytes = b"") -> Draw | None:
        """Whether the likeliest candidate is audited, served or not; a `pair` is once."""
        found = ruling.likeliest
        if found is None or found.band is None:
            return None
        return account.draw(found.band, self._dice(), pair)

    def compare(
        self,
        account: Account,
        draw: Draw | None,
        judged: Judged,
        stored: str,
        fresh: str,
        vouching: Vouching | None = None,
        *,
        pair: bytes = b"",
    ) -> None:
        """The model has answered: `fresh`. Judged later; returns at once."""
        if len(self._queue) >= MOST_WAITING:
            self._left_out += 1
            return
        asked = Comparison(account, draw, judged, stored, fresh, vouching, pair)
        self._do(lambda: self._queue.append(asked))

    def wrong(self, namespace: str, entry: bytes, *, tenant: str = "") -> bool:
        """Somebody says that `entry`, of `tenant`, was served wrongly. No random sample: it teaches
        the entry's history and stays out of the bound. False where there is nobody to teach."""
        taught = False
        for account in self._accounts.of(namespace, tenant):
            if not account.grounds.has_verdict:
                continue
            # As if the verdict had been as sure as it can be asked to be.
            strictest = max(cut for cut in account.grounds.cuts if cut != SAME_WORDS)
            happened = account.report(entry, strictest)
            if happened is not None:
                taught = True
                self._entered(account, happened)
        return taught

    def reset(self, namespace: str | None, *, tenant: str | None = None) -> int:
        """Begin anew after alarms, those of the store included; how many accounts there were.

        None is any namespace, or tenant. Waits for the store. Raises TierError.
        """
        held = {account.group: account for account in self._accounts.of(namespace, tenant)}
        for account in held.values():
            self._enter(account, RESET)
        if self._ledger is None:
            return len(held) + self._accounts.forget(namespace, tenant)
        return len(held) + len(reset_stored(self._ledger, namespace, tenant, held))

    def numbers(self) -> Numbers:
        accounts = self._accounts.all()
        return Numbers(
            self._compared,
            self._undecided,
            self._left_out,
            sum(account.lost for account in accounts),
            tuple(_tallied(account) for account in accounts),
        )

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over is judged and stored; False if it took too long."""
        with self._wake:
            self._wake.wait_for(lambda: not self._busy and not self._work_to_do(), timeout)
            return not (self._busy or self._queue or self._unsaved)

    def close(self, timeout: float = 5.0) -> None:
        """What is not judged by then is left out. Idempotent."""
        if self._thread is not None:
            self.flush(timeout)
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        self.judge.close()

    def _opened(self, account: Account) -> Account:
        if self._ledger is not None:
            account.looked_at = self._clock.monotonic()
            try:
                account.seen(self._ledger.read(account.group))
            except TierError as error:
                log.warning("semantic: the audits of %r are not read: %s", account.namespace, error)
                account.looked_at = 0.0
        return self._accounts.add(account)

    # -- the thread --------------------------------------------------------------------------

    def _do(self, add: Callable[[], object]) -> None:
        with self._wake:
            if self._closing:
                return
            add()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="thinkonce-audits", daemon=True
                )
                self._thread.start()
            self._wake.notify_all()

    def _work_to_do(self) -> bool:
        return bool(self._queue or self._looking or (self._unsaved and not self._refused))

    @property
    def _refused(self) -> bool:
        return self._clock.monotonic() < self._refused_until

    def _work(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                while not self._work_to_do() and not self._closing:
                    self._wake.wait(TRY_AGAIN if self._unsaved else None)
                if self._closing:
                    return
                self._busy = True
                asked, looking = list(self._queue), list(self._looking)
                self._queue.clear()
                self._looking.clear()
            for one in asked:
                self._judge(one)
            for account in looking:
                self._look(account)
            self._save()

    def _judge(self, asked: Comparison) -> None:
        try:
            same = self.judge.compare(asked.stored, asked.fresh).is_same
        except Exception as error:  # whatever it is, the next comparison may go well
            log.warning("semantic: the judge failed: %s", error)
            same = None
        self._compared += 1
        if same is None:
            self._undecided += 1
            return
        if asked.vouching is not None:
            alike = same and adds_no_address(asked.stored, asked.fresh)
            self.agreement.compared(asked.vouching, alike)
        score = asked.judged.score
        asked.account.compared()
        entry = b"" if score is None else asked.judged.entry
        account = asked.account
        if not same and asked.draw is not None and asked.pair:
            self.refuted.add(account.tenant, account.namespace, asked.pair, By.AUDITED)
        self._enter(account, Result(asked.draw, entry, score or 0.0, not same, asked.pair))
        asked.account.refit()

    def _enter(self, account: Account, result: Result | str) -> None:
        self._entered(account, account.enter(result))

    def _entered(self, account: Account, found: Sequence[Happened]) -> None:
        for happened in found:
            _tell(account, happened)
        if self._ledger is None:
            account.keep_here()
        else:
            self._do(lambda: self._unsaved.add(account))

    def _look(self, account: Account) -> None:
        """Histories were read at the start, and come anew with what is written of them."""
        assert self._ledger is not None
        try:
            account.seen(self._ledger.read(account.group, HEAD))
        except TierError as error:
            log.info("semantic: what other processes audited cannot be read: %s", error)

    def _save(self) -> None:
        with self._wake:
            accounts = list(self._unsaved)
        for account in accounts:
            if self._refused or not self._saved(account):
                return
            with self._wake:
                if not account.waiting:
                    self._unsaved.discard(account)

    def _saved(self, account: Account) -> bool:
        assert self._ledger is not None
        results, names = account.settling()
        rows: dict[bytes, bytes] = {}

        def change(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
            rows.clear()
            rows.update(account.written(results, held))
            return rows

        try:
            self._ledger.update(account.group, names, change)
        except TierError as error:
            self._refused_until = self._clock.monotonic() + TRY_AGAIN
            log.info("semantic: audits wait for the store: %s", error)
            return False
        account.settled(results, rows)
        return True

    def _in_child(self) -> None:
        """After a fork: the thread and what it was to do are the parent's."""
        self._wake = threading.Condition()
        self._thread, self._busy = None, False
        self._queue.clear()
        self._looking, self._unsaved = set(), set()


def _tallied(account: Account) -> Tallied:
    language, steps = account.grounds.language, len(account.grounds.cuts)
    shown, alarms = account.shown(), account.alarms
    whose = (account.group, account.tenant, account.namespace)
    return Tallied(*whose, language, shown, steps, alarms, account.entries)


def _tell(account: Account, happened: Happened) -> None:
    """One line an event."""
    shown = happened.shown
    how = f"{shown.standing}, serving {shown.step + 1} of {len(account.grounds.cuts)} cuts"
    named = repr(account.namespace) if account.namespace else "the namespace without a name"
    place = f"{named} ({account.grounds.language})"
    if account.tenant:
        place += f", tenant {account.tenant[:TENANT_DIGITS]}"
    if happened.event == Event.ALARM:
        if shown.standing is Standing.OFF:
            how += " until `thinkonce reset-audits`, once the cause is mended"
        log.warning("semantic: alarm in %s: too many hits are wrong; now %s", place, how)
    elif happened.event == Event.CERTIFIED:
        log.info("semantic: %s is certified: error at most %.4f; %s", place, shown.bound, how)
    else:
        log.info("semantic: %s was reset; %s", place, how)
