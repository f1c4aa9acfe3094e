"""A compressed answer, unpacked piece by piece: bounded at each step, and known to be whole."""

from __future__ import annotations

import zlib

__all__ = ("MAX_PIECE", "Unpacker", "unpacker_for")

# Most that one piece of a compressed answer may unfold to at once, bytes.
MAX_PIECE = 1024 * 1024

_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MEMBER = b"\x1f\x8b"  # how a member of gzip begins (RFC 1952, 2.3.1)


class Unpacker:
    """For gzip, of one member or several (RFC 1952, 2.2), and zlib. `wbits` as zlib takes them.

    `held`: input that is still to be taken before anything new.
    """

    def __init__(self, wbits: int) -> None:
        self._wbits, self.held, self._begun = wbits, b"", False
        self._member = zlib.decompressobj(wbits)

    def take(self, data: bytes) -> bytes:
        """What `data` unfolds to, at most MAX_PIECE bytes of it. Raises zlib.error."""
        self._begun = True
        plain = self._member.decompress(data, MAX_PIECE)
        self.held = self._member.unconsumed_tail
        if self._member.eof and self._member.unused_data.startswith(_MEMBER):
            self.held = self._member.unused_data
            self._member = zlib.decompressobj(self._wbits)
        return plain

    @property
    def is_whole(self) -> bool:
        """Whether what was taken ends where it should. Nothing at all is whole too."""
        return self._member.eof or not self._begun


def unpacker_for(encoding: str) -> Unpacker | None:
    """For a value of content-encoding; None where there is nothing to unpack."""
    return Unpacker(_WBITS[encoding]) if encoding in _WBITS else None
