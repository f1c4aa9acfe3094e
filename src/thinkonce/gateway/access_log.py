"""One line a request, written in batches: a line of `logging` costs more than a hit."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ("AccessLog",)

FLUSH_SECONDS = 0.1
FLUSH_LINES = 500


class AccessLog:
    """Belongs to one event loop. Lines hold no prompt, no answer and no credential.

    time request-id method path status outcome reason milliseconds [not-stored=why]

    The time is RFC 3339 in UTC: 2026-01-31T23:59:59.999Z. `wall` gives seconds since the epoch.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        *,
        enabled: bool = True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = enabled
        self._out, self._wall = out, wall
        self._second, self._written_second = -1, ""  # formatted once a second
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self,
        ids: str,
        what: str,
        status: int,
        outcome: str,
        reason: str,
        seconds: float,
        not_stored: str = "",
    ) -> None:
        self._lines.append(
            f"{self._now()} {ids} {what} {status} {outcome or '-'} {reason or '-'} "
            f"{seconds * 1000:.1f}ms{f' not-stored={not_stored}' if not_stored else ''}\n"
        )
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def _now(self) -> str:
        second, milliseconds = divmod(int(self._wall() * 1000), 1000)
        if second != self._second:
            self._second = second
            self._written_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._written_second}.{milliseconds:03d}Z"

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
