"""The lexical matcher: questions in nearly the same words, found without an embedding.

    "How can I reset the router?"   "how can i reset router"
    "怎么样才可以重置路由器不？"       "怎样才能重置路由器吗"

The plain form is the normal form without words that carry nothing, and with one word for those
that mean the same wherever they stand (`[plain]` in the rules). Two questions with one plain form
are candidates; whether one answers the other the guards still say. A fingerprint is a hash of it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import msgspec

from thinkonce.meaning.normal import expanded, joined, normal_words
from thinkonce.meaning.tokens import Lexicon, fold, table, tokenise

__all__ = ("FINGERPRINT_BYTES", "fingerprint", "plain_form")

FINGERPRINT_BYTES = 12
_LONGEST = 4096  # characters; what is compared is ten times shorter (`eligible`)


def fingerprint(text: str) -> bytes:
    """Equal for texts with one plain form under the same rules; b"" where nothing is said.

    Other rules, in another release, give others: what they made is not found, and never mistaken.
    """
    plain = plain_form(text)
    if not plain:
        return b""
    said = plain.encode("utf-8", "surrogatepass")
    return blake2b(said, digest_size=FINGERPRINT_BYTES, person=_rules().mark).digest()


def plain_form(text: str) -> str:
    """Of any string, in time linear in its length."""
    words = normal_words(tokenise(expanded(fold(text[:_LONGEST]))))
    return joined(_plain(words))


def _plain(words: tuple[str, ...]) -> tuple[str, ...]:
    rules, kept, place, last = _rules(), list[str](), 0, len(words) - 1
    while place < len(words):
        length, tags = rules.same.at(words, place)
        if length:
            kept += rules.words[tags[0]]
        elif words[place] not in rules.articles or not rules.is_before(words[:place]):
            word = words[place]
            kept.append(rules.endings.get(word, word) if place == last > 0 else word)
        place += length or 1
    return tuple(kept) or words  # of such words alone: then they are what is asked


class _Rules(msgspec.Struct, frozen=True):
    """`words`: what stands for a phrase that has this tag; `mark` tells rules from others."""

    same: Lexicon
    words: dict[str, tuple[str, ...]]
    endings: dict[str, str]
    articles: frozenset[str]
    behind: frozenset[str]
    mark: bytes

    def is_before(self, words: tuple[str, ...]) -> bool:
        """Whether an article may follow `words`."""
        return not words or words[-1] in self.behind


@lru_cache(maxsize=1)
def _rules() -> _Rules:
    parts = [table("en.toml")["plain"], table("zh.toml")["plain"]]
    same = [(phrase, "") for part in parts for phrase in part["drop"]]
    same += [(said, ways[0]) for part in parts for ways in part["same"] for said in ways]
    endings = {said: ways[0] for part in parts for ways in part["endings"] for said in ways[1:]}
    told = msgspec.json.encode([table(f"{name}.toml") for name in ("en", "zh")])
    return _Rules(
        Lexicon(same),
        {tag: _words(tag) for _, tag in same},
        endings,
        frozenset(word for part in parts for word in part["articles"]),
        frozenset(word for part in parts for word in part["behind"]),
        blake2b(told, digest_size=blake2b.PERSON_SIZE).digest(),
    )


def _words(phrase: str) -> tuple[str, ...]:
    return tokenise(fold(phrase)).words
