"""A child process that ends with its parent, however that ended: `kill -9` included.

The parent holds the write end of a pipe that is the child's stdin, and never writes to it. The
system closes that end with the parent, and the child reads the end of the file.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time

__all__ = ("LIFELINE", "end_with_parent", "held")

# Set for a child whose stdin is such a pipe.
LIFELINE = "THINKONCE__LIFELINE"


def held() -> dict[str, str]:
    """What a parent adds to the environment of a child whose stdin it holds open."""
    return {LIFELINE: "stdin"}


def end_with_parent(grace: float | None = None) -> None:
    """Take the parent's end for a SIGTERM, if this process was started with a lifeline.

    Whatever it still does `grace` seconds later, it ends (None: it takes the time it needs).
    Children of this process do not inherit it: their parent is another one.
    """
    if os.environ.pop(LIFELINE, ""):
        threading.Thread(
            target=_watch, args=(grace,), name="thinkonce-lifeline", daemon=True
        ).start()


def _watch(grace: float | None) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    # Trips the handler in the main thread, on every platform.
    _thread.interrupt_main(signal.SIGTERM)
    if grace is not None:
        time.sleep(grace)
        os._exit(1)
