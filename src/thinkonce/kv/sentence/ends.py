"""Where sentences end, told by what a tokenizer's tokens stand for: English and Chinese marks.

    It cost 3.50 in all. | He said "no." | 她走了。 | She

A mark ends a sentence, with the quotes, brackets and spaces that follow it. A full stop before a
letter or a digit is none (3.50, example.com). A special token (the end of a turn) ends one too. A
mark may be spread over several tokens, as a vocabulary of bytes spreads "。".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from thinkonce.kv.weights.vocabulary import token_bytes

__all__ = ("LONGEST", "SentenceEnds")

LONGEST = 64
"""Tokens. Code and tables may have no mark for long; a longer sentence is cut there."""

_MARKS = "|".join(re.escape(mark.encode()).decode("latin-1") for mark in ".!?;\n…。！？；")
_CLOSERS = "|".join(
    re.escape(each.encode()).decode("latin-1") for each in "\"')]}*_ \t\r”’」』》）"
)
_ENDED = re.compile(f"(?:{_MARKS})(?:{_CLOSERS})*\\Z".encode("latin-1"))
_TRAILING = re.compile(f"(?:{_MARKS}|{_CLOSERS})+\\Z".encode("latin-1"))
_JOINING = re.compile(rb"[0-9A-Za-z]")
_TAIL = 8  # tokens over which a mark and what closes it may be spread


class SentenceEnds:
    """Of one tokenizer, which is asked once for each token. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        self._of = partial(token_bytes, tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        self._known: dict[int, bytes] = {}

    def between(self, before: Sequence[int], token: int) -> bool:
        """Whether a sentence ends with the last token of `before` when `token` follows it."""
        if not before or token in self._special:
            return False  # which ends what it follows
        if _TRAILING.match(self._bytes(token)):
            return False
        if before[-1] in self._special:
            return True
        tail = b"".join(map(self._bytes, before[-_TAIL:]))
        if not _ENDED.search(tail):
            return False
        return not (tail.endswith(b".") and _JOINING.match(self._bytes(token)))

    def sentences(self, tokens: Sequence[int], longest: int = LONGEST) -> list[range]:
        """Every token of a text in one of them, in order; none is longer than that."""
        ends = [
            place
            for place in range(1, len(tokens))
            if self.between(tokens[max(0, place - _TAIL) : place], tokens[place])
        ]
        return [
            range(start, min(start + longest, end))
            for begin, end in pairwise([0, *ends, len(tokens)])
            for start in range(begin, end, longest)
        ]

    def _bytes(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._of(token)
        return self._known[token]
