"""Where an entry comes from."""

from __future__ import annotations

import struct
from hashlib import blake2b

import msgspec

__all__ = ("Origin",)


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where an entry comes from: the `Hint`'s member, and when its answer was made."""

    member: bytes = b""
    made_at: float = 0.0

    def mark(self, entry: bytes) -> bytes:
        """Of this very answer under the key `entry`."""
        said = struct.pack("<d", self.made_at) + self.member
        return blake2b(said, key=entry, digest_size=16).digest()
