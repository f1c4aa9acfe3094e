"""An answer of an upstream that has begun: its head, and its body piece by piece."""

from __future__ import annotations

import asyncio
import re
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable

from thinkonce.upstream.failure import Broken, Header
from thinkonce.upstream.unpacking import unpacker_for

__all__ = ("Exchange", "say")

HIDDEN = b"***"
LEAST_SECRET = 16  # characters; providers' keys have more
# Where aiohttp's messages go over from saying to quoting.
_QUOTED = re.compile(r"""[:'"\n]""")

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade content-length".split()
)


class Exchange(ABC):
    """Close it, whether or not it was read to its end.

    `raw`: hand out the body in the encoding it comes in. `opaque`: nobody here can decode it.
    """

    def __init__(self, status: int, headers: Iterable[Header], *, raw: bool) -> None:
        self.status = status
        self.headers = _end_to_end(headers)
        self.content_type = self._first(b"content-type")
        encoding = self._first(b"content-encoding").lower()
        self.opaque = not raw and encoding not in ("", "identity", "gzip", "x-gzip", "deflate")
        self._unpacker = None if raw or self.opaque else unpacker_for(encoding)
        if self._unpacker is not None:
            self.headers = tuple(h for h in self.headers if h[0] != b"content-encoding")
        self._hidden = self._kept_back = b""

    def hide(self, secret: bytes) -> None:
        """Put *** in place of `secret`: what an upstream repeats of our key is not for clients.

        In the body of a 200 only where it cannot be a word of an answer: some keys are "EMPTY".
        """
        if self.status != 200 or len(secret) >= LEAST_SECRET:
            self._hidden = secret
        self.headers = tuple((name, value.replace(secret, HIDDEN)) for name, value in self.headers)

    async def read(self) -> bytes:
        """The next piece as soon as there is one; b"" at the end. Raises Broken, Stalled."""
        return await (self._read_hiding() if self._hidden else self._read_plain())

    async def _read_hiding(self) -> bytes:
        """The end of a piece is kept back where the secret may go on in the next."""
        secret = self._hidden
        while True:
            piece = await self._read_plain()
            text = (self._kept_back + piece).replace(secret, HIDDEN)
            cut = _beginning(text, secret) if piece else len(text)
            self._kept_back = text[cut:]
            if cut > 0 or not piece:
                return text[:cut]

    async def _read_plain(self) -> bytes:
        unpacker = self._unpacker
        if unpacker is None:
            return await self._read()
        while True:
            if unpacker.held:  # a little may unfold to a lot: others get their turn in between
                await asyncio.sleep(0)
            data = unpacker.held or await self._read()
            if not data:
                if unpacker.is_whole:
                    return b""
                raise Broken("the upstream's compressed answer is cut off")
            try:
                plain = unpacker.take(data)
            except zlib.error as error:
                raise Broken("the upstream's answer cannot be decompressed") from error
            if plain:
                return plain

    async def read_all(self, limit: int) -> bytes | None:
        """All that is left; None if that is more than `limit` bytes."""
        pieces, size = [], 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    @abstractmethod
    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else end it."""

    @abstractmethod
    async def _read(self) -> bytes:
        """The next piece as it comes; b"" at the end. Raises Broken, Stalled."""

    def _first(self, name: bytes) -> str:
        for each, value in self.headers:
            if each == name:
                return value.decode("latin-1")
        return ""


def _beginning(text: bytes, secret: bytes) -> int:
    """Where the end of `text` begins like `secret`; the length of `text` where it does not."""
    at = text.find(secret[:1], max(len(text) - len(secret) + 1, 0))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(secret[:1], at + 1)
    return at if at >= 0 else len(text)


def _end_to_end(headers: Iterable[Header]) -> tuple[Header, ...]:
    """`headers` in lower case without those that concern one connection only (RFC 9110, 7.6.1)."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP
    for name, value in lowered:
        if name == b"connection":
            dropped = dropped | {part.strip().lower() for part in value.split(b",")}
    return tuple([header for header in lowered if header[0] not in dropped])


def say(error: Exception) -> str:
    """What went wrong, also where the error has no words.

    Without what it quotes: the URL of the request, whose query and user may be secret, or what
    the upstream sent.
    """
    aiohttp = sys.modules.get("aiohttp")  # transports go without: then it is none of its errors
    if aiohttp is not None and isinstance(error, aiohttp.ClientResponseError):
        said = _QUOTED.split(error.message, maxsplit=1)[0].strip()
    elif isinstance(error, ValueError):  # aiohttp.InvalidURL too
        said = ""
    else:
        said = str(error).replace(" ssl:default", "")  # aiohttp says so of plain HTTP too
    return said or type(error).__name__
