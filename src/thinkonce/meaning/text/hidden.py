"""Texts that are not what they look like: characters nobody sees, letters that pass for others.

A model reads what a person does not: tags (U+E0000) that spell an instruction, an order turned
round by direction marks, "nоt" with a Cyrillic о, which no rule for "not" knows. Such a text is
compared with none: neither is it answered in other words, nor does it answer any.

What is common in honest text is let pass: joiners and selectors in emoji, a zero-width space or a
byte order mark where a space or an edge is anyway. Confusable letters are those of Unicode's own
list (UTS #39, https://www.unicode.org/reports/tr39/) in the scripts that have most of them.
"""

from __future__ import annotations

import re

__all__ = ("is_hidden",)

# Direction marks, tags, private and interlinear characters, fillers, strokes through letters.
_NEVER = (
    "\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u202a-\u202e\u2066-\u206f\u3164\uffa0"
    "\ufff9-\ufffb\ufe00-\ufe0e\u0334-\u0338\u20d2-\u20e2\u20e4-\u20f0\ue000-\uf8ff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff"
)
_UNSEEN = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2060-\u2065\ufe0f\ufeff\ud800-\udfff"
)
_HIDDEN = re.compile(rf"[{_NEVER}]|(?<=\w)[{_UNSEEN}]+(?=\w)|[{_UNSEEN}]{{3}}")

_LATIN = "A-Za-zÀ-ɏ"
_CYRILLIC = "Ѐ-ԯ"
_OTHERS = rf"{_CYRILLIC}\u0531-\u0587\u13a0-\u13fd\u2c80-\u2cff\ua4d0-\ua4ff"
# Greek stands in formulas and units beside Latin letters: of it only what looks like them.
_LIKE_GREEK = "ονιυκτραΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
_MIXED = re.compile(
    rf"[{_LATIN}][{_OTHERS}{_LIKE_GREEK}]|[{_OTHERS}{_LIKE_GREEK}][{_LATIN}]",
)
# Whole words of letters that pass for Latin ones.
_LIKE_LATIN = "асеорхуіјѕһԁԛԝАВЕЅІЈКМНОРСТУХօոսցհյԼ"
_PASSES = re.compile(rf"(?<!\w)[{_LIKE_LATIN}]{{2,}}(?!\w)")
_IN_LATIN = re.compile(f"[{_LATIN}]{{2}}")


def is_hidden(text: str) -> bool:
    """Of any string, in linear time: microseconds."""
    if _HIDDEN.search(text):
        return True
    if text.isascii():
        return False
    if _MIXED.search(text):
        return True
    return _PASSES.search(text) is not None and _IN_LATIN.search(text) is not None
