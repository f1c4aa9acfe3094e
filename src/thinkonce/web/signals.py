"""Signals as plain function calls, for a while: what was there before is put back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ("STOP", "handling", "reloading", "stopping")

# What asks a server to end.
STOP: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handling(handlers: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """Call a function on each of these signals; does nothing outside the main thread.

    The functions run between two steps of whatever the main thread does: on an event loop they
    may set flags and use `call_soon_threadsafe`, no more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_, call=call: call())
        for number, call in handlers.items()
    }
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def reloading(again: Callable[[], object]) -> dict[int, Callable[[], object]]:
    """The handler that answers SIGHUP with `again`, where there is such a signal."""
    return {signal.SIGHUP: again} if hasattr(signal, "SIGHUP") else {}


def stopping(stop: Callable[[], object]) -> dict[int, Callable[[], object]]:
    """The handlers that answer every signal of STOP with `stop`."""
    return dict.fromkeys(STOP, stop)
