"""A thread that is there while there is work, and takes it a piece at a time, in turn.

Pieces are named; a name is asked for again until its work is done. Between pieces the thread lets
others run: what waits for it is never somebody's answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from thinkonce.host.fork import on_fork

__all__ = ("Background",)

log = logging.getLogger("thinkonce.semantic")

BREATH_SECONDS = 0.001  # between two pieces


class Background:
    """Thread-safe; a forked child begins without work. `work` gets a name and returns whether
    there is more to do under it; what it raises is logged, and ends the work of that name.
    """

    def __init__(self, name: str, work: Callable[[bytes], bool]) -> None:
        self._name, self._work = name, work
        self._waiting: OrderedDict[bytes, None] = OrderedDict()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        on_fork(self._in_child)

    def do(self, name: bytes) -> None:
        """Let the work under `name` be done; nothing where it waits already."""
        if name in self._waiting:
            return
        with self._changed:
            if self._closing:
                return
            self._waiting[name] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def settle(self, timeout: float) -> bool:
        """Wait until nothing is left to do; False if `timeout` seconds passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def close(self) -> None:
        """End the thread, and do nothing more. Idempotent."""
        with self._changed:
            self._closing = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while (name := self._next()) is not None:
            try:
                more = self._work(name)
            except Exception:
                log.exception("work in the background failed")
                more = False
            with self._changed:
                del self._waiting[name]
                if more:
                    self._waiting[name] = None  # behind the others
            time.sleep(BREATH_SECONDS)

    def _next(self) -> bytes | None:
        """None, and no thread from then on, if nothing is left to do."""
        with self._changed:
            if self._waiting and not self._closing:
                return next(iter(self._waiting))
            self._thread = None
            self._changed.notify_all()
            return None

    def _in_child(self) -> None:
        self._waiting, self._thread = OrderedDict(), None
        self._changed = threading.Condition()
