"""Signs between the words that decide an answer: in the order in which they stand.

    "Is a ≤ b?"  ("≤",)      "What is 2*(3+4)?"  ("*", "(", "+", ")")      "10² m"  ("²",)
    "-5 °C"      ("-",)      "Use C# on a Mac"   ("#",)                     "ok 😀"  ("😀",)

Words alone do not tell such texts apart: the lexical matcher leaves most signs out. Full stops,
quotation marks and the like inside and behind words carry nothing and are not read; percent,
degrees and currencies are the units' business.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ("signs_of",)

_MOST = 64  # of one text
# Read wherever they stand; besides them all mathematical and other symbols.
_ALWAYS = frozenset("#*^")
_NEVER = frozenset("°©®™|~`´¨¯¸")
# Digits that a normal form would run together with their neighbours; below a line they are part
# of a formula's name, and behind a metre of a unit.
_RINGED = "①-⓿❶-➓㉑-㉟"
_RAISED = re.compile(
    rf"(?<![mM])[²³]|[¹⁰⁴-⁹⁺⁻ⁿ]|(?<=\d)[¼-¾⅐-⅞]|(?<=[\d{_RINGED}])[{_RINGED}]|[{_RINGED}](?=\d)"
)
_SPOTS = re.compile(
    r"(?<![\w.])[-−](?=[\d.])"  # minus five
    r"|(?<![\w.])\.(?=\d)"  # point five
    r"|(?<=\d)!"  # a factorial
    r"|(?<=[^\W\d])/(?=\d)"  # n/2, while 1/2 is a number
    r"|(?<=[\s\"'])[!?.,;:$_\\()\[\]{}](?=[\s\"'])"  # the ! operator
)
_RECKONS = re.compile(r"[\w)\]]\s*[-+*/^=×÷−]\s*[(\[\d]|[)\]]\s*[-+*/^=×÷−]")
# Symbols, and marks on letters: vowels, in scripts that write them so.
_KINDS = frozenset(("Sm", "So", "Mn", "Mc", "Me"))
_BRACKETS = frozenset("()[]{}")


def signs_of(text: str, folded: str) -> tuple[str, ...]:
    """`text` as it came, and in its folded form (`tokens.fold`). In linear time."""
    raised = tuple(_RAISED.findall(text[: len(folded)]))[:_MOST]
    if folded.isalnum():
        return raised
    spots = {found.start() for found in _SPOTS.finditer(folded)}
    reckons = _RECKONS.search(folded) is not None
    found = [
        sign
        for at, sign in enumerate(folded)
        if not (sign.isalnum() or sign.isspace())
        and (at in spots or _counts(sign) or (reckons and sign in _BRACKETS))
    ]
    return (*raised, *found[:_MOST])


def _counts(sign: str) -> bool:
    if sign in _ALWAYS:
        return True
    return sign not in _NEVER and unicodedata.category(sign) in _KINDS
