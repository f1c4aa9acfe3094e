"""Interrupts that a blocking call would sleep through.

Python looks for signals between its own steps, and when a system call is broken off. One that comes
after the last look and before the call begins breaks nothing off (the race for which POSIX has
pselect): the call waits on, for an hour where a model is waited for. Of 358 interrupts sent while a
line of an answer was being read, one was lost. A timer breaks the call off again and again, and
then Python looks.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("heeded",)

SECONDS = 0.5


@contextmanager
def heeded(seconds: float = SECONDS) -> Iterator[None]:
    """KeyboardInterrupt comes at most `seconds` late, whatever blocks.

    For the main thread, to which Python gives signals; nothing happens in another. Uses SIGALRM
    and the real-time timer, and puts back what they were.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    before = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
