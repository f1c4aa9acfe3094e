"""Which language a text is in: enough never to answer in another one.

English is told from other languages in the same letters by its function words, simplified from
traditional Chinese by characters only one of them has. A text that shows neither is `zh`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from thinkonce.meaning.text.tokens import HAN, script_marks, table

__all__ = ("CHINESE", "Language", "language_of", "same_language")


class Language(StrEnum):
    """What a text is written in. `none`: no letters at all."""

    ZH = "zh"  # Chinese without a character that tells the script
    ZH_HANS = "zh-Hans"
    ZH_HANT = "zh-Hant"
    EN = "en"
    MIXED = "mixed"  # Chinese and English in equal parts
    JA = "ja"
    KO = "ko"
    LATIN = "latin"  # a language in Latin letters that is not English
    OTHER = "other"
    NONE = "none"


_HAN = re.compile(f"[{HAN}]")
_KANA = re.compile("[぀-ヿ]")
_HANGUL = re.compile("[가-힯ᄀ-ᇿ]")
_LATIN = re.compile("[a-zà-ɏ]+(?:'[a-z]+)?")
_OTHER = re.compile("[Ͱ-῿Ⰰ-⻿ꀀ-꯿]")
CHINESE = frozenset((Language.ZH, Language.ZH_HANS, Language.ZH_HANT))
_UNSURE = frozenset((Language.NONE, Language.MIXED))


def language_of(text: str) -> Language:
    """From the text as it came (width and script not folded)."""
    lowered = text.lower()
    han, kana = len(_HAN.findall(lowered)), len(_KANA.findall(lowered))
    hangul, other = len(_HANGUL.findall(lowered)), len(_OTHER.findall(lowered)) / 3
    latin = _LATIN.findall(lowered)
    if kana and kana * 8 >= han:
        return Language.JA
    if max(hangul, other) > max(han, len(latin)):
        return Language.KO if hangul > other else Language.OTHER
    if han:
        english = sum(word in _function_words()["en"] for word in latin)
        return Language.MIXED if english >= 3 and 2 * len(latin) > han else _chinese(text)
    return _in_latin(latin) if latin else Language.NONE


def same_language(a: Language, b: Language) -> bool:
    """Whether an answer to `a` may be read by who asked `b`; script is not looked at."""
    return a == b or a in _UNSURE or b in _UNSURE or (a in CHINESE and b in CHINESE)


def _chinese(text: str) -> Language:
    simplified, traditional = script_marks()
    signs = set(text)
    fewer, more = len(signs & simplified), len(signs & traditional)
    if fewer == more:
        return Language.ZH
    return Language.ZH_HANS if fewer > more else Language.ZH_HANT


def _in_latin(words: list[str]) -> Language:
    scores = {
        name: sum(word in known for word in words) for name, known in _function_words().items()
    }
    best = max(scores.values())
    if best == 0 or scores["en"] == best:
        # Words with accents and no English function word: names aside, not English.
        foreign = sum(not word.isascii() for word in words)
        return Language.LATIN if not scores["en"] and 3 * foreign > len(words) else Language.EN
    return Language.LATIN if best >= 2 else Language.EN


@lru_cache(maxsize=1)
def _function_words() -> dict[str, frozenset[str]]:
    return {name: frozenset(words) for name, words in table("en.toml")["function_words"].items()}
