"""Turns token ids back into text while they arrive, never showing half a character."""

from __future__ import annotations

from typing import Any

from thinkonce.kv.weights.vocabulary import UNFINISHED

__all__ = ("Detokeniser",)


class Detokeniser:
    """The text of one answer, token by token.

    A token may end inside a UTF-8 character and decodes then to U+FFFD at the end. That last
    character is held back until the following tokens finish it; an earlier U+FFFD is a byte
    that can no longer become a character and is shown.

        tokens   [ ............ | anchor .. | newest ]
        decoded together:         ^^^^^^^^^^^^^^^^^^   the anchor gives the newest its context
                                  |- shown -|-- new -|  (a leading space depends on it)

    Not thread-safe: one answer, one detokeniser.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._newest = 0
        self._shown = 0

    def push(self, token: int) -> str:
        """The text this token completes; empty while a character is unfinished."""
        self._window.append(token)
        text = self._decode(self._window)
        whole = text.removesuffix(UNFINISHED)
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if whole == text:
            self._move_anchor()
        return new

    def _move_anchor(self) -> None:
        """Everything is shown: keep the tokens pushed since the last move as context."""
        self._window = self._window[self._newest :]
        self._newest = len(self._window)
        self._shown = len(self._decode(self._window))

    def _decode(self, tokens: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
