"""One line a request, written in batches: a line of `logging` costs more than a hit."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TextIO

__all__ = ("AccessLog",)

FLUSH_SECONDS = 0.1
FLUSH_LINES = 500


class AccessLog:
    """Belongs to one event loop. Lines hold no prompt, no answer and no credential.

    time request-id method path status outcome reason milliseconds
    """

    def __init__(self, out: TextIO | None = None, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._out = out
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self, ids: str, what: str, status: int, outcome: str, reason: str, seconds: float
    ) -> None:
        self._lines.append(
            f"{time.time():.3f} {ids} {what} {status} {outcome or '-'} {reason or '-'} "
            f"{seconds * 1000:.1f}ms\n"
        )
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            out = self._out or sys.stderr
            try:
                out.write("".join(lines))
                out.flush()
            except (OSError, ValueError):  # nobody reads it any more: no reason to fail
                self.enabled = False
