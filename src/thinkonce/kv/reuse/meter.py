"""How faithful approximate reuse is, measured: what audits of it say, and what that is worth.

An audit reads one prompt both ways and compares 16 next tokens: the mean KL(exact || approximate),
and how many of them both prefer. Prompts differ more than tokens of one prompt do, so the interval
of the agreement (Wilson, JASA 22, 1927) counts tokens as far as they are worth tokens of different
prompts, by the spread between audits (Kish's design effect). Every audit is one look more, and
looks add up: what condemns asks for 2.6 standard errors, what acquits for 1.96.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from math import inf, sqrt

from thinkonce.kv.reuse.latest import Latest

__all__ = ("NOTHING", "Audit", "Bounds", "Key", "Meter", "Standing", "Verdict")

WINDOW = 160  # audits that count; older ones say little of today's traffic
_RECENT = 16  # of these, looked at apart: what was long right may be wrong since yesterday
_FEWEST = 6  # audits from which on one may condemn
_ENOUGH = 20  # and acquit
_PATIENCE = 40  # from here on a mean outside the bounds is enough to condemn
_CONDEMN, _ACQUIT = 2.6, 1.96  # standard errors


class Verdict(StrEnum):
    """What audits say of a setting."""

    HOLDS = "holds"
    FAILS = "fails"
    OPEN = "open"  # not yet known


@dataclass(frozen=True, slots=True)
class Key:
    """What is measured: one setting (`link 16`) of one namespace's traffic."""

    namespace: str
    setting: str


@dataclass(frozen=True, slots=True)
class Audit:
    """One prompt's answer: the mean KL in nats over `tokens` places, of which `agreed` agree."""

    divergence: float
    agreed: int
    tokens: int = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a setting has to keep: the lower bound of its agreement, and its mean KL in nats."""

    agreement: float = 0.95
    divergence: float = 0.05


@dataclass(frozen=True, slots=True)
class Standing:
    """Of the audits that count: the mean agreement and its 95 % interval, and the mean KL with its
    standard error, which is without bound after one.
    """

    audits: int = 0
    agreement: float = 1.0
    lower: float = 0.0
    upper: float = 1.0
    divergence: float = 0.0
    error: float = inf
    verdict: Verdict = Verdict.OPEN


NOTHING = Standing()


class Meter:
    """Standings of settings, from the latest audits of each.

    One thread tells of audits; any may look. The least recently audited of many keys is forgotten.
    """

    def __init__(self, bounds: Bounds | None = None, window: int = WINDOW) -> None:
        self.bounds, self._window = bounds or Bounds(), window
        self._audits: Latest[Key, deque[Audit]] = Latest()
        self._standings: dict[Key, Standing] = {}

    def audited(self, key: Key, audit: Audit) -> Standing:
        """Count one audit, and say how the setting stands."""
        return self._add(key, [audit])

    def _add(self, key: Key, more: Sequence[Audit]) -> Standing:
        audits = self._audits.used(key, lambda: deque(maxlen=self._window))
        audits.extend(more)
        self._standings[key] = standing = _standing(audits, self.bounds, self._window)
        if len(self._standings) > len(self._audits):
            for forgotten in self._standings.keys() - self._audits.keys():
                del self._standings[forgotten]
        return standing

    def standing(self, key: Key) -> Standing:
        return self._standings.get(key, NOTHING)

    def standings(self) -> Mapping[Key, Standing]:
        """All of them, as they are now."""
        return self._standings.copy()

    def audits(self) -> Mapping[Key, Sequence[Audit]]:
        """Those that count, oldest first. For the thread that tells of audits."""
        return {key: tuple(some) for key, some in self._audits.items()}

    def resume(self, key: Key, audits: Sequence[Audit]) -> None:
        """Begin with these, as if they had been told of."""
        if audits:
            self._add(key, audits)

    def forget(self, key: Key) -> None:
        """Begin anew with a setting: what was measured was of something else."""
        self._audits.pop(key, None)
        self._standings.pop(key, None)


def _standing(audits: deque[Audit], bounds: Bounds, window: int) -> Standing:
    count, found = len(audits), _Means(audits)
    lower, upper = found.interval(_ACQUIT)
    recent = _Means(islice(reversed(audits), _RECENT))
    outside = found.agreement < bounds.agreement or found.divergence > bounds.divergence
    verdict = Verdict.OPEN
    if count >= _FEWEST and (found.condemned(bounds) or recent.condemned(bounds)):
        verdict = Verdict.FAILS
    elif count >= _ENOUGH and lower >= bounds.agreement and not outside:
        verdict = Verdict.HOLDS
    elif (count >= _PATIENCE and outside) or count >= window:
        verdict = Verdict.FAILS
    return Standing(count, found.agreement, lower, upper, found.divergence, found.error, verdict)


class _Means:
    """Means of some audits, and how sure they are."""

    def __init__(self, some: Iterable[Audit]) -> None:
        audits = list(some)
        self._count = len(audits)
        self._tokens = sum(audit.tokens for audit in audits)
        self.agreement = sum(audit.agreed for audit in audits) / self._tokens
        self.divergence = sum(audit.divergence for audit in audits) / self._count
        shares = [audit.agreed / audit.tokens for audit in audits]
        self._spread = _variance(shares)
        self.error = sqrt(_variance([audit.divergence for audit in audits]) / self._count)

    def condemned(self, bounds: Bounds) -> bool:
        """Whether it is outside the bounds by more than chance."""
        _, upper = self.interval(_CONDEMN)
        certain = self.divergence - _CONDEMN * self.error
        return upper < bounds.agreement or certain > bounds.divergence

    def interval(self, errors: float) -> tuple[float, float]:
        """Wilson's, of the agreement, of so many standard errors."""
        trials, square = self._worth(), errors * errors
        middle = self.agreement + square / (2 * trials)
        share = self.agreement * (1 - self.agreement) / trials
        half = errors * sqrt(share + square / (4 * trials * trials))
        whole = 1 + square / trials
        return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)

    def _worth(self) -> float:
        """How many tokens of different prompts these tokens are worth: at least one an audit."""
        expected = self.agreement * (1 - self.agreement) * self._count / self._tokens
        effect = self._spread / expected if expected else 1.0
        return min(self._tokens, max(self._count, self._tokens / max(effect, 1.0)))


def _variance(values: list[float]) -> float:
    """Of what they were drawn from; without bound where there is one alone."""
    if len(values) < 2:
        return inf
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
