"""What a test must not leave behind: threads, open files, Unix sockets."""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import contextmanager

PATIENCE_SECONDS = 10.0


def until(condition, what="the condition"):
    """Give way to other threads and processes until `condition()` holds."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, f"{what} did not come within {PATIENCE_SECONDS} s"
        os.sched_yield() if hasattr(os, "sched_yield") else time.sleep(0)


def open_files():
    """Targets of this process's descriptors, where the system tells."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return []
    found = []
    for name in names:
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue  # the descriptor of the listing itself
    return sorted(found)


@contextmanager
def nothing_left():
    """Fail if the body leaves a thread, or a descriptor, that was not there before."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    until(lambda: set(threading.enumerate()) <= threads, "the end of all threads begun")
    if len(open_files()) > len(files):
        gc.collect()
        left = open_files()
        assert len(left) <= len(files), f"left open: {left}, before: {files}"
