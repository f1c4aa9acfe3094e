"""A comparison of two analysed texts as numbers, for a score that is learned elsewhere.

Every feature lies in [0, 1] but the counts, which are small whole numbers. All are symmetric.
"""

from __future__ import annotations

from thinkonce.meaning.analysis import Analysed
from thinkonce.meaning.guards.languages import script
from thinkonce.meaning.veto import Veto

__all__ = ("FEATURES", "features")

# In the order of `features`. `veto_*`: 1.0 where that guard objects.
FEATURES: tuple[str, ...] = (
    "jaccard2",
    "jaccard3",
    "jaccard_words",
    "containment",  # share of the smaller word set that the other has
    "length_ratio",
    "same_normal",
    "unmatched_most",  # words only one side has: the larger count, the smaller count
    "unmatched_least",
    "question_same",
    "question_differs",  # both ask a known kind and share none
    "scope_differs",
    "names_one_sided",
    "unlisted_one_sided",
    "numbers_one_sided",
    "dates_one_sided",
    "numbers_differ",
    "dates_differ",
    "negation_differs",  # in parity, however far apart the texts are
    "asks_differ",
    "opposed",  # any pair of opposite words
    "negated_both",
    *(f"veto_{veto.value}" for veto in Veto),
)
_VETOES = tuple(Veto)
_COUNT_CAP = 20.0


def features(a: Analysed, b: Analysed, vetoes: tuple[Veto, ...]) -> tuple[float, ...]:
    """`vetoes` are `examine`'s, so that no guard runs twice."""
    shared = len(a.words & b.words)
    ours, theirs = len(a.words) - shared, len(b.words) - shared
    longer = max(len(a.normal), len(b.normal))
    questions = a.questions & b.questions
    told = vetoes if script(a, b) is None else (*vetoes, Veto.SCRIPT)
    return (
        _jaccard(a.grams2, b.grams2),
        _jaccard(a.grams3, b.grams3),
        shared / ((shared + ours + theirs) or 1),
        shared / (min(len(a.words), len(b.words)) or 1),
        min(len(a.normal), len(b.normal)) / longer if longer else 1.0,
        float(a.normal == b.normal),
        min(float(max(ours, theirs)), _COUNT_CAP),
        min(float(min(ours, theirs)), _COUNT_CAP),
        float(bool(questions)),
        float(bool(a.questions and b.questions) and not questions),
        float(a.scopes != b.scopes),
        float(bool(a.names) != bool(b.names)),
        float(bool(a.unlisted) != bool(b.unlisted)),
        float(bool(a.amounts) != bool(b.amounts)),
        float(bool(a.dates) != bool(b.dates)),
        float({value for value, _ in a.amounts} != {value for value, _ in b.amounts}),
        float(a.dates != b.dates),
        float((a.negations - b.negations) % 2),
        float(max(a.asks, 1) != max(b.asks, 1)),
        float(not a.opposed.isdisjoint(b.poles)),
        float(bool(a.negations and b.negations)),
        *(1.0 if veto in told else 0.0 for veto in _VETOES),
    )


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    together = len(a) + len(b) - shared
    return shared / together if together else 1.0
