"""What came of comparing a question with others, in words: the closed lists, and `explain`'s text.

The words are those of `meaning` (`Ineligible`, `Unfound`, `Refusal`, `Veto`), which need not be
installed where they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ("BAND", "NOTHING_FOUND", "NOT_COMPARED", "REFUSED", "VETOES", "of_budget", "sentences")

BAND = "band"  # the one word that another budget would change

# Why a question is not compared at all.
NOT_COMPARED = {
    "not-compared": "the request, its namespace or the settings do not ask for it",
    "length": "more than 400 characters",
    "hidden": "characters nobody sees, or letters that pass for others",
    "url": "holds a URL",
    "code": "holds code",
    "json": "holds JSON",
    "encoded": "holds base64 or another long run without words",
    "no-letters": "has no letters",
    "follow-up": "hangs on what was said before",
    "one-word": "a single word",
    "output": "tells what form the answer must have, or what to say in it",
    "time": "the answer changes by the day",
    "crowded": "its member has as many questions around it as are compared with others'",
}
# Why no stored question was judged.
NOTHING_FOUND = {
    "empty": "nothing is stored that it could be compared with, or has its vector yet",
    "off": "audits switched this namespace off; `thinkonce reset-audits` begins anew",
    "no-verifier": "no verifier is configured, and no question is in the same words",
    "no-vector": "the embedder gave no vector in time",
}
# Why a stored question does not serve, and of the likeliest one why nothing was found.
REFUSED = {
    "similarity": "less similar than is asked for",
    "guard": "the words differ in what decides the answer",
    "score": "another question, as its words and vectors tell",
    "unverified": "the score cannot tell, and no verifier answered",
    "passed-over": "others stood a better chance",
    "chance": "not sure enough for any budget",
    BAND: "not sure enough for this budget; a larger `max_error` or what audits show may allow it",
    "refuted": "an audit or feedback found its answer wrong for this question",
    "agreement": "another member's of the group, for which too few vouch",
}
# What a guard saw in the words of both questions.
VETOES = {
    "number": "another number, or one that only one side has",
    "unit": "the same number of something else",
    "date": "another day, year, hour or season",
    "negation": "one side denies what the other asks",
    "antonym": "opposites: enable and disable, 买 and 卖",
    "comparative": "above and below, 最多 and 最少",
    "direction": "from A to B and from B to A, 女人喜欢男人 and 男人喜欢女人",
    "name": "another product, place, person, code, title or letter",
    "mention": "another word that is asked about: what terse, what tense means",
    "question": "why and how to, 谁 and 什么时候",
    "modality": "must and may, did and will",
    "scope": "all and some, first and last",
    "sign": "another sign between the words: a ≤ b and a ≥ b, C and C#",
    "asks": "one question and two",
    "language": "the answer would come in another language",
    "script": "simplified and traditional Chinese, where `same_script` keeps them apart",
}
_WHY = {**NOT_COMPARED, **NOTHING_FOUND, **REFUSED}
_NUMBERS = ("similarity", "score", "verifier", "chance", "band", "vouch")


def sentences(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and text of each line. `found` is what `meaning.finding` tells."""
    why = found["why"]
    if "match" in found:
        yield "in other words", f"hit ({found['match']})"
    else:
        yield "in other words", f"no: {_WHY.get(why, 'no hit')} ({why})"
    for each in found.get("candidates", ()):
        yield "  stored question", each["question"]
        yield "", ", ".join(f"{name} {each[name]}" for name in _NUMBERS if name in each)
        if each["refused"]:
            vetoes = f": {', '.join(each['vetoes'])}" if "vetoes" in each else ""
            yield "", f"refused ({each['refused']}{vetoes})"
    if "budget" in found:
        yield from zip(("  budget", ""), of_budget(found["budget"]), strict=True)


def of_budget(budget: Mapping[str, Any]) -> tuple[str, str]:
    """What is served, and what audits have shown."""
    served = f"{budget['serves_band'] + 1} of {budget['bands']} bands served"
    audits, wrong = budget["audits"], budget["wrong"]
    seen = f"{audits:,} audit{'' if audits == 1 else 's'}, {wrong:,} wrong"
    held = "certified" if budget["certified"] else "not certified yet"
    return (
        f"{budget['standing']} ({budget['mode']}), {served} at max_error {budget['max_error']:g}",
        f"{seen}: an error above {budget['error_bound']:.2%} is excluded, {held}",
    )
