"""More effort where fidelity asks for it: the rungs of a method, up to computing everything.

    link     link 16  ->  link 32  ->  link 64  ->  exact
                fails        holds: served

A rung that fails is left for the next one; a cheaper one is served again only once its own audits
hold, taken of answers that something better gave. So nobody gets an answer of a setting that is
known to be outside the bounds, and a setting that has become right is found again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from thinkonce.kv.reuse.latest import Latest
from thinkonce.kv.reuse.meter import Audit, Key, Meter, Verdict
from thinkonce.kv.reuse.taught import Climbed, State

__all__ = ("EXACT", "Case", "Effort", "Ladder")

EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt that is asked for. `cost`: tokens that a setting would compute of it; `exact`:
    those from which on reading it exactly is as good.
    """

    namespace: str
    cost: Callable[[str], float]
    exact: float


class Effort(Protocol):
    """What a method means at this moment, by what was measured. Told of things by one thread;
    any may ask what is served.
    """

    @property
    def steps(self) -> tuple[str, ...]:
        """What may be served, cheapest first, `exact` last."""
        ...

    def in_force(self) -> Mapping[str, int]:
        """Of how many namespaces each setting is what was served last. Thread-safe."""
        ...

    def served(self, case: Case) -> str:
        """The setting to answer with, or `exact`."""
        ...

    def answered(self, namespace: str, setting: str) -> None:
        """It was answered with that."""
        ...

    def audited_next(self, case: Case) -> str | None:
        """The setting to audit now; None: nothing is worth it."""
        ...

    def audited(self, namespace: str, setting: str, audit: Audit) -> bool:
        """Count an audit; whether it is an alarm: what was served fails."""
        ...

    def state(self, namespace: str) -> State | None:
        """Where it stands; None: where all begin."""
        ...

    def resume(self, namespace: str, state: State) -> None:
        """Begin there, as far as that means something to these settings. At the start alone."""
        ...


# Audits of the rung that is served before a cheaper one that failed is tried again; twice as many
# each time it fails.
_CLEAN = 200
_MOST_CLEAN = 64 * _CLEAN


@dataclass(slots=True)
class _Place:
    """Where one namespace stands. `clean`: audits since the last step; `wanted` before a trial."""

    rung: int
    clean: int = 0
    wanted: int = _CLEAN
    alarms: int = 0


class Ladder:
    """One method's settings, cheapest first, ending in `exact`: an `Effort`.

    `first` is what is served before anything is measured.
    """

    def __init__(self, rungs: Sequence[str], first: str, meter: Meter) -> None:
        self.steps = self.rungs = (*rungs, EXACT)
        self._first, self._meter = self.rungs.index(first), meter
        self._places: Latest[str, _Place] = Latest()

    def in_force(self) -> Mapping[str, int]:
        return Counter(self.rungs[place.rung] for place in list(self._places.values()))

    def served(self, case: Case) -> str:
        place = self._places.get(case.namespace)
        return self.rungs[self._first if place is None else place.rung]

    def answered(self, namespace: str, setting: str) -> None:
        """An answer for which nothing approximate was used counts as clean as an audit."""
        if setting == EXACT:
            self._place(namespace).clean += 1

    def alarms(self, namespace: str) -> int:
        """How often a setting that was served left the bounds."""
        return self._place(namespace).alarms

    def audited_next(self, case: Case) -> str | None:
        """The one that is served, or a cheaper one on trial.

        None: `exact` is served and nothing is on trial.
        """
        place = self._place(case.namespace)
        if place.rung and place.clean >= place.wanted:
            return self.rungs[place.rung - 1]
        setting = self.rungs[place.rung]
        return setting if setting != EXACT else None

    def audited(self, namespace: str, setting: str, audit: Audit) -> bool:
        place = self._place(namespace)
        standing = self._meter.audited(Key(namespace, setting), audit)
        if setting == self.rungs[place.rung]:
            place.clean += 1
            return standing.verdict is Verdict.FAILS and self._up(namespace, place)
        if place.rung and setting == self.rungs[place.rung - 1]:
            self._tried(place, standing.verdict, Key(namespace, setting))
        return False

    def state(self, namespace: str) -> State | None:
        place = self._places.get(namespace)
        if place is None:
            return None
        first, setting = self.rungs[self._first], self.rungs[place.rung]
        return Climbed(first, setting, place.clean, place.wanted, place.alarms)

    def resume(self, namespace: str, state: State) -> None:
        """A ladder that begins elsewhere now begins there: somebody wanted that."""
        if not isinstance(state, Climbed) or state.first != self.rungs[self._first]:
            return
        if state.setting in self.rungs:
            place = self._place(namespace)
            place.rung, place.clean = self.rungs.index(state.setting), state.clean
            place.wanted, place.alarms = state.wanted, state.alarms

    def _up(self, namespace: str, place: _Place) -> bool:
        self._meter.forget(Key(namespace, self.rungs[place.rung]))
        place.rung, place.clean, place.alarms = place.rung + 1, 0, place.alarms + 1
        return True

    def _tried(self, place: _Place, verdict: Verdict, key: Key) -> None:
        """A cheaper setting holds, and is served from now on; or fails, and waits longer."""
        if verdict is Verdict.OPEN:
            return
        if verdict is Verdict.HOLDS:
            place.rung, place.wanted = place.rung - 1, _CLEAN
        else:
            self._meter.forget(key)
            place.wanted = min(2 * place.wanted, _MOST_CLEAN)
        place.clean = 0

    def _place(self, namespace: str) -> _Place:
        return self._places.used(namespace, lambda: _Place(self._first))
