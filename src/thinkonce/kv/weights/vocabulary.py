"""What the tokens of a vocabulary stand for."""

from __future__ import annotations

import re
from typing import Any

__all__ = ("UNFINISHED", "token_bytes")

UNFINISHED = "\ufffd"
"""What bytes are decoded to that are no whole character."""


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes one token stands for, which need not be whole characters."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:  # a model may have more rows than its tokenizer has tokens
        return b""
    if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
        return bytes([int(byte[1], 16)])
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    if UNFINISHED in text and all(character in _BYTE_OF for character in piece):
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
