"""What lies where: rows of one size, so that a million of them are read as one array.

    id 16 | parent 16 | segment 4 | length 4 | offset 8 | kind 4 | check 4       56 bytes

`check` is a sum over the other words with weights of their own: it tells a row that was torn, or
never written, from one that was. Records have a digest of their own.
"""

from __future__ import annotations

import os
from enum import IntEnum

import numpy as np
import numpy.typing as npt

__all__ = ("ROW", "Kind", "Rows", "checks", "read_rows", "row_of")

ROW = np.dtype(
    [
        ("id", "V16"),
        ("parent", "V16"),
        ("segment", "<u4"),
        ("length", "<u4"),
        ("offset", "<u8"),
        ("kind", "<u4"),
        ("check", "<u4"),
    ]
)
Rows = npt.NDArray[np.void]
_WORDS = ROW.itemsize // 4
# Odd, and none is a multiple of another: zeros, shifts and swapped words all show.
_WEIGHTS = np.array([0x9E3779B1 * (2 * at + 1) % 2**32 | 1 for at in range(_WORDS - 1)], "<u4")
_START = np.uint32(0x746F6E63)  # a row of zeros is none


class Kind(IntEnum):
    """GONE: the block of that id is not kept any more."""

    LIVE = 1
    GONE = 2


def row_of(
    id: bytes, parent: bytes, kind: Kind, segment: int = 0, offset: int = 0, length: int = 0
) -> Rows:
    """One row, as an array of one."""
    row = np.zeros(1, ROW)
    row["id"], row["parent"] = np.void(id), np.void(parent)
    row["segment"], row["offset"], row["length"] = segment, offset, length
    row["kind"] = kind
    row["check"] = checks(row)
    return row


def read_rows(descriptor: int, start: int = 0) -> Rows:
    """The good rows from byte `start` on, up to the first that is torn. Raises OSError."""
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        file.seek(start)
        raw = file.read()
    rows = np.frombuffer(raw, ROW, count=len(raw) // ROW.itemsize)
    bad = np.flatnonzero(rows["check"] != checks(rows))
    return rows[: bad[0]] if len(bad) else rows


def checks(rows: Rows) -> npt.NDArray[np.uint32]:
    """What the last word of each row must be."""
    words = rows.view("<u4").reshape(len(rows), _WORDS)[:, :-1]
    sums: npt.NDArray[np.uint32] = (words * _WEIGHTS).sum(axis=1, dtype=np.uint32)
    return sums ^ _START
