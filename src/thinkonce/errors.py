"""Every error this package raises on purpose.

ThinkOnceError
├── ConfigError        a setting that cannot work; raised at start-up, never mid-request
├── RequestError       what the caller asked is malformed; names the field (HTTP: 400)
├── NotCached          only-if-cached was asked and nothing fit (HTTP: 504)
├── TierError          a tier could not answer; the flow treats it as a miss and counts it
│   └── CorruptEntry   stored bytes do not decode or carry a wrong checksum; the entry is dropped
│       └── UnknownKey they are encrypted with a key that is not configured; the entry stays
└── UpstreamError      the model failed; never cached, raised unless something stale may answer
"""

from __future__ import annotations

import re
from enum import Enum
from typing import ClassVar, Final

__all__ = (
    "MISSING",
    "UNKNOWN",
    "ConfigError",
    "CorruptEntry",
    "NotCached",
    "RequestError",
    "ThinkOnceError",
    "TierError",
    "UnknownKey",
    "UpstreamError",
)

_QUOTED = 80  # characters of a value that a message repeats
_USERINFO = re.compile(r"//[^\s/@'\"]*@")  # of a URL: it may hold a password


class ThinkOnceError(Exception):
    """Base class: `except ThinkOnceError` catches all of the above."""


class Missing(Enum):
    """`MISSING` in place of the value a setting got: nobody gave one."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class Unknown(Enum):
    """`UNKNOWN` in place of the value a setting got: there is no such setting."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


class ConfigError(ThinkOnceError, ValueError):
    """Names the setting, the value it got (or `MISSING`, or `UNKNOWN`), and what works."""

    def __init__(self, setting: str, got: object, accepts: str) -> None:
        if isinstance(got, Missing | Unknown):
            wrong = f"{setting} is {got.value}"
        else:
            wrong = f"{setting}={_USERINFO.sub('//***@', repr(got))} does not work"
        super().__init__(f"{wrong}; use {accepts}")
        self.setting, self.got, self.accepts = setting, got, accepts


class RequestError(ThinkOnceError, ValueError):
    """A request that cannot be served as written; `field` is the path of what is wrong.

    The message quotes at most the first 80 characters of what it got; `got` holds all of it.
    """

    def __init__(self, field: str, got: object, accepts: str) -> None:
        shown = repr(got)
        if len(shown) > _QUOTED:
            shown = shown[:_QUOTED] + "…"
        super().__init__(f"{field}: got {shown}; it accepts {accepts}")
        self.field, self.got, self.accepts = field, got, accepts


class NotCached(ThinkOnceError, LookupError):
    """`only-if-cached` was asked for and no usable entry exists (RFC 9111, 5.2.1.7)."""


class TierError(ThinkOnceError):
    """Names the tier, so that a log line says which one to look at."""

    def __init__(self, tier: str, doing: str) -> None:
        super().__init__(f"tier {tier!r} failed while {doing}")
        self.tier, self.doing = tier, doing


class CorruptEntry(TierError):
    """The bytes under a key are not an entry this version can read."""


class UnknownKey(CorruptEntry):
    """Encrypted with a key that we do not have: no fault of the bytes."""


class UpstreamError(ThinkOnceError):
    """The model or its API failed; `__cause__` holds the original.

    Followers of the call in other processes get an UpstreamError that names the class and the
    message. A subclass made with `crosses=True` reaches them as itself: its `args`, plain values,
    make it again, and its name is its own among those.
    """

    crossing: ClassVar[dict[str, type[UpstreamError]]] = {}

    def __init_subclass__(cls, *, crosses: bool = False) -> None:
        if crosses:
            UpstreamError.crossing[cls.__name__] = cls
