"""What a model server was asked, written down as names of blocks for `thinkonce plan --kv`.

    {"timestamp": 1795392000000, "input_length": 300, "block_size": 128, "hash_ids": [81, 5120]}

No text, no token, no owner. Names are keyed, so that nobody can look whether a text is among them,
and the same prompt of two owners has two.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.prefix.blocks import Block
from thinkonce.web.line_queue import LineQueue

__all__ = ("MOST_BYTES", "Recording")

_logger = logging.getLogger("thinkonce.kv")

MOST_BYTES = 64 * 2**20
"""Of the file; then it becomes FILE.1, in place of the one before, and another begins."""
_SETTING = "[kv] trace"
_BITS = 53  # of a name: whoever reads JSON can hold it
_END_SECONDS = 2.0
_KEY_FOR = b"thinkonce-trace"


class Recording:
    """Thread-safe. Lines are written by a thread of their own, and lost where it falls behind.

    `key`: any secret that stays the same while files are to be compared. Raises ConfigError for a
    file that cannot be written, at the start alone.
    """

    def __init__(
        self,
        path: Path,
        block_tokens: int,
        key: bytes,
        *,
        clock: Clock = SYSTEM,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._tokens, self._clock = block_tokens, clock
        self._key = blake2b(key, digest_size=32, person=_KEY_FOR).digest()
        try:
            self._file = _Bounded(path, most_bytes)
        except OSError as error:
            accepts = f"a file that this user may write ({error.strerror})"
            raise ConfigError(_SETTING, str(path), accepts) from None
        self._lines = LineQueue(self._file)
        self._is_over = False

    def add(self, tokens: int, blocks: Sequence[Block]) -> None:
        """A prompt of so many tokens was asked, whose full blocks are these. Raises nothing."""
        if self._is_over:
            return
        row = {
            "timestamp": round(self._clock.wall() * 1000),
            "input_length": tokens,
            "block_size": self._tokens,
            "hash_ids": [self._name(block) for block in blocks],
        }
        try:
            self._lines.write(msgspec.json.encode(row).decode() + "\n")
        except OSError as error:
            self._is_over = True
            _logger.warning("what is asked is not written down any more: %s", error)

    def close(self) -> None:
        """Write what waits, for a short while. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._lines.end(_END_SECONDS)
            self._file.close()

    def _name(self, block: Block) -> int:
        digest = blake2b(block.id, key=self._key, digest_size=8).digest()
        return int.from_bytes(digest) >> (64 - _BITS)


class _Bounded(io.TextIOBase):
    """Appends whole lines to a file of this user's alone. Belongs to one thread."""

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._most = path.expanduser(), most
        self._open()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode()
        if self._size and self._size + len(data) > self._most:
            os.close(self._descriptor)
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._open()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:  # a full disk, say: no half a line stays
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        return len(text)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
