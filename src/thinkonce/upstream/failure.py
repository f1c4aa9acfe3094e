"""How an upstream can fail, and what its caller is told.

UpstreamError                (thinkonce.errors)
├── Unreachable              no connection, or none that answered (HTTP: 502)
├── TimedOut                 too slow to connect, to begin, or to go on (HTTP: 504)
├── Broken                   the answer stopped before its end (HTTP: 502)
└── Refused                  the upstream answered with an error of its own: passed on unchanged
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from thinkonce.errors import UpstreamError

__all__ = ("Broken", "Header", "Refused", "TimedOut", "Unreachable")

Header = tuple[bytes, bytes]


class Unreachable(UpstreamError):
    """No server of the pool took the request."""

    status = 502
    code = "upstream_unreachable"


class TimedOut(UpstreamError):
    """A server took longer than its timeout allows."""

    status = 504
    code = "upstream_timeout"


class Broken(UpstreamError):
    """The answer ended before it was complete."""

    status = 502
    code = "upstream_broken"


class Refused(UpstreamError):
    """Not a 200. `headers` are the end-to-end ones, `Retry-After` among them.

    Its text carries all of it, because an error's text is what followers of a call in other
    processes get; `heard` reads it back.
    """

    code = "upstream_error"

    def __init__(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.status, self.headers, self.body = status, tuple(headers), body
        super().__init__(_encode((status, self.headers, body)).decode())

    def __reduce__(self) -> tuple[type[Refused], tuple[int, tuple[Header, ...], bytes]]:
        return Refused, (self.status, self.headers, self.body)

    @classmethod
    def heard(cls, error: UpstreamError) -> UpstreamError:
        """The refusal that `error` tells of, if it is one that came from another process."""
        name, _, text = str(error).partition(": ")
        if name != cls.__name__:
            return error
        try:
            status, headers, body = _decode(text)
        except msgspec.DecodeError:  # too long to come through whole
            return error
        return cls(status, headers, body)


# Bytes as base64: an upstream's error page need not be text.
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[int, list[Header], bytes]).decode
