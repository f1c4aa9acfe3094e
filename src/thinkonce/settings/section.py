"""One table of settings: what its fields say of themselves.

`about`, `seconds` and `size` describe a field for the docs and for errors, and bound it.
"""

from __future__ import annotations

from typing import get_args

import msgspec
from msgspec import Meta

__all__ = (
    "DAY",
    "HOUR",
    "MIB",
    "NONE",
    "SIZES",
    "TIMES",
    "YES_NO",
    "Section",
    "about",
    "one_of",
    "seconds",
    "size",
)

HOUR, DAY, MIB = 3600.0, 86_400.0, 2**20
TIMES = "seconds, or a text such as 90s, 5m, 24h, 7d"
SIZES = "bytes, or a text such as 512KiB, 256MiB, 1GiB"


def about(what: str, accepts: str, **bounds: float) -> Meta:
    """`bounds`: `least` and `most`, both inclusive. `secret`: errors do not show the value.

    `fixed`: bound, opened or started once, so that only another process can have another value.
    """
    return Meta(description=what, extra={"accepts": accepts, **bounds})


def seconds(what: str, more: str = "", **bounds: float) -> Meta:
    return Meta(description=what, extra={"accepts": TIMES + more, "unit": "seconds", **bounds})


def size(what: str, more: str = "", **bounds: float) -> Meta:
    return Meta(description=what, extra={"accepts": SIZES + more, "unit": "bytes", **bounds})


def one_of(names: object) -> str:
    """What a setting accepts that is one of a Literal's texts."""
    *others, last = get_args(names)
    return f"{', '.join(others)} or {last}"


YES_NO = "true or false"
NONE = ', or "none"'


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file. Frozen: a reload makes new settings, it never edits these."""
