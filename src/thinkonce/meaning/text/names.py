"""Things a text names: listed names, codes, addresses, quoted text, words that look named."""

from __future__ import annotations

import re
from functools import lru_cache

from thinkonce.meaning.text.readings import Readings
from thinkonce.meaning.text.tokens import HAN, table

__all__ = ("codes_of", "letters_of", "names_of", "quoted_of", "unlisted_of")

_CODE = re.compile(
    r"https?://[^\s\"'<>]{1,300}|www\.[^\s\"'<>]{1,300}"
    r"|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}"
    r"|\b[A-Za-z_][\w.]{0,64}\(\)"
    r"|\b[A-Za-z0-9]{1,40}(?:_[A-Za-z0-9]{1,40}){1,8}\b"
    r"|\b[a-z]{1,30}(?:[A-Z][a-z0-9]{1,30}){1,8}\b"
    r"|\b[\w-]{1,64}\.(?:py|js|ts|rs|go|java|cpp|c|h|toml|ya?ml|json|cfg|ini|xml|csv|txt|md|sh)\b"
    r"|\b[\w-]{1,64}\.(?:exe|dll|html|pdf|docx?|xlsx?)\b"
    r"|\b[A-Z]{1,10}-\d{1,10}\b|\b0x[0-9A-Fa-f]{1,32}\b",
    re.ASCII,
)
_MIXED = re.compile(
    r"(?<![a-z0-9])(?:[a-z]{1,12}\d{1,8}[a-z]{0,4}|\d{1,4}[a-z]{1,2}\d{1,8})(?![a-z0-9])"
)
_QUOTED = re.compile(
    r"\"([^\"\n]{1,80})\"|《([^》\n]{1,80})》|「([^」\n]{1,80})」|『([^』\n]{1,80})』"
)
_CAPITAL = re.compile(r"(?<=[a-z,;:] )[A-Z][A-Za-z]{1,30}\b")
_LATIN = re.compile(r"(?<![a-z0-9])[a-z]{2,20}(?![a-z0-9])")
# One letter by itself: vitamin c, f(x), plan b. An "a" or "i" before a word is a word; letters
# beside dots are initials.
_LETTER = re.compile(
    r"(?<![a-z0-9'’´`.])[b-hj-z](?![a-z0-9'’´`]|\.[a-z])"
    r"|(?<![a-z0-9'’´`.])[ai](?=\s*[^\sa-z\"'’])"
)
_SHORT_FOR_WORDS = frozenset("ru")  # are, you
_HAN = re.compile(f"[{HAN}]")
_UNITS_AND_MARKS = re.compile(r"st|nd|rd|th|am|pm|kg|km|cm|mm|gb|mb|tb|ok|hi|vs|app|pc")


def names_of(found: Readings) -> frozenset[str]:
    return frozenset(found.names)


def codes_of(folded: str) -> frozenset[str]:
    """Addresses, identifiers, file names, error and model numbers; lower case but for code."""
    codes = {
        found[0].rstrip(".,;:!?)") if "()" not in found[0] else found[0]
        for found in _CODE.finditer(folded)
    }
    codes = {code.lower() for code in codes}
    mixed = (one for one in _MIXED.findall(folded.lower()) if not _ordinary(one))
    return frozenset(codes | {one for one in mixed if not any(one in code for code in codes)})


def letters_of(folded: str) -> frozenset[str]:
    """Letters that stand alone, lower case: of vitamins, plans, variables."""
    return frozenset(_LETTER.findall(folded.lower())) - _SHORT_FOR_WORDS


def _ordinary(word: str) -> bool:
    """Numbers that only look mixed: q3, 5k."""
    return re.fullmatch(r"q[1-4]|rs\d+|rmb\d+|usd\d+|v\d", word) is not None


def quoted_of(folded: str) -> frozenset[str]:
    """Between quotation or book marks, lower case and without punctuation."""
    groups = ("".join(found.groups("")) for found in _QUOTED.finditer(folded))
    spoken = (re.sub(r"\W+", " ", text.lower()).strip() for text in groups)
    return frozenset(text for text in spoken if text)


def unlisted_of(folded: str, found: Readings) -> frozenset[str]:
    """Latin words inside Chinese, capitals inside an English sentence; listed names apart."""
    if _HAN.search(folded):
        words = _LATIN.findall(folded.lower())
        return frozenset(
            word
            for word in words
            if word not in found.read and not _UNITS_AND_MARKS.fullmatch(word)
        )
    shouting = sum(sign.isupper() for sign in folded) * 3 > len(folded)
    words = [] if shouting else _CAPITAL.findall(folded)
    lowered = (word.lower() for word in words)
    return frozenset(word for word in lowered if word not in found.read and word not in _common())


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    return frozenset(table("en.toml")["function_words"]["en"]) | {"how", "why", "what", "is", "if"}
