"""Records appended to files of bounded size, and read from them.

Records begin at multiples of 4096, so that one is read without its neighbours.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from thinkonce.kv.disk.catalogue import Place
from thinkonce.kv.disk.folder import Folder

__all__ = ("SEGMENT_BYTES", "SegmentReader", "SegmentWriter", "aligned")

SEGMENT_BYTES = 64 * 1024 * 1024
_ALIGN = 4096
_MOST_OPEN = 64  # files


class SegmentWriter:
    """Appends to one segment after the other. Methods raise OSError; then call `give_up`."""

    def __init__(self, folder: Folder, writer: int, first: int) -> None:
        self._folder, self._writer, self._number = folder, writer, first - 1
        self._descriptor, self._end = -1, 0

    def append(self, *parts: bytes | bytearray | memoryview) -> Place:
        """Write one record; on the disk only after `sync`."""
        length = sum(memoryview(part).nbytes for part in parts)
        if self._descriptor < 0 or (self._end and self._end + length > SEGMENT_BYTES):
            self._begin()
        place = Place(self._writer, self._number, self._end, length)
        os.lseek(self._descriptor, self._end, os.SEEK_SET)
        for part in parts:
            _write_all(self._descriptor, memoryview(part).cast("B"))
        self._end += aligned(length)
        return place

    def sync(self) -> None:
        if self._descriptor >= 0:
            os.fdatasync(self._descriptor)

    def give_up(self) -> None:
        """The next record begins a new segment: what lies at this one's end is not known."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    @property
    def current(self) -> int:
        """The number of the segment that is written to; none of this number is removed."""
        return self._number if self._descriptor >= 0 else -1

    def _begin(self) -> None:
        self.sync()
        self.give_up()
        self._number += 1
        path = self._folder.segment(self._writer, self._number)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._end = 0
        self._folder.sync()


class SegmentReader:
    """Reads records of all writers. Not thread-safe."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._open: OrderedDict[tuple[int, int], int] = OrderedDict()

    def read(self, place: Place) -> memoryview:
        """Raises OSError, also for a file that is gone or too short."""
        descriptor = self._descriptor(place.writer, place.segment)
        record, at = np.empty(place.length, np.uint8).data, 0  # not cleared before
        while at < place.length:
            count = os.preadv(descriptor, [record[at:]], place.offset + at)
            if not count:
                raise OSError(f"{self._folder.segment(place.writer, place.segment)} is too short")
            at += count
        return record

    def left(self, places: Iterable[Place]) -> int:
        """Bytes of records that still lie there."""
        return sum(place.length for place in places if self._has_bytes(place))

    def _has_bytes(self, place: Place) -> bool:
        """Whether anything lies there still: zeros are nothing."""
        try:
            with open(self._folder.segment(place.writer, place.segment), "rb") as file:
                file.seek(place.offset)
                return any(file.read(min(place.length, _ALIGN)))
        except OSError:
            return False

    def forget(self, writer: int, number: int) -> None:
        """That file is removed."""
        descriptor = self._open.pop((writer, number), None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, writer: int, number: int) -> int:
        found = self._open.get((writer, number))
        if found is None:
            path = self._folder.segment(writer, number)
            found = self._open[writer, number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._open) > _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end((writer, number))
        return found


def aligned(length: int) -> int:
    """Bytes that a record of that length takes in its file."""
    return -(-length // _ALIGN) * _ALIGN


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
