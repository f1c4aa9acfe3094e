"""Another thing: a listed name, a code, an address, a quoted title, a letter (vitamin C / D).

Names must differ both ways, within one kind: who leaves a name out may mean it still.
"""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import CLASH, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    clash = (
        (a.letters != b.letters and bool(a.letters and b.letters))
        or (a.names != b.names and _same_kind(a.names - b.names, b.names - a.names))
        or _both_ways(a.codes, b.codes)
        or (a.quoted != b.quoted and _other_quote(a, b))
        or (a.unlisted != b.unlisted and _only_these_differ(a, b))
    )
    return Veto.NAME if clash and overlap(a, b) >= CLASH else None


def _same_kind(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    kinds = {name.partition("/")[0] for name in ours}
    return any(name.partition("/")[0] in kinds for name in theirs)


def _both_ways(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    return ours != theirs and bool(ours - theirs) and bool(theirs - ours)


def _other_quote(a: Analysed, b: Analysed) -> bool:
    """Each quotes what the other does not even say."""
    ours = [text for text in a.quoted - b.quoted if text not in b.normal]
    theirs = [text for text in b.quoted - a.quoted if text not in a.normal]
    return bool(ours and theirs)


def _only_these_differ(a: Analysed, b: Analysed) -> bool:
    """A word that looks named stands where the other has another such word."""
    ours, theirs = a.unlisted - b.words, b.unlisted - a.words
    if not ours or not theirs:
        return False
    return len(a.words - b.words) <= 2 and len(b.words - a.words) <= 2
