"""The rows of one writer: appended by it, followed by everybody else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from thinkonce.kv.disk.rows import HEAD, ROW, Rows, is_ours, read_rows

__all__ = ("Followed", "Manifest")


class Manifest:
    """Appends rows to a file that is locked. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        """What was torn at its end is cut off; `rows` are the good ones that were there. A file
        of the first form is written anew. Raises Foreign for one of a later release.
        """
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.rows: Rows = read_rows(self._descriptor)
            self._end = len(HEAD) + self.rows.nbytes if is_ours(self._descriptor) else 0
            if len(self.rows) and not self._end:
                self.replace(self.rows)
            os.ftruncate(self._descriptor, self._end)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def count(self) -> int:
        return max(0, self._end - len(HEAD)) // ROW.itemsize

    def is_there(self) -> bool:
        """Whether the file that is written to is still the one of that name."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    def append(self, rows: Rows) -> None:
        """On the disk when it returns. Where it raises, the rows before are as they were."""
        data = rows.tobytes() if self._end else HEAD + rows.tobytes()
        try:
            view, at = memoryview(data), self._end
            while view:
                count = os.pwrite(self._descriptor, view, at)
                view, at = view[count:], at + count
            os.fdatasync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(data)

    def replace(self, rows: Rows) -> None:
        """Write all of it anew; whoever follows it sees another file."""
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(HEAD + rows.tobytes())
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            new.replace(self._path)
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._end = descriptor, len(HEAD) + rows.nbytes

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Followed:
    """The rows of another process, from where they were read last."""

    def __init__(self, path: Path) -> None:
        """The file is held open: a number of a file that is gone could be the next one's."""
        self._path, self._end, self._descriptor = path, 0, -1

    @property
    def end(self) -> int:
        """Bytes that were read."""
        return self._end

    def news(self) -> tuple[bool, Rows]:
        """Whether all that was read before is void, and the rows since. Raises OSError."""
        found = os.stat(self._path)
        was_open = self._descriptor >= 0
        is_other = was_open and not os.path.samestat(found, os.fstat(self._descriptor))
        is_void = is_other or found.st_size < self._end
        if is_void:
            self.close()
            self._end = 0
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        # A file of another form is not followed: one of the first is read once its number is ours.
        if found.st_size == self._end or not is_ours(self._descriptor):
            return is_void, np.zeros(0, ROW)
        rows = read_rows(self._descriptor, self._end)
        self._end = max(self._end, len(HEAD)) + rows.nbytes
        return is_void, rows

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
