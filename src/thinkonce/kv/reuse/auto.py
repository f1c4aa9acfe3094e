"""Which method to use where nobody said one: the cheapest that was measured to hold, or none.

Until a setting's audits hold (`meter.py`), answers are exact. What they would have been with it is
computed beside them, within the budget. Settings are tried from the dearest down: that is the one
most likely to hold, so something is saved soon, and cheaper ones are tried while it is served. One
that fails is left alone for long, and one that is served and fails is taken back at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thinkonce.kv.reuse.ladder import EXACT, Case
from thinkonce.kv.reuse.latest import Latest
from thinkonce.kv.reuse.meter import Audit, Key, Meter, Verdict
from thinkonce.kv.reuse.taught import State, Weighed

__all__ = ("Auto",)

_RETRY = 2_000  # answers before a setting that failed is tried again; twice as many each time
_MOST_RETRY = 64 * _RETRY


@dataclass(slots=True)
class _Seen:
    """Of one namespace: answers so far, what was `served` last, settings that were since they
    failed last, and when those that failed may be tried again.
    """

    answers: int = 0
    served: str = EXACT
    audits: int = 0
    trusted: set[str] = field(default_factory=set)
    barred: dict[str, int] = field(default_factory=dict)
    patience: dict[str, int] = field(default_factory=dict)


class Auto:
    """Chooses among `settings` of all methods: an `Effort`."""

    def __init__(self, settings: Sequence[str], meter: Meter) -> None:
        self.settings, self._meter = tuple(settings), meter
        self.steps = (*self.settings, EXACT)
        self._seen: Latest[str, _Seen] = Latest()

    def in_force(self) -> Mapping[str, int]:
        return Counter(seen.served for seen in list(self._seen.values()))

    def served(self, case: Case) -> str:
        """The cheapest setting that holds and costs less than the exact way, or `exact`."""
        seen = self._seen.get(case.namespace)
        if seen is None:
            return EXACT
        held = [each for each in self.settings if self._holds(case.namespace, seen, each)]
        return min(
            (each for each in held if case.cost(each) < case.exact), key=case.cost, default=EXACT
        )

    def answered(self, namespace: str, setting: str) -> None:
        seen = self._namespace(namespace)
        seen.answers, seen.served = seen.answers + 1, setting
        if setting != EXACT:
            seen.trusted.add(setting)

    def audited_next(self, case: Case) -> str | None:
        """The dearest that is open and cheaper than what is served; in turns with that, to keep it
        honest. None: all that cost less than the exact way failed lately.
        """
        seen, served = self._namespace(case.namespace), self.served(case)
        below = case.exact if served == EXACT else case.cost(served)
        free = [each for each in self.settings if not self._is_barred(seen, each)]
        open_ones = [each for each in free if case.cost(each) < below]
        if served != EXACT and (not open_ones or seen.audits % 2):
            return served
        return max(open_ones, key=case.cost, default=None)

    def audited(self, namespace: str, setting: str, audit: Audit) -> bool:
        seen, key = self._namespace(namespace), Key(namespace, setting)
        seen.audits += 1
        if self._meter.audited(key, audit).verdict is not Verdict.FAILS:
            return False
        wait = seen.patience.get(setting, _RETRY)
        seen.barred[setting] = seen.answers + wait
        seen.patience[setting] = min(2 * wait, _MOST_RETRY)
        self._meter.forget(key)
        was_trusted = setting in seen.trusted
        seen.trusted.discard(setting)
        return was_trusted

    def state(self, namespace: str) -> State | None:
        seen = self._seen.get(namespace)
        if seen is None:
            return None
        trusted = tuple(sorted(seen.trusted))
        return Weighed(seen.answers, seen.audits, seen.served, trusted, seen.barred, seen.patience)

    def resume(self, namespace: str, state: State) -> None:
        if not isinstance(state, Weighed):
            return
        seen = self._namespace(namespace)
        seen.answers, seen.audits, seen.served = state.answers, state.audits, state.served
        seen.trusted = set(state.trusted)
        seen.barred, seen.patience = dict(state.barred), dict(state.patience)

    def _holds(self, namespace: str, seen: _Seen, setting: str) -> bool:
        if self._is_barred(seen, setting):
            return False
        return self._meter.standing(Key(namespace, setting)).verdict is Verdict.HOLDS

    def _is_barred(self, seen: _Seen, setting: str) -> bool:
        return seen.barred.get(setting, 0) > seen.answers

    def _namespace(self, namespace: str) -> _Seen:
        return self._seen.used(namespace, _Seen)
