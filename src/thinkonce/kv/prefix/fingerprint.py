"""What attention state depends on besides the tokens: the model, to the bit, and how it is run.

Two processes that agree on the fingerprint compute the same keys and values for the same tokens;
whatever could change a bit of them is in it, and a reload under the same name changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b

__all__ = ("FINGERPRINT_BYTES", "Fingerprint", "digest_of_parts")

FINGERPRINT_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Every field is a text that is the same in each process, or a digest in hex.

    `weights` is a digest of the parameters as loaded, so a changed file, another dtype or merged
    adapter shows. `rope` and `attention` are in `config` as well, but named, so that a difference
    can be told. `chunk_tokens` is the length of the pieces a prompt is read in: it decides which
    matrices are multiplied, hence the last bits. `runtime` names versions and processor.
    """

    weights: str
    config: str
    dtype: str
    rope: str
    attention: str
    chunk_tokens: int
    tokenizer: str
    runtime: str
    adapter: str = ""
    codec: str = "raw"

    def digest(self) -> bytes:
        """32 bytes that stand for all of it, the same in every process and on every machine."""
        named = ((field.name, str(getattr(self, field.name))) for field in fields(self))
        return digest_of_parts((part for pair in named for part in pair), FINGERPRINT_BYTES)

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """The names of the fields in which the two differ."""
        names = (field.name for field in fields(self))
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


def digest_of_parts(parts: Iterable[str], size: int) -> bytes:
    """BLAKE2b of the parts, each with its length before it: no two lists of parts look alike."""
    hashed = blake2b(digest_size=size)
    for part in parts:
        data = part.encode()
        hashed.update(len(data).to_bytes(8, "little"))
        hashed.update(data)
    return hashed.digest()
