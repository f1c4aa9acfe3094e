"""Rows that say which record is whose and where, all of one size: a million are read as one array.

    id 16 | parent 16 | owner 16 | expires 8 | written 8 | offset 8 | segment 4 | length 4
    tokens 4 | key 4 | kind 2 | weight 2 | check 4                                96 bytes

`check` is a sum over the other words with weights of their own: it tells a row that was torn, or
never written, from one that was. Records have a digest of their own. A file of rows begins with a
row that is none, `HEAD`: without it, the file is of the first form, of 56 bytes a row, which is
read on; with another number in it, it is a later release's and is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import IntEnum
from math import inf

import numpy as np
import numpy.typing as npt

from thinkonce.kv.prefix.stay import MEDIUM

__all__ = (
    "HEAD",
    "ROW",
    "Foreign",
    "Kind",
    "Rows",
    "checked",
    "first_form",
    "is_ours",
    "read_rows",
    "row_of",
    "said_rows",
)

ROW = np.dtype(
    [
        ("id", "V16"),
        ("parent", "V16"),
        ("owner", "V16"),
        ("expires", "<f8"),
        ("written", "<f8"),
        ("offset", "<u8"),
        ("segment", "<u4"),
        ("length", "<u4"),
        ("tokens", "<u4"),
        ("key", "V4"),
        ("kind", "<u2"),
        ("weight", "<u2"),
        ("check", "<u4"),
    ]
)
Rows = npt.NDArray[np.void]
_MAGIC, _FORM = b"TOROWS", b"02"
HEAD = (_MAGIC + _FORM).ljust(ROW.itemsize, b"\0")

_FIRST_ROW = np.dtype(
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
_FIRST_START = np.uint32(0x746F6E63)
_START = np.uint32(0x746F6E64)  # a row of zeros is none


class Kind(IntEnum):
    """GONE: the block of that id is not kept any more; PURGED: nor may its bytes stay.

    STAYS: its life and weight are these now, `expires` by the wall clock, inf: until room is
    needed. WORD: the owner of that id falls under the word whose mark is `parent`, of the sort
    that `weight` says.
    """

    LIVE = 1
    GONE = 2
    PURGED = 3
    STAYS = 4
    WORD = 5


class Foreign(OSError):
    """A file of rows of a form that this release does not know."""


def row_of(id: bytes, parent: bytes, kind: Kind, **columns: float | bytes) -> Rows:
    """One row, as an array of one; `columns` by name, the others 0."""
    row = np.zeros(1, ROW)
    row["id"], row["parent"], row["kind"] = np.void(id), np.void(parent), kind
    for name, value in columns.items():
        row[name] = np.void(value) if isinstance(value, bytes) else value
    return checked(row)


def said_rows(kind: Kind, ids: Iterable[bytes], key: bytes, written: float) -> Rows:
    """Rows that say the same of each of `ids`."""
    names = list(ids)
    rows = np.zeros(len(names), ROW)
    rows["id"] = np.frombuffer(b"".join(names), "V16")
    rows["kind"], rows["key"], rows["written"] = kind, np.void(key), written
    return checked(rows)


def read_rows(descriptor: int, start: int = 0) -> Rows:
    """The good rows from byte `start` on, up to the first that is torn; `HEAD` is none of them.

    Of a file of the first form all rows, whatever `start` is. Raises OSError, and Foreign.
    """
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        head = file.read(len(HEAD)) if start < len(HEAD) else HEAD
        if len(head) == len(HEAD) and head.startswith(_MAGIC) and head != HEAD:
            raise Foreign(f"form {head[len(_MAGIC) : len(_MAGIC) + 2]!r}")
        if head != HEAD:
            file.seek(0)
            return first_form(file.read())
        file.seek(max(start, len(HEAD)))
        raw = file.read()
    rows = np.frombuffer(raw, ROW, count=len(raw) // ROW.itemsize)
    return _good(rows, _START)


def is_ours(descriptor: int) -> bool:
    """Whether that file of rows is of this form. Raises OSError."""
    return os.pread(descriptor, len(HEAD), 0) == HEAD


def first_form(raw: bytes) -> Rows:
    """Rows of 56 bytes, as later ones: without a life, and nobody's."""
    old = np.frombuffer(raw, _FIRST_ROW, count=len(raw) // _FIRST_ROW.itemsize)
    old = _good(old, _FIRST_START)
    rows = np.zeros(len(old), ROW)
    for name in ("id", "parent", "segment", "length", "offset", "kind"):
        rows[name] = old[name]
    rows["expires"], rows["weight"] = inf, MEDIUM
    return checked(rows)


def checked(rows: Rows) -> Rows:
    """The same rows, with their sums made anew."""
    rows["check"] = _checks(rows, _START)
    return rows


def _good(rows: Rows, start: np.uint32) -> Rows:
    bad = np.flatnonzero(rows["check"] != _checks(rows, start))
    return rows[: bad[0]] if len(bad) else rows


def _checks(rows: Rows, start: np.uint32) -> npt.NDArray[np.uint32]:
    """What the last word of each row must be."""
    count = rows.itemsize // 4
    words = np.ascontiguousarray(rows).view("<u4").reshape(len(rows), count)[:, :-1]
    sums: npt.NDArray[np.uint32] = words @ _WEIGHTS[: count - 1]
    return sums ^ start


# Odd, and none is a multiple of another: zeros, shifts and swapped words all show.
_WEIGHTS = np.array([0x9E3779B1 * (2 * at + 1) % 2**32 | 1 for at in range(31)], "<u4")
