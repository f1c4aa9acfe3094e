"""What a cache may be in simulated traffic, and those that are compared.

Each is asked about every text that is not stored word for word, with the stored neighbours,
nearest first, and says what it would do; where it had the model asked as well, it is told the
truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import vcache

from thinkonce.meaning.audit.budget import Budget, Draw
from thinkonce.meaning.verdict.calibration import logit
from thinkonce.meaning.verdict.grounds import band_of
from thinkonce.meaning.verdict.learning import (
    SHIPPED,
    Belief,
    History,
    belief,
    careful,
    chance,
    fit_prior,
)

__all__ = (
    *("Action", "Cache", "Learner", "Likeness", "Neighbour", "Ours", "Reported"),
    *("Threshold", "Unaudited", "VCache"),
)


class Neighbour(NamedTuple):
    entry: int  # the stored text
    cosine: float


class Action(NamedTuple):
    """`served` from the entry, or `compared` with it after the model was asked, or both: the model
    is asked in the background; or neither.

    `is_audit`: without that it would have been served and no more, so that it cost a call.
    """

    served: int | None = None
    compared: int | None = None
    is_audit: bool = False


# The neighbours of a text with scores, the best first; empty where none is to be considered.
Likeness = Callable[[int, Sequence[Neighbour]], list[tuple[int, float]]]
NOTHING = Action()
WORTH_COMPARING = -2.0  # a logit
REFIT = 200  # observations between two fits of the prior


class Cache(Protocol):
    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action: ...

    def learn(self, entry: int, is_right: bool | None) -> None:
        """What the comparison asked for last came to; None: nobody can tell."""
        ...


class Threshold:
    """Serves the best neighbour where it reaches `cut`."""

    def __init__(self, likeness: Likeness, cut: float) -> None:
        self._cut, self._likeness = cut, likeness

    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action:
        ranked = self._likeness(text, near)
        return Action(ranked[0][0]) if ranked and ranked[0][1] >= self._cut else NOTHING

    def learn(self, entry: int, is_right: bool | None) -> None:
        raise AssertionError("a fixed threshold compares nothing")


class VCache:
    """Per-entry thresholds by the published mathematics; explores instead of auditing."""

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self._seen: dict[int, list[tuple[float, int]]] = {}
        self._curves: dict[int, vcache.Curve | None] = {}
        self._similarity = 0.0

    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action:
        if not near:
            return NOTHING
        entry, self._similarity = near[0]
        explore = vcache.explore_chance(self._curves.get(entry), self._similarity, self._delta)
        if dice <= explore:
            return Action(compared=entry, is_audit=explore < 1.0)
        return Action(entry)

    def learn(self, entry: int, is_right: bool | None) -> None:
        if is_right is None:
            return
        seen = self._seen.setdefault(entry, [])
        seen.append((self._similarity, int(is_right)))
        self._curves[entry] = vcache.fit(seen)


class Ours:
    """Calibrated likeness, learning by entry where `rule` is given, and the budget over all.

    `likeness` gives logits of P(right); `rule` says what an entry's history makes of them.
    """

    def __init__(
        self,
        likeness: Likeness,
        cuts: Sequence[float],
        budget: Budget,
        rule: Callable[[Belief, float], float] | None = careful,
    ) -> None:
        self._likeness, self._cuts, self._rule = likeness, cuts, rule
        self.budget = budget
        self._prior = SHIPPED
        self._histories: dict[int, History] = {}
        self._beliefs: dict[int, Belief] = {}
        self._learned = 0
        self._drawn: Draw | None = None
        self._score = 0.0

    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action:
        ranked = [(self._sure(*found), *found) for found in self._likeness(text, near)]
        if not ranked:
            return NOTHING
        sure, entry, self._score = max(ranked)
        band = band_of(sure, self._cuts)
        self._drawn = None if band is None else self.budget.draw(band, dice)
        serves = band is not None and self.budget.serves(band)
        if serves and self._drawn is None:
            return Action(entry)
        if serves:  # and audited: whoever asked has the stored answer
            return Action(entry, entry, is_audit=True)
        # Where nothing is served the model is asked anyway: comparing costs no call.
        return Action(compared=entry) if sure > WORTH_COMPARING else NOTHING

    def learn(self, entry: int, is_right: bool | None) -> None:
        if is_right is None:
            return
        if self._drawn is not None:
            self.budget.audited(self._drawn, not is_right)
        if self._rule is None:
            return
        history = self._histories.setdefault(entry, History())
        history.add(self._score, is_right)
        self._beliefs[entry] = belief(self._prior, history.weighted())
        self._learned += 1
        if self._learned % REFIT == 0:
            self._refit()

    def _refit(self) -> None:
        known = {entry: history.weighted() for entry, history in self._histories.items()}
        self._prior = fit_prior(known.values())
        self._beliefs = {entry: belief(self._prior, seen) for entry, seen in known.items()}

    def _sure(self, entry: int, score: float) -> float:
        if self._rule is None:
            return score
        return logit(self._rule(self._beliefs.get(entry) or belief(self._prior), score))


class Unaudited(Ours):
    """What calibration promises, and nothing learned: nobody ever says what was right."""

    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action:
        return self._by_calibration(text, near)

    def _by_calibration(self, text: int, near: Sequence[Neighbour]) -> Action:
        ranked = [(self._sure(*found), *found) for found in self._likeness(text, near)]
        if not ranked:
            return NOTHING
        sure, entry, self._score = max(ranked)
        band = band_of(sure, self._cuts)
        is_served = band is not None and self.budget.serves(band)
        return Action(entry) if is_served else NOTHING


class Reported(Unaudited):
    """The same, where every wrong hit is reported: the entry's history learns of it, at once."""

    def __init__(
        self,
        likeness: Likeness,
        cuts: Sequence[float],
        budget: Budget,
        truth: Callable[[int, int, float], bool | None],
    ) -> None:
        super().__init__(likeness, cuts, budget)
        self._truth = truth

    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action:
        done = self._by_calibration(text, near)
        if done.served is None:
            return done
        cosine = next(found.cosine for found in near if found.entry == done.served)
        if self._truth(text, done.served, cosine) is False:
            self._drawn = None
            self.learn(done.served, False)
        return done


class Learner(Ours):
    """Learning by entry without a budget: serves what is sure enough, compares all else.

    By the fitted prior alone: no audits have weighed what its cut lets through.
    """

    def __init__(self, likeness: Likeness, floor: float) -> None:
        budget = Budget(1 - floor, 1, "simulation")
        super().__init__(likeness, (logit(floor),), budget, _by_fit)

    def ask(self, text: int, near: Sequence[Neighbour], dice: float) -> Action:
        ranked = [(self._sure(*found), *found) for found in self._likeness(text, near)]
        if not ranked:
            return NOTHING
        sure, entry, self._score = max(ranked)
        return Action(entry) if sure >= self._cuts[0] else Action(compared=entry)


def _by_fit(entry: Belief, score: float) -> float:
    return chance(entry.fitted, score)
