"""Which request headers travel on, and which of them can change an answer."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

__all__ = ("Taken", "take_headers")


class Taken(msgspec.Struct, frozen=True, gc=False):
    """`forward` goes upstream; `keyed` enters the key; `credential` makes the tenant.

    `credential` headers are not in `forward`: whether the client's or the gateway's own
    credential goes upstream is the pool's business.
    """

    forward: tuple[tuple[bytes, bytes], ...] = ()
    keyed: tuple[tuple[bytes, bytes], ...] = ()
    credential: tuple[tuple[bytes, bytes], ...] = ()


def take_headers(
    headers: Iterable[tuple[bytes, bytes]], extra: frozenset[bytes] = frozenset()
) -> Taken:
    """`headers` with names in lower case; `extra`: names the operator forwards besides."""
    raise NotImplementedError
