"""Which method to use where nobody said one: the cheapest that was measured to hold, or none.

Until a setting's audits hold (`meter.py`), answers are exact. What they would have been with it is
computed beside them, within the budget: the exact answer is the truth there already. Settings are
tried from the cheapest up; one that fails is left alone for long, and one that is served and fails
is taken back at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from thinkonce.kv.reuse.ladder import EXACT
from thinkonce.kv.reuse.meter import Audit, Key, Meter, Verdict

__all__ = ("Auto",)

Cost = Callable[[str], float]
"""What a setting would compute for the prompt at hand, in tokens."""

_MOST_NAMESPACES = 4096
_RETRY = 2_000  # answers before a setting that failed is tried again; twice as many each time
_MOST_RETRY = 64 * _RETRY


@dataclass(slots=True)
class _Seen:
    """Of one namespace: answers so far, settings that were served since they failed last, and when
    those that failed may be tried again.
    """

    answers: int = 0
    trusted: set[str] = field(default_factory=set)
    barred: dict[str, int] = field(default_factory=dict)
    patience: dict[str, int] = field(default_factory=dict)


class Auto:
    """Chooses among `settings` of all methods. Used by one thread."""

    def __init__(self, settings: Sequence[str], meter: Meter) -> None:
        self.settings, self._meter = tuple(settings), meter
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def served(self, namespace: str, cost: Cost, exact: float) -> str:
        """The cheapest setting that holds and costs less than the `exact` way, or `exact`."""
        seen = self._namespace(namespace)
        seen.answers += 1
        held = [each for each in self.settings if self._holds(namespace, seen, each)]
        best = min(held, key=cost, default=EXACT)
        if best == EXACT or cost(best) >= exact:
            return EXACT
        seen.trusted.add(best)
        return best

    def audited_next(self, namespace: str, cost: Cost, exact: float) -> str | None:
        """The setting to audit now: the cheapest that is not barred, held or open.

        Audits of one that holds keep it honest; those of a cheaper one that is open may find
        better. None: all that cost less than the `exact` way failed lately.
        """
        seen = self._namespace(namespace)
        free = [each for each in self.settings if not self._is_barred(seen, each)]
        worth = [each for each in free if cost(each) < exact]
        return min(worth, key=cost, default=None)

    def audited(self, namespace: str, setting: str, audit: Audit) -> bool:
        """Count an audit; whether it is an alarm: the setting was served, and fails."""
        seen, key = self._namespace(namespace), Key(namespace, setting)
        if self._meter.audited(key, audit).verdict is not Verdict.FAILS:
            return False
        wait = seen.patience.get(setting, _RETRY)
        seen.barred[setting] = seen.answers + wait
        seen.patience[setting] = min(2 * wait, _MOST_RETRY)
        self._meter.forget(key)
        was_trusted = setting in seen.trusted
        seen.trusted.discard(setting)
        return was_trusted

    def _holds(self, namespace: str, seen: _Seen, setting: str) -> bool:
        if self._is_barred(seen, setting):
            return False
        return self._meter.standing(Key(namespace, setting)).verdict is Verdict.HOLDS

    def _is_barred(self, seen: _Seen, setting: str) -> bool:
        return seen.barred.get(setting, 0) > seen.answers

    def _namespace(self, namespace: str) -> _Seen:
        seen = self._seen.get(namespace)
        if seen is None:
            seen = self._seen[namespace] = _Seen()
            if len(self._seen) > _MOST_NAMESPACES:
                self._seen.popitem(last=False)
        self._seen.move_to_end(namespace)
        return seen
