"""Opposite words: each side has exactly one of a pair, and not the same. The pairs are tables."""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import CLASH, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("antonym", "comparative", "modality", "scope")


def antonym(a: Analysed, b: Analysed) -> Veto | None:
    """Enable / disable, 买 / 卖."""
    return Veto.ANTONYM if _opposed(a, b, "antonym/") else None


def comparative(a: Analysed, b: Analysed) -> Veto | None:
    """Above / below, 最多 / 最少."""
    return Veto.COMPARATIVE if _opposed(a, b, "comparative/") else None


def modality(a: Analysed, b: Analysed) -> Veto | None:
    """Must / may, did / will."""
    return Veto.MODALITY if _opposed(a, b, "modality/") or _opposed(a, b, "tense/") else None


def scope(a: Analysed, b: Analysed) -> Veto | None:
    """All / some, first / last."""
    return Veto.SCOPE if _opposed(a, b, "scope/") else None


def _opposed(a: Analysed, b: Analysed, kind: str) -> bool:
    if a.opposed.isdisjoint(b.poles):
        return False
    found = any(pole.startswith(kind) for pole in a.opposed & b.poles)
    return found and overlap(a, b) >= CLASH
