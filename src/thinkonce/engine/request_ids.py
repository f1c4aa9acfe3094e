"""Ids for requests that bring none: unique to this run of the gateway, short, in order."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator

__all__ = ("RequestIds",)


class RequestIds:
    """`next(ids)`, sooner by an iterator over them; thread-safe where `itertools.count` is.

    Workers of one gateway have the same `run` and each a `serial` that no other has had.
    """

    def __init__(self, run: str = "", serial: int | None = None) -> None:
        name = run or secrets.token_hex(4)
        form = f"{name if serial is None else f'{name}.{serial:x}'}-%x".encode()
        self._ids = map(form.__mod__, itertools.count(1))

    def __next__(self) -> bytes:
        return next(self._ids)

    def __iter__(self) -> Iterator[bytes]:
        return self._ids
