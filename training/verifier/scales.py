"""What the verifier's numbers are worth: curves and counts by language, from the calibration part.

Rows are what a cache would ask about: questions in random order, each with the stored neighbours
that pass guards and first stage, two at most. Curves are drawn by one half of the questions and
counted on the other, and the reverse, so that no cut is chosen by what its curve was fitted to.
Guards that were written by reading this part's errors are not asked: there they know more than
they will know of others' questions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "semantic"), str(ROOT / "training" / "score")]

from replay import candidates  # noqa: E402
from rows import questions  # noqa: E402
from stream import Stream  # noqa: E402

from thinkonce.meaning.guards import GUARDS, mention, roles  # noqa: E402
from thinkonce.meaning.verdict.calibration import Platt, fit_platt, logit, tallied  # noqa: E402
from thinkonce.meaning.verdict.ruling import CONSIDERED, VERIFIED, Question, read_question  # noqa: E402
from thinkonce.meaning.verdict.score import arounds, features, shipped  # noqa: E402
from thinkonce.meaning.verdict.verifier import CALIBRATION, Scale  # noqa: E402
from thinkonce.meaning.verifiers.joined import verifier  # noqa: E402

__all__ = ("fitted",)

ENCODER = "use"
SHARES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of the first stage's logit
PRECISIONS = (0.9, 0.95, 0.98)
UNBIASED = tuple(guard for guard in GUARDS if guard not in (mention.guard, roles.guard))
Logit = Callable[[str, str], float | None]


class Row(NamedTuple):
    asked: int
    verified: float
    score: float
    label: int


def fitted(folder: Path, sample: float, seed: int) -> dict[str, Scale]:
    """Scales of the model in `folder`, written beside it; `sample` is the share of questions."""
    model, scales = verifier(folder), {}
    for language in ("zh", "en"):
        most = 10**9 if sample >= 1 else int(12_000 * sample)
        asked = questions(language, "calibration", most, seed)
        rows = list(_rows(asked, language, _remembered(model.logit)))
        print(f"{language}: {len(rows)} rows, {sum(row.label for row in rows)} right", flush=True)
        scales[f"{ENCODER}-{language}"] = _scale(rows, SHARES)
        scales[language] = _scale(rows, (0.0,))
    encoded = msgspec.json.format(msgspec.json.encode(scales), indent=0)
    (folder / CALIBRATION).write_bytes(encoded + b"\n")
    return scales


def _remembered(judge: Logit) -> Logit:
    known: dict[tuple[str, str], float | None] = {}

    def logit_of(asked: str, stored: str) -> float | None:
        if (asked, stored) not in known:
            known[asked, stored] = judge(asked, stored)
        return known[asked, stored]

    return logit_of


def _rows(stream: Stream, language: str, judge: Logit) -> Iterator[Row]:
    model = shipped(ENCODER, language)
    assert model is not None
    read: dict[int, Question] = {}

    def question(at: int) -> Question:
        return read.get(at) or read.setdefault(at, read_question(stream.texts[at]))

    for text, near in candidates(stream):
        asked, found = question(text), []
        places = arounds([one.cosine for one in near])
        for one, place in list(zip(near, places, strict=True))[:CONSIDERED]:
            stored = question(one.entry)
            if any(guard(asked.analysed, stored.analysed) for guard in UNBIASED):
                continue
            opinion = model.opinion(features(asked.gist, stored.gist, place, model.rarity))
            if opinion.verdict != "reject":
                found.append((opinion.logit, one))
        for score, one in sorted(found, key=lambda pair: -pair[0])[:VERIFIED]:
            truth = stream.truth(text, one.entry, one.cosine)
            verified = None if truth is None else judge(asked.text, question(one.entry).text)
            if verified is not None:
                yield Row(text, verified, score, int(bool(truth)))


def _scale(rows: Sequence[Row], shares: Sequence[float]) -> Scale:
    """Each half of the questions is counted by a curve that was fitted to the other half."""
    halves = [[row for row in rows if _is_first(row.asked) == first] for first in (True, False)]
    best = max(shares, key=lambda share: (sum(_merit(half, share) for half in halves), -share))
    chances, labels = [], []
    for drawn, counted in (halves, halves[::-1]):
        curve = _curve(drawn, best)
        chances += [round(logit(curve(value)), 4) for value in _raw(counted, best)]
        labels += [row.label for row in counted]
    curve = _curve(rows, best)
    print(f"  share of the first stage {best}, curve {curve}", flush=True)
    return Scale(curve, best, tallied(chances, labels), promised=True)


def _curve(rows: Sequence[Row], share: float) -> Platt:
    return fit_platt(_raw(rows, share), [row.label for row in rows])


def _is_first(asked: int) -> bool:
    return (asked * 2654435761 >> 7) % 2 == 0


def _raw(rows: Sequence[Row], share: float) -> list[float]:
    return [row.verified + share * row.score for row in rows]


def _merit(rows: Sequence[Row], share: float) -> float:
    """The sum of recalls at PRECISIONS."""
    order = np.argsort(-np.asarray(_raw(rows, share)), kind="stable")
    right = np.asarray([row.label for row in rows])[order].cumsum()
    precision = right / np.arange(1, len(right) + 1)
    precision[:20] = 0
    found = (right[precision >= least] for least in PRECISIONS)
    return float(sum(each.max() / max(1, right[-1]) for each in found if len(each)))
