"""The lexical matcher: questions in the same words, found without an embedding.

    "How do I reset the router?"    "please, how do i reset the router"
    "限额是多少"                      "请问限額是多少？"

The plain form is the text without its dress (`meaning.dress`) and loses nothing else: two questions
with one plain form are the same question, typed by two people. What differs in anything more, and
may well mean the same, has another form and is a candidate for the verdict only. A fingerprint is
a hash of the form.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from unicodedata import unidata_version

import msgspec

from thinkonce.meaning.text.dress import undressed
from thinkonce.meaning.text.tokens import sole_forms, table

__all__ = ("FINGERPRINT_BYTES", "fingerprint", "plain_form")

FINGERPRINT_BYTES = 12
# To be raised when the code, not the tables, gives a text another form.
EDITION = 2
_LONGEST = 4096  # characters; what is compared is ten times shorter (`eligible`)


def fingerprint(text: str) -> bytes:
    """Equal for texts with one plain form under the same rules; b"" where nothing is said.

    Other rules, in another release, give others: what they made is not found, and never mistaken.
    """
    plain = plain_form(text)
    if not plain:
        return b""
    said = plain.encode("utf-8", "surrogatepass")
    return blake2b(said, digest_size=FINGERPRINT_BYTES, person=_mark()).digest()


def plain_form(text: str) -> str:
    """Of any string, in time linear in its length; a text too long to be compared is its own."""
    return undressed(text) if len(text) <= _LONGEST else text


@lru_cache(maxsize=1)
def _mark() -> bytes:
    """Tells rules from others."""
    tables = [table(f"{name}.toml") for name in ("en", "zh")]
    told = msgspec.json.encode([EDITION, tables, sole_forms(), unidata_version])
    return blake2b(told, digest_size=blake2b.PERSON_SIZE).digest()
