"""Lines of a log, written by a thread: whoever reads them slowly, or not at all, holds nobody up.

write ──► waiting ──► thread ──► sink
             │ too many
             └──► lost, counted; told once there is room
"""

from __future__ import annotations

import errno
import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("MOST_WAITING", "LineQueue", "stderr_aside")

log = logging.getLogger("thinkonce")

# Characters that wait for their reader: those of some ten thousand requests.
MOST_WAITING = 2**20
# Nobody will read it any more; other failures, a full disk say, pass.
_OVER = (errno.EPIPE, errno.EBADF)
# At the end, for whoever still reads.
END_SECONDS = 1.0


class LineQueue(io.TextIOBase):
    """Text for `sink`, whose `write` may block. Thread-safe.

    Raises OSError once `sink` has failed: nobody reads it any more.
    """

    def __init__(self, sink: io.TextIOBase) -> None:
        self._sink = sink
        self._changed = threading.Condition()
        self._texts: list[str] = []
        self._waiting = self._lost = 0  # characters; lines
        self._failure, self._has_ended = "", False
        threading.Thread(target=self._run, name="thinkonce-log", daemon=True).start()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._sink.fileno()

    def isatty(self) -> bool:
        return self._sink.isatty()

    def write(self, text: str) -> int:
        with self._changed:
            if self._failure:
                raise OSError(self._failure)
            if self._waiting + len(text) > MOST_WAITING:
                self._lost += text.count("\n")
            elif self._has_ended and not self._waiting:
                self._sink.write(text)
            else:
                self._texts.append(text)
                self._waiting += len(text)
                self._changed.notify_all()
        return len(text)

    def end(self, seconds: float) -> bool:
        """Wait, no longer than that, until all is written; whether it is.

        Then what is written goes to `sink` at once, and to nobody where it takes nothing.
        """
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not (self._waiting or self._lost), seconds)

    def _run(self) -> None:
        while not self._failure:
            with self._changed:
                self._changed.wait_for(lambda: self._texts or self._has_ended)
                text, self._texts = "".join(self._texts), []
            if not text:
                return
            self._put(text)

    def _put(self, text: str) -> None:
        failure, lost = "", 0
        try:
            self._sink.write(text)
            self._sink.flush()
        except (OSError, ValueError) as error:
            is_over = isinstance(error, ValueError) or error.errno in _OVER
            failure, lost = str(error) if is_over else "", text.count("\n")
        with self._changed:
            self._waiting = 0 if failure else self._waiting - len(text)
            self._lost = 0 if failure else self._lost + lost
            lost = 0 if lost else self._lost  # told once something gets through
            self._failure = failure
            self._changed.notify_all()
        if lost:
            log.warning("lines of this log that are lost, because it took no more: %d", lost)
            with self._changed:
                self._lost -= lost
                self._changed.notify_all()


@contextmanager
def stderr_aside(sink: io.TextIOBase) -> Iterator[None]:
    """What is written to stderr meanwhile goes to `sink`, by a thread."""
    before, queue = sys.stderr, LineQueue(sink)
    sys.stderr = queue
    try:
        yield
    finally:
        queue.end(END_SECONDS)
        sys.stderr = before
