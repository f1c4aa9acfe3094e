"""A text without what is known to be dress, and nothing else gone.

    "Hi, What's the time in Rome?"    "what is the time in Rome"
    "请问，用 Python 怎麼畫圖？"         "用Python怎么画图"

Taken off: space at the ends and runs of it, full width, the composition of accents, question marks
behind a question and one full stop behind a statement, the capital of a question word, courtesy
around a question, a few contractions, traditional characters with one simplified form. All signs,
brackets, emoji, marks inside, and all other letters and words stay as they are: what is only
likely to be the same is for the verdict to say.

A rule that would make two things of one text alike is not applied to them: who writes both a wide
and a narrow A, or both forms of a character, may ask about that. A text that holds a quotation,
lines, something behind a colon, or a word for marks and letters keeps all but the space around it.
"""

from __future__ import annotations

import re
import unicodedata

from thinkonce.meaning.text.dress_rules import DressRules, dress_rules
from thinkonce.meaning.text.tokens import HAN, fold, simplified

__all__ = ("undressed",)

_BLANKS = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_LETTER = r"[^\W\d_]"
_APOSTROPHE = re.compile(rf"(?<={_LETTER})’(?={_LETTER})")
_HAN = re.compile(f"[{HAN}]")
# Quotation, lines, and something that stands behind a colon.
_HELD = re.compile(
    rf"[\"“”„«»「」『』`‘＂＇]|(?<!{_LETTER})['’]|['’](?!{_LETTER})"
    rf"|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|[:：](?:\s|$|[{HAN}])"
)
_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ]+|[！-～]")  # words, and single marks
_NARROW = ord("Ａ") - ord("A")
# The person, not the imaginary unit: that one "does", and "is".
_SMALL_I = re.compile(r"(?<=\b[Dd]o )i(?= (?!and |or )[a-z]{2})|(?<=\b[Aa]m )i(?= )|\bi(?= am )")
_QUESTION, _STOP, _MARKS = "?？", ".。", ".。?？!！…"


def undressed(text: str) -> str:
    """Of any string, in time linear in its length; "" where there is nothing but space."""
    bare, rules = text.strip(), dress_rules()
    said = _spaced(_composed(bare), rules)
    folded = fold(said).lower()
    if _HELD.search(bare) or rules.wording.is_in(folded):
        return bare
    is_named = rules.naming.is_in(rules.thanks.sub("", folded))
    if not is_named:
        said = _spelled(_without_courtesy(_in_one_script(said, rules), rules), rules)
    said = _without_end_mark(said, rules, is_named=is_named)
    return rules.start.sub(_small, said, count=1) if rules.start.match(said) else said


def _composed(text: str) -> str:
    if text.isascii():
        return text
    narrowed = _WIDE.sub(lambda found: _narrow(found[0], text), text)
    return _APOSTROPHE.sub("'", unicodedata.normalize("NFC", narrowed))


def _narrow(wide: str, text: str) -> str:
    narrow = "".join(chr(ord(each) - _NARROW) for each in wide)
    return wide if narrow in text else narrow


def _spaced(text: str, rules: DressRules) -> str:
    """One space for many, none where Chinese has none by custom; Korean and Thai keep theirs."""
    return rules.gap.sub("", _BLANKS.sub(" ", text))


def _in_one_script(text: str, rules: DressRules) -> str:
    if text.isascii():
        return text
    held = set(text)
    pairs = {each: rules.simple[each] for each in held if each in rules.simple}
    return text.translate({ord(full): pairs[full] for full in pairs if pairs[full] not in held})


def _without_courtesy(text: str, rules: DressRules) -> str:
    while found := rules.lead.match(text):  # "hello, please tell me ..."
        text = text[found.end() :]
    while found := rules.thanks.search(text):
        rest = text[: found.start()]
        if not (_asks(rest, rules) or rules.told.match(rest)):
            break
        text = rest + "?" * found[0].endswith("?")
    return text


def _spelled(text: str, rules: DressRules) -> str:
    """Contractions in full, and a small I for the person as a capital."""

    def in_full(found: re.Match[str]) -> str:
        if word := found["word"]:
            full = rules.long[word.lower()]
            return full if word[0].islower() else full[0].upper() + full[1:]
        return f"{found['what']} is" if found["what"] else f"{found['subject']} not"

    return _SMALL_I.sub("I", rules.short.sub(in_full, text))


def _without_end_mark(text: str, rules: DressRules, *, is_named: bool) -> str:
    """Questions lose question marks, all else one full stop.

    Only behind a word: "x?" may be a pattern, "5!" a factorial, ".." a folder. "He is dead?" and
    "He is dead." are two requests; and "no." is not "no".
    """
    rest = text.rstrip(_MARKS)
    marks = text[len(rest) :]
    if not (marks and rest):
        return text
    if _asks(rest, rules):
        is_dress = not marks.strip(_QUESTION) and (_ends_in_word(rest) or rest[-1].isdecimal())
    else:
        is_dress = len(marks) == 1 and marks in _STOP and not is_named and _ends_in_word(rest)
    return rest if is_dress else text


def _ends_in_word(text: str) -> bool:
    """A Chinese character, or two letters with what belongs to them."""
    kinds = {unicodedata.category(each)[0] for each in text[-2:]}
    return _HAN.match(text[-1]) is not None or (len(text) > 1 and kinds <= {"L", "M"})


def _asks(text: str, rules: DressRules) -> bool:
    if _HAN.search(text) is None:
        return rules.asks.match(text) is not None
    plain = text.rstrip(_MARKS).translate(simplified())
    if rules.asks_in_chinese.search(plain):
        return True
    return rules.perhaps.search(plain) is not None and rules.every.search(plain) is None


def _small(found: re.Match[str]) -> str:
    return found[0].lower()
