"""Turns token ids back into text while they arrive, never showing half a character."""

from __future__ import annotations

import re
from typing import Any

__all__ = ("Detokeniser", "token_bytes")

_UNFINISHED = "\ufffd"


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
        whole = text.removesuffix(_UNFINISHED)
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


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes one token stands for, which need not be whole characters."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:  # a model may have more rows than its tokenizer has tokens
        return b""
    if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
        return bytes([int(byte[1], 16)])
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    if _UNFINISHED in text and all(character in _BYTE_OF for character in piece):
        return bytes(_BYTE_OF[character] for character in piece)
    return text.encode("utf-8", errors="replace")


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-in of every byte in byte-level BPE, to the byte.

    Radford et al. (GPT-2): bytes that print stand for themselves, the others follow from
    U+0100 on, in order.
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printing]
    stand_ins = {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in printing} | stand_ins


_BYTE_OF = _byte_alphabet()
