"""How an upstream can fail, and what its caller is told.

UpstreamError                (thinkonce.errors)
├── Unreachable              no connection, or none that answered (HTTP: 502)
├── TimedOut                 too slow to connect, to begin, or to go on (HTTP: 504)
├── Broken                   the answer stopped before its end (HTTP: 502)
└── Refused                  the upstream answered with an error of its own: passed on unchanged
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Not a 200. `headers` are the end-to-end ones, `Retry-After` among them."""

    def __init__(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        super().__init__(f"the upstream answered {status}")
        self.status, self.headers, self.body = status, tuple(headers), body
        self.code = "upstream_error"

    def __reduce__(self) -> tuple[type[Refused], tuple[int, tuple[Header, ...], bytes]]:
        return Refused, (self.status, self.headers, self.body)
