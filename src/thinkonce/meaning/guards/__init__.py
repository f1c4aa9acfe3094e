"""The guards, in the order their reasons are told: one file and one line each.

A guard compares two analysed texts and gives its veto or None. It is pure, symmetric, gives None
for a text and itself, and costs a few microseconds at most. Strong evidence vetoes here; weak
evidence is a number in `score.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from thinkonce.meaning.guards import (
    asks,
    dates,
    direction,
    languages,
    mention,
    names,
    negation,
    numbers,
    opposites,
    question,
    roles,
    signs,
    units,
)
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("GUARDS", "Guard")

Guard = Callable[[Analysed, Analysed], Veto | None]

GUARDS: tuple[Guard, ...] = (
    languages.guard,
    numbers.guard,
    units.guard,
    dates.guard,
    negation.guard,
    opposites.antonym,
    opposites.comparative,
    opposites.modality,
    opposites.scope,
    direction.guard,
    roles.guard,
    signs.guard,
    names.guard,
    mention.guard,
    question.guard,
    asks.guard,
)
