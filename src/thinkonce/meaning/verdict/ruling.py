"""Whether a stored answer serves a question in other words: two stages, then what audits allow.

    candidates, nearest first
      ├─ similarity below what the namespace asks for ──► refused
      ├─ guards: a difference in the words ─────────────► refused
      ├─ score: clearly not ────────────────────────────► refused
      │         clearly so ──────┐
      └─ verifier, two at most ──┤ none, or no answer ──► refused
                                 ▼
          chance ─► with the entry's history ─► band ─► served where audits have it so

Everything it goes by is an argument, so that one question is ruled alike on every machine; a
ruling holds all of the evidence. Without embedding, reading and verifier a candidate takes
some 40 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed, analyse
from thinkonce.meaning.text.gist import Gist, gist
from thinkonce.meaning.verdict.calibration import logit, sigmoid
from thinkonce.meaning.verdict.grounds import Grounds, band_of
from thinkonce.meaning.verdict.learning import held
from thinkonce.meaning.verdict.origin import Origin
from thinkonce.meaning.verdict.score import Around, Opinion, features

__all__ = (
    "CONSIDERED",
    "Candidate",
    "Judged",
    "Question",
    "Refusal",
    "Ruling",
    "read_question",
    "rule",
)

CONSIDERED = 3  # candidates that are scored; the right one is rarely further down
VERIFIED = 2  # of them, at most, that the verifier is asked about
WORTH_COMPARING = -2.0  # a logit: from here on an answer says something about the entry


class Refusal(StrEnum):
    """Why a candidate does not serve."""

    SIMILARITY = "similarity"  # below what the namespace asks for
    GUARD = "guard"  # its words differ in what decides the answer
    SCORE = "score"  # the first stage is sure enough that it is another question
    UNVERIFIED = "unverified"  # the first stage cannot tell, and no verifier could be asked
    PASSED_OVER = "passed-over"  # others stood a better chance
    CHANCE = "chance"  # not sure enough for any cut
    BAND = "band"  # sure enough for a cut that audits have not allowed
    REFUTED = "refuted"  # an audit or feedback said that its answer is wrong for this question
    AGREEMENT = "agreement"  # another member's of the group, for which too few vouch


class Question(msgspec.Struct, frozen=True):
    """A text and what is compared of it."""

    text: str
    analysed: Analysed
    gist: Gist


class Candidate(msgspec.Struct, frozen=True):
    """A stored question; `entry` names what it was answered with (a digest)."""

    entry: bytes
    question: Question
    around: Around
    origin: Origin = Origin()


class Judged(msgspec.Struct, frozen=True):
    """All that was found out about one candidate; `score` is the logit that histories learn.

    `chance` is that of being right, the history of the entry taken in.
    """

    entry: bytes
    text: str
    similarity: float
    vetoes: tuple[Veto, ...] = ()
    opinion: Opinion | None = None
    verified: float | None = None
    score: float | None = None
    chance: float | None = None
    band: int | None = None
    refusal: Refusal | None = None
    origin: Origin = Origin()


class Ruling(msgspec.Struct, frozen=True):
    """`judged` as they were handed in; `best` is the place of the likeliest, None where none is."""

    judged: tuple[Judged, ...] = ()
    best: int | None = None

    @property
    def likeliest(self) -> Judged | None:
        return None if self.best is None else self.judged[self.best]

    @property
    def served(self) -> Judged | None:
        found = self.likeliest
        return found if found is not None and found.refusal is None else None

    def refuted(self) -> Ruling:
        """With the likeliest refused, whatever it was before."""
        assert self.best is not None
        judged = list(self.judged)
        judged[self.best] = _refused(judged[self.best], Refusal.REFUTED)
        return Ruling(tuple(judged), self.best)

    @property
    def comparable(self) -> Judged | None:
        """Whose answer is worth comparing with the model's, should the model be asked."""
        found = self.likeliest
        if found is None or found.score is None or found.score < WORTH_COMPARING:
            return None
        return found


# Of a pair (asked, stored); None: it could not be judged.
Verify = Callable[[str, str], float | None]
# What an entry's history makes of a score: a logit.
Sure = Callable[[bytes, float], float]
# Whether who asks may have this entry's answer in other words (`agreement`).
Permits = Callable[[bytes, Origin], bool]


def read_question(text: str) -> Question:
    """0.2 to 0.4 ms a question: to be kept by whoever asks about it again."""
    return Question(text, analyse(text), gist(text))


def rule(
    asked: Question,
    candidates: Sequence[Candidate],
    grounds: Grounds,
    *,
    step: int,
    sure: Sure,
    verify: Verify | None = None,
    permits: Permits = lambda _entry, _origin: True,
) -> Ruling:
    """`candidates` fall by similarity; `step` is the loosest band that is served, -1: none.

    What `permits` lets nobody have is asked about last, and said to be refused for that alone.
    """
    judged = [
        _first_stage(asked, candidate, grounds, at < CONSIDERED)
        for at, candidate in enumerate(candidates)
    ]
    open_ones = [at for at, one in enumerate(judged) if one.refusal is None]
    held_back = {at for at in open_ones if not permits(judged[at].entry, judged[at].origin)}
    open_ones.sort(key=lambda at: (at in held_back, -_promise(judged[at])))
    best, settled = None, False
    for turn, at in enumerate(open_ones):
        if settled or turn >= VERIFIED:
            judged[at] = _refused(judged[at], Refusal.PASSED_OVER)
            continue
        found = _second_stage(asked, judged[at], grounds, step, sure, verify)
        is_kept = at in held_back and found.refusal is None
        judged[at] = _refused(found, Refusal.AGREEMENT) if is_kept else found
        if best is None or _chance(judged[at]) > _chance(judged[best]):
            best = at
        settled = judged[at].refusal is None
    if best is None or judged[best].chance is None:
        return Ruling(tuple(judged))
    return Ruling(tuple(judged), best)


def _first_stage(asked: Question, candidate: Candidate, grounds: Grounds, scored: bool) -> Judged:
    stored, around = candidate.question, candidate.around
    found = Judged(candidate.entry, stored.text, around.cosine, origin=candidate.origin)
    if around.cosine < grounds.least_similarity:
        return _refused(found, Refusal.SIMILARITY)
    if not scored:
        return _refused(found, Refusal.PASSED_OVER)
    vetoes = examine(asked.analysed, stored.analysed, same_script=grounds.same_script)
    if vetoes:
        return msgspec.structs.replace(found, vetoes=vetoes, refusal=Refusal.GUARD)
    if grounds.score is None:
        return found
    values = features(asked.gist, stored.gist, around, grounds.score.rarity)
    opinion = grounds.score.opinion(values)
    refusal = Refusal.SCORE if opinion.verdict == "reject" else None
    return msgspec.structs.replace(found, opinion=opinion, refusal=refusal)


def _promise(found: Judged) -> float:
    """What the first stage thinks, to ask about the likeliest first."""
    return found.similarity if found.opinion is None else found.opinion.chance


def _second_stage(
    asked: Question,
    found: Judged,
    grounds: Grounds,
    step: int,
    sure: Sure,
    verify: Verify | None,
) -> Judged:
    opinion, verified = found.opinion, None
    if opinion is not None and opinion.verdict == "accept":
        score = opinion.logit
    else:
        verified = None if verify is None else verify(asked.text, found.text)
        if verified is None or grounds.scale is None:
            return _refused(found, Refusal.UNVERIFIED)
        share = 0.0 if opinion is None else grounds.scale.score * opinion.logit
        score = logit(grounds.scale.curve(verified + share))
    return _placed(found, verified, held(score), grounds, step, sure)


def _placed(
    found: Judged,
    verified: float | None,
    score: float,
    grounds: Grounds,
    step: int,
    sure: Sure,
) -> Judged:
    certain = sure(found.entry, score)
    band = band_of(certain, grounds.cuts)
    refusal = Refusal.CHANCE if band is None else Refusal.BAND if band > step else None
    return msgspec.structs.replace(
        found,
        verified=verified,
        score=score,
        chance=sigmoid(certain),
        band=band,
        refusal=refusal,
    )


def _chance(found: Judged) -> float:
    return -1.0 if found.chance is None else found.chance


def _refused(found: Judged, why: Refusal) -> Judged:
    return msgspec.structs.replace(found, refusal=why)
