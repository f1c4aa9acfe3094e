"""Ids for requests that bring none: unique to this run of the gateway, short, in order."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator

__all__ = ("RequestIds",)


class RequestIds:
    """`next(ids)`; thread-safe where `itertools.count` is."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4).encode()
        self._count = itertools.count(1)

    def __next__(self) -> bytes:
        return b"%b-%x" % (self._run, next(self._count))

    def __iter__(self) -> Iterator[bytes]:
        return self
