"""Stderr of several processes: every line whole, whoever else writes.

A pipe takes up to PIPE_BUF bytes in one piece (POSIX, `write`), a file takes all of them. So text
is written in pieces of whole lines that are no longer than that, each with one call. What is
longer by itself is cut, with a mark.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from thinkonce.web.line_queue import stderr_aside

__all__ = ("WholeLines", "pieces", "unhindered")

PIECE = int(getattr(select, "PIPE_BUF", 512))  # bytes
CUT = b" [cut]\n"
PATIENCE = 0.1  # seconds for a reader that is behind


class WholeLines(io.TextIOBase):
    """Text to the descriptor `fd`. What has no end of line yet waits for it, or for `flush`."""

    def __init__(self, fd: int, *, alone: bool = False) -> None:
        """`alone`: no other process writes there, so no line has to be short."""
        self._fd, self._begun = fd, ""
        self._most = None if alone or stat.S_ISREG(os.fstat(fd).st_mode) else PIECE

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, text: str) -> int:
        whole, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._put(whole + newline)
        return len(text)

    def flush(self) -> None:
        begun, self._begun = self._begun, ""
        if begun:
            self._put(begun)

    def _put(self, text: str) -> None:
        content = text.encode(errors="backslashreplace")
        for piece in pieces(content, self._most):
            self._put_piece(piece)

    def _put_piece(self, piece: bytes) -> None:
        """All of it, unless nobody reads for too long: a line may be lost, not the writer."""
        give_up_at = time.monotonic() + PATIENCE
        while piece:
            try:
                piece = piece[os.write(self._fd, piece) :]
            except BlockingIOError:  # whoever shares the descriptor may have made it so
                left = give_up_at - time.monotonic()
                if left <= 0:
                    return
                select.select((), (self._fd,), (), left)


def unhindered(*, alone: bool) -> AbstractContextManager[None]:
    """Meanwhile whoever reads stderr slowly, or not at all, holds nobody up."""
    try:
        fd = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # none, or one of somebody's making
        return nullcontext()
    return stderr_aside(WholeLines(fd, alone=alone))


def pieces(content: bytes, most: int | None) -> Iterator[bytes]:
    """`content` in parts of whole lines, none longer than `most` bytes."""
    if most is None or len(content) <= most:
        yield content
        return
    piece = b""
    for line in content.splitlines(keepends=True):
        if len(line) > most:
            line = line[: most - len(CUT)] + CUT
        if len(piece) + len(line) > most:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece
