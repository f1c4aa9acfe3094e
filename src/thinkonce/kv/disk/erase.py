"""Bytes that may not stay: given back to the file system, or written over with zeros.

Records begin at multiples of 4096 and are followed by nothing up to the next one, so a hole takes
whole records and nothing else. What a device keeps of what was written over (flash does) no file
tells.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from thinkonce.kv.disk.folder import Folder
from thinkonce.kv.disk.rows import Rows
from thinkonce.kv.disk.segment import aligned

__all__ = ("Gap", "erase", "gaps_between", "scrub")

# fallocate(2): FALLOC_FL_PUNCH_HOLE, which needs FALLOC_FL_KEEP_SIZE.
_PUNCH = 0x02 | 0x01
_ZEROS = bytes(1024 * 1024)


class Gap(NamedTuple):
    """Bytes of a file, from `start` up to `end`."""

    start: int
    end: int


def gaps_between(live: Rows, end: int) -> Iterator[Gap]:
    """What lies between the records of one file that are live, up to byte `end`."""
    at = 0
    places = sorted(zip(live["offset"].tolist(), live["length"].tolist(), strict=True))
    for offset, length in places:
        if at < offset:
            yield Gap(at, offset)
        at = offset + aligned(length)
    if at < end:
        yield Gap(at, end)


def scrub(folder: Folder, writer: int, live: Rows, done: dict[int, set[Gap]]) -> None:
    """Erase whatever lies in that writer's files and is none of the `live` records. `done`: gaps
    that were erased before, by segment; brought up to date. Raises OSError.
    """
    for number in list(folder.segments(writer)):
        path = folder.segment(writer, number)
        gaps = set(gaps_between(live[live["segment"] == number], path.stat().st_size))
        if more := gaps - done.get(number, set()):
            erase(path, more)
        done[number] = gaps


def erase(path: Path, gaps: Iterable[Gap]) -> None:
    """On the disk when it returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for gap in gaps:
            if not _punched(descriptor, gap.start, gap.end - gap.start):
                _write_over(descriptor, gap)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _write_over(descriptor: int, gap: Gap) -> None:
    at = gap.start
    while at < gap.end:
        at += os.pwrite(descriptor, memoryview(_ZEROS)[: gap.end - at], at)


def _punched(descriptor: int, offset: int, length: int) -> bool:
    fallocate = _fallocate()
    return fallocate is not None and fallocate(descriptor, _PUNCH, offset, length) == 0


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """The C library's; None where it has none."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "fallocate64", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    found: Callable[[int, int, int, int], int] = function
    return found
