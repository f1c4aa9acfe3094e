"""What a cache does for whoever asks it: the decorator, `Cache`'s own verbs, the adapters."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from math import inf
from typing import Protocol

import msgspec

from thinkonce.drive import AsyncWorld, BlockingWorld, drive, drive_async
from thinkonce.entry import PRIORITY_WEIGHT, Entry
from thinkonce.errors import ConfigError
from thinkonce.flow import answer, examine, lead
from thinkonce.freshness import Verdict, judge
from thinkonce.functions import Receiver
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.request.controls import Controls
from thinkonce.shelf import Shelf
from thinkonce.stats import CacheStats, Explanation, stats_of
from thinkonce.steps import Answer, Ask, Made
from thinkonce.tally import Ledger, Tally

__all__ = ("Asker", "Workings")

log = logging.getLogger("thinkonce")
Ttl = float | str | None


class Asker(Protocol):
    """Whoever counts its own calls; held weakly."""

    tally: Tally


class Workings:
    """Thread-safe. Public for the parts of this package; users hold the `Cache` made of it."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        # What hits touch, one attribute nearer.
        self.memory, self.store, self.setting = shelf.memory, shelf.store, shelf.setting
        self.keyer, self.shared = shelf.keyer, shelf.shared
        self.inline = True
        self.implied_priority: str | None = None
        self.tally = Tally()
        self.lock = threading.Lock()
        self.receiver = Receiver()
        self._blocking = BlockingWorld(self.setting, shelf.flights, self._tier_failed)
        self._async = AsyncWorld(self.setting, shelf.flights, self._tier_failed)
        self._ledger: Ledger[Asker] = Ledger()
        shelf.tier_failed = self._tier_failed
        on_fork(self._in_child)

    @property
    def epoch(self) -> int:
        """The purge epoch now; what a request begins under."""
        return self.shelf.epoch

    def answer(self, ask: Ask) -> Answer:
        return drive(answer(ask, self.setting), self._blocking)

    async def answer_async(self, ask: Ask) -> Answer:
        return await drive_async(answer(ask, self.setting), self._async)

    def keep(self, ask: Ask) -> Made:
        """Store what `ask.call` gives, without asking whether it is there."""
        made = drive(lead(ask, self.setting), self._blocking)
        assert isinstance(made, Made)
        return made

    def spoilt(self, ask: Ask, answer: Answer, error: Exception) -> bool:
        """Remove an entry whose value could not be rebuilt; False if no tier gave it."""
        if ask.key is None or answer.entry is None or answer.value_is_own:
            return False
        self._tier_failed(answer.tier or "flights", error)
        for tier in self.setting.tiers:
            self._blocking.drop(tier, ask)
        return True

    def recheck(self, ask: Ask) -> Answer | None:
        """A fresh answer that came into the memory tier since `ask` looked."""
        if ask.controls.refresh or ask.key is None:
            return None
        entry = self.memory.map.get(ask.key.local)
        if entry is None or self._verdict(entry, ask)[0] is not Verdict.FRESH:
            return None
        return Answer(Outcome.HIT, None, entry, tier=self.memory.name, match=Match.EXACT)

    def purged_since(self, epoch: int, ask: Ask) -> bool:
        """Whether a purge later than `epoch` means what a call for `ask` would make."""
        assert ask.key is not None
        return self.shelf.is_purged(Entry(None, None, ask.meta, ask.key.digest, epoch=epoch))

    def examine(self, ask: Ask) -> Explanation:
        """What `ask` would get now. Counts nothing and calls nothing."""
        told = self._examined(ask, Match.EXACT)
        if told.outcome is not Outcome.MISS or ask.likeness is None:
            return told
        matched, compared = ask.likeness.peek()
        if matched is None:
            why = str(compared["why"])
            return msgspec.structs.replace(told, in_other_words=why, compared=compared)
        other = self._examined(replace(ask, key=matched.key, likeness=None), matched.match)
        if other.outcome is not Outcome.HIT:  # nothing stale answers another question
            return told
        return msgspec.structs.replace(other, question=matched.question, compared=compared)

    def wrong(self, ask: Ask) -> bool:
        """The answer that `ask` got is wrong: forget it, and never give it in other words again."""
        assert ask.key is not None
        is_gone = self.shelf.discard(ask.key)
        is_refused = ask.likeness is not None and ask.likeness.refuse()
        return is_gone or is_refused

    def _examined(self, ask: Ask, match: Match) -> Explanation:
        """Of the entry under its very key."""
        assert ask.key is not None
        name = ask.key.digest.hex()
        found = drive(examine(ask, self.setting), self._blocking)
        if found is None:
            failed = Reason.TIER_ERROR if ask.trouble else None
            reason = failed or self.memory.why_gone(ask.key) or Reason.NEW
            return Explanation(Outcome.MISS, reason, name)
        outcome, now = _PROMISES.get(found.verdict, Outcome.MISS), self.setting.clock.wall()
        age, left = now - found.entry.created_at, found.entry.expires_at - now
        how = None if outcome is Outcome.MISS else match
        return Explanation(outcome, found.reason, name, found.tier, age, left, how)

    def probe(self, local: object) -> Entry | None:
        """A memory hit that the flow has decided already; None sends the caller to the flow."""
        if not self.inline or log.isEnabledFor(logging.INFO):
            return None
        return self.shelf.probe(local)

    def controls(
        self, ttl: Ttl, tags: tuple[str, ...] | list[str] | str, namespace: str, priority: str
    ) -> Controls:
        """Checked controls for entries made from Python. Raises ConfigError."""
        rules = self.setting.rules
        seconds, implied = (None, self.implied_priority) if ttl is None else rules.parse_ttl(ttl)
        tags = (tags,) if isinstance(tags, str) else tags
        chosen = priority or implied or ""
        if chosen not in ("", *PRIORITY_WEIGHT):
            raise ConfigError("priority", priority, " | ".join(PRIORITY_WEIGHT))
        if not isinstance(namespace, str):
            raise ConfigError("namespace", namespace, 'a text, such as "v2"; "" for none')
        return Controls(ttl=seconds, tags=tuple(tags), namespace=namespace, priority=chosen)

    def register(self, caller: Asker) -> None:
        """Count `caller` in `stats()`, also what it has counted once it is gone."""
        self._ledger.enter(caller, caller.tally)

    def total(self) -> Tally:
        """Everything asked through this cache since it was opened."""
        total = self._ledger.total()
        total.add(self.tally)
        return total

    def stats_of(self, tally: Tally, ttl: float) -> CacheStats:
        """`tally` with the tier errors of the whole cache; `ttl` in seconds."""
        shown = Tally()
        shown.add(tally)
        shown.tier_errors = dict(self.tally.tier_errors)
        dropped = 0 if self.store is None else self.store.stats().dropped_writes
        told = stats_of(shown, self.memory, ttl, dropped)
        if self.shelf.meaning is not None:
            told["semantic"] = self.shelf.meaning.told()
        return told

    def log(self, answer: Answer, scope: str) -> None:
        """One line an outcome, at INFO. Never the question or the answer."""
        if not log.isEnabledFor(logging.INFO):
            return
        left = inf if answer.entry is None else answer.entry.expires_at
        log.info(
            "%s %s reason=%s match=%s tier=%s life_left=%.0fs",
            answer.outcome.value,
            scope,
            answer.reason.value if answer.reason is not None else "-",
            answer.match or "-",
            answer.tier or "-",
            left - self.setting.clock.wall(),
        )

    def stop(self, timeout: float) -> None:
        """Close what stands behind; the memory tier serves on. Idempotent."""
        self._blocking.closed = self._async.closed = True
        self._blocking.wait_for_renewals(timeout)
        self._async.wait_from_outside(timeout)
        self.shelf.close()

    # -- inside ----------------------------------------------------------------------------

    def _verdict(self, entry: Entry, ask: Ask) -> tuple[Verdict, Reason | None]:
        clock = self.setting.clock
        return judge(
            entry, ask.controls, self.setting.rules, (clock.wall(), clock.monotonic()), 1.0
        )

    def _in_child(self) -> None:
        """After a fork: threads and tasks under way are the parent's."""
        free_after_fork(self.lock)
        self._blocking.renewals.clear()
        self._async.renewals.clear()

    def _tier_failed(self, tier: str, error: Exception) -> None:
        self.tally.tier_failed(tier)
        log.warning("tier %s failed: %s", tier, error)


_PROMISES = {
    Verdict.FRESH: Outcome.HIT,
    Verdict.EARLY: Outcome.HIT,
    Verdict.STALE: Outcome.STALE,
}
