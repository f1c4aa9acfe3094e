"""Whole numbers by dimension and name, one a column, added up over processes and releases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

__all__ = ("Names", "Row", "SumRow", "added", "rows_of")

Row = list[int]  # one number per column
SumRow = tuple[str, str, Row]  # dimension, name, numbers
Names = dict[str, dict[str, Row]]  # dimension -> name -> numbers


def added(one: Sequence[int], other: Sequence[int]) -> Row:
    """Column by column; a row of another release may have fewer or more: zero where it has none."""
    return [a + b for a, b in zip_longest(one, other, fillvalue=0)]


def rows_of(sums: Mapping[str, Mapping[str, Row]]) -> Iterator[SumRow]:
    for dimension, names in sums.items():
        for name, row in names.items():
            yield dimension, name, row
