"""What keeps failing is left alone for a while, so that it costs no more than going without it.

closed    every call goes through
open      after 5 failures in a row: calls fail at once, for 5 seconds
half-open one call goes through; it closes the circuit or opens it again
"""

from __future__ import annotations

import logging
import threading

from thinkonce.clock import Clock
from thinkonce.host.fork import free_after_fork, on_fork

__all__ = ("FAILURES_IN_A_ROW", "PAUSE_SECONDS", "Circuit")

log = logging.getLogger("thinkonce")

FAILURES_IN_A_ROW = 5
PAUSE_SECONDS = 5.0


class Circuit:
    """Counts failures of one kind of work. Thread-safe; while all goes well it takes no lock."""

    def __init__(
        self,
        what: str,
        clock: Clock,
        failures: int = FAILURES_IN_A_ROW,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self.what = what
        self._clock, self._most, self._pause = clock, failures, pause
        self._failures = 0
        self._retry_at: float | None = None  # None: closed
        self._lock = threading.Lock()
        on_fork(self._in_child)

    @property
    def is_open(self) -> bool:
        return self._retry_at is not None

    @property
    def is_well(self) -> bool:
        """Whether what was tried last did not fail."""
        return not self._failures

    def allows(self) -> bool:
        """Whether to try; when half-open, True for one caller a pause."""
        if self._retry_at is None:
            return True
        now = self._clock.monotonic()
        with self._lock:
            if self._retry_at is None:
                return True
            if now < self._retry_at:
                return False
            self._retry_at = now + self._pause
            return True

    def failed(self, error: BaseException) -> None:
        with self._lock:
            self._failures += 1
            if self._failures < self._most:
                return
            if self._retry_at is None:
                log.warning("%s switched off for now: %s", self.what, error)
            self._retry_at = self._clock.monotonic() + self._pause

    def succeeded(self) -> None:
        if not self._failures:
            return
        with self._lock:
            if self._retry_at is not None:
                log.warning("%s works again", self.what)
            self._failures, self._retry_at = 0, None

    def _in_child(self) -> None:
        free_after_fork(self._lock)
