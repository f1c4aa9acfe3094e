"""A method that is measured and left as it is: who asked for it decides what follows.

Modules are such a one: there is no dearer setting to climb to but computing everything, and whoever
wrote the schema said what may stand for what. Leaving the bounds is an alarm all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from thinkonce.kv.reuse.ladder import Case
from thinkonce.kv.reuse.latest import Latest
from thinkonce.kv.reuse.meter import Audit, Key, Meter, Verdict
from thinkonce.kv.reuse.taught import State

__all__ = ("Watched",)


class Watched:
    """An `Effort` of one setting."""

    def __init__(self, setting: str, meter: Meter) -> None:
        self.steps = (setting,)
        self._setting, self._meter = setting, meter
        self._namespaces: Latest[str, None] = Latest()

    def in_force(self) -> Mapping[str, int]:
        return Counter({self._setting: len(self._namespaces)} if self._namespaces else {})

    def served(self, case: Case) -> str:
        return self._setting

    def answered(self, namespace: str, setting: str) -> None:
        self._namespaces.used(namespace, lambda: None)

    def audited_next(self, case: Case) -> str | None:
        return self._setting

    def audited(self, namespace: str, setting: str, audit: Audit) -> bool:
        """An alarm is one once, until it holds again."""
        key = Key(namespace, setting)
        failed = self._meter.standing(key).verdict is Verdict.FAILS
        return self._meter.audited(key, audit).verdict is Verdict.FAILS and not failed

    def state(self, namespace: str) -> State | None:
        return None

    def resume(self, namespace: str, state: State) -> None:
        """Nothing is known but audits."""
