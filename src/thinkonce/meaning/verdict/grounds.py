"""What rulings of one namespace and language go by: models, cuts, and the name of it all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from thinkonce.meaning.text.language import Language
from thinkonce.meaning.verdict.calibration import Platt, Tally, ladder, logit
from thinkonce.meaning.verdict.learning import SHIPPED, chance
from thinkonce.meaning.verdict.score import Score, shipped
from thinkonce.meaning.verdict.verifier import Scale, Verifier

__all__ = (
    *("EDITION", "SAME_WORDS", "Grounds", "band_of", "grounds_of"),
    *("promised_from", "spoken"),
)

# To be raised when guards, features or histories change so that hits become others: what audits
# said of the old ones says nothing of the new.
EDITION = 5
_BUDGETS = (0.01, 0.0125, 0.015, 0.02, 0.03, 0.05, 0.1)
# The first cut: of hits in the same plain words, which no score decides. They have a band of their
# own, so that what audits say of them is not taken for what they say of the verdict.
SAME_WORDS = 99.0
# Cuts of a verifier that nobody calibrated, as chances; none is served before it is certified.
UNCALIBRATED = tuple(logit(chance) for chance in (0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.8))
_CHINESE = (Language.ZH, Language.ZH_HANS, Language.ZH_HANT, Language.MIXED)


class Grounds(msgspec.Struct, frozen=True):
    """`cuts` are logits of the chance to be right, strict to loose, SAME_WORDS before them, alone
    where nothing else can serve. `first` is the one that calibration promises, 0 where it promises
    none of the verdict. `basis` tells one set of grounds from another.

    `least_similarity` is a request's own, or its namespace's; it only adds to what a hit must be.
    """

    language: str
    score: Score | None
    scale: Scale | None
    cuts: tuple[float, ...]
    first: int
    basis: str
    least_similarity: float = 0.0
    same_script: bool = False

    @property
    def has_verdict(self) -> bool:
        """Whether other words than the same can serve."""
        return len(self.cuts) > 1


def spoken(language: Language) -> str:
    """By what a text's language is calibrated: zh, en, or other."""
    if language is Language.EN:
        return "en"
    return "zh" if language in _CHINESE else "other"


def grounds_of(
    language: str,
    embedder: str,
    verifier: Verifier | None,
    max_error: float,
    *,
    family: str = "",
    judge: str = "",
    model: str = "",
    same_script: bool = False,
) -> Grounds:
    """`language` as `spoken` gives it, `embedder`, `judge` and `model` by name.

    `family`: whose calibration is the embedder's, "" for none.

    Costs some milliseconds: to be kept.
    """
    score = shipped(family, language) if family else None
    scale = _scale(verifier, family if score else "", language)
    ruled, promised = _cuts(score, scale, max_error)
    cuts, first = (SAME_WORDS, *ruled), promised + 1
    said = [score, scale, cuts, max_error, same_script, embedder, judge, model]
    mark = hashlib.blake2b(msgspec.json.encode(said), digest_size=8).hexdigest()
    verified = verifier.name if verifier else "no verifier"
    basis = f"{EDITION}, {embedder}, {verified}, {mark}"
    return Grounds(language, score, scale, cuts, first, basis, same_script=same_script)


def promised_from(grounds: Grounds) -> float | None:
    """The least of some budgets at which calibration alone lets the verdict serve; None: at none.

    Costs some milliseconds.
    """
    tried = (budget for budget in _BUDGETS if _cuts(grounds.score, grounds.scale, budget)[1] >= 0)
    return next(tried, None)


def _scale(verifier: Verifier | None, family: str, language: str) -> Scale | None:
    if verifier is None:
        return None
    known = verifier.scales.get(f"{family}-{language}") or verifier.scales.get(language)
    return known or Scale(Platt(1.0, 0.0))


def _cuts(
    score: Score | None, scale: Scale | None, max_error: float
) -> tuple[tuple[float, ...], int]:
    """Those of the verdict, and the place of the one that calibration promises; -1: of none."""
    if scale is not None and scale.tallies:
        cuts, first = ladder([_with_prior(tally) for tally in scale.tallies], max_error)
        return cuts, first if scale.promised else -1
    if scale is not None:
        return UNCALIBRATED, -1
    if score is None or score.accept is None:
        return (), -1
    return (_prior(logit(score.accept)),), 0 if score.max_error <= max_error else -1


def _with_prior(tally: Tally) -> Tally:
    return msgspec.structs.replace(tally, score=_prior(tally.score))


def _prior(score: float) -> float:
    """What is made of the score of an entry without history."""
    return logit(chance(SHIPPED, score))


def band_of(score: float, cuts: Sequence[float]) -> int | None:
    """The first of `cuts`, strict to loose, that `score` reaches; None where it reaches none."""
    for band, cut in enumerate(cuts):
        if score >= cut:
            return band
    return None
