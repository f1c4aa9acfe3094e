"""Questions about words, and the words they mention: 珍惜的近义词, "what does terse mean".

    mentions_of("What is the meaning of terse?")   ({"meaning"}, ("terse",))
    mentions_of("俭省的俭是什么意思")             ({"meaning"}, ("俭", "俭", "省"))

What is asked of a word (its kind) and what carries nothing there (light) are in the rules.
"""

from __future__ import annotations

from functools import lru_cache

from thinkonce.meaning.text.tokens import Lexicon, Tokens, table

__all__ = ("Mentions", "mentions_of")

Mentions = tuple[frozenset[str], tuple[str, ...]]  # (what is asked of them, the words in order)
_LIGHT = "light"


def mentions_of(tokens: Tokens) -> Mentions:
    """Nothing at all for a question that is not about words."""
    kinds: set[str] = set()
    rest: list[str] = []
    place = 0
    while place < len(tokens.words):
        length, tags = _lexicon().at(tokens.words, place)
        kinds.update(tags)
        if not length and tokens.words[place][0].isalnum():
            rest.append(tokens.words[place])
        place += length or 1
    kinds.discard(_LIGHT)
    return (frozenset(kinds), tuple(sorted(rest))) if kinds else (frozenset(), ())


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon(
        (phrase, tag)
        for name in ("en.toml", "zh.toml")
        for tag, phrases in table(name)["mention"].items()
        for phrase in phrases
    )
