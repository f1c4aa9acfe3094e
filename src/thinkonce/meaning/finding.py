"""What came of looking for a question in other words: the evidence, for the flow and for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from thinkonce.likeness import Matched
from thinkonce.meaning.audit.account import Account
from thinkonce.meaning.audit.budget import Draw
from thinkonce.meaning.verdict.ruling import Judged, Ruling

__all__ = ("Finding", "Place", "Unfound")


class Unfound(StrEnum):
    """Why no stored question was judged."""

    NOT_COMPARED = "not-compared"  # nobody asks for it
    EMPTY = "empty"  # nothing is stored in the partition
    OFF = "off"  # audits switched the namespace off
    NO_VERIFIER = "no-verifier"
    NO_VECTOR = "no-vector"  # the embedder was late, or failed


@dataclass(frozen=True, slots=True)
class Place:
    """Under which rules a question is compared: its namespace's, or stricter ones of its own.

    `agreement`: of how many members of `tenant`; `member` asks.
    """

    namespace: str
    model: str
    similarity: float  # the smallest acceptable one
    tenant: str = ""
    member: bytes = b""
    agreement: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """`why`: in a word, why nothing was found; "" where something was.

    `words` are those of the answer of `judged`, where it is to be compared with the model's; `draw`
    where that is an audit of `account`. `is_crowded`: its member has so many questions around this
    one that no more are compared with others'. `vouch` counts the members behind an entry, where
    several have to stand there. `pair` tells the question that was asked and that of `judged`.
    """

    why: str
    matched: Matched | None = None
    ruling: Ruling | None = None
    account: Account | None = None
    draw: Draw | None = None
    judged: Judged | None = None
    words: str | None = None
    is_crowded: bool = False
    vouch: Callable[[Judged], int] | None = None
    pair: bytes = b""

    def told(self) -> dict[str, Any]:
        """For people and programs; what is not known is left out."""
        found: dict[str, Any] = {"why": str(self.why) or "found"}
        if self.matched is not None:
            found |= {"match": self.matched.match.value, "matched": self.matched.question}
        if self.ruling is not None:
            found["candidates"] = [
                _candidate(each) | ({} if self.vouch is None else {"vouch": self.vouch(each)})
                for each in self.ruling.judged
            ]
        if self.account is not None:
            shown = self.account.shown()
            found["budget"] = {
                "standing": shown.standing.value,
                "mode": shown.mode.value,
                "max_error": shown.max_error,
                "serves_band": shown.step,
                "bands": len(self.account.grounds.cuts),
                "certified": shown.certified,
                "error_bound": shown.bound,
                "audits": shown.audits,
                "wrong": shown.wrong,
            }
        return found


def _candidate(judged: Judged) -> dict[str, Any]:
    told: dict[str, Any] = {
        "key": judged.entry.hex(),
        "question": judged.text,
        "similarity": round(judged.similarity, 4),
        "refused": str(judged.refusal or ""),
    }
    if judged.vetoes:
        told["vetoes"] = [veto.value for veto in judged.vetoes]
    if judged.opinion is not None:
        told["score"] = round(judged.opinion.chance, 4)
    if judged.verified is not None:
        told["verifier"] = round(judged.verified, 3)
    if judged.chance is not None:
        told["chance"] = round(judged.chance, 4)
    if judged.band is not None:
        told["band"] = judged.band
    return told
