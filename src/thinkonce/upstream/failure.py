"""How an upstream can fail, and what its caller is told.

UpstreamError                (thinkonce.errors)
├── Unreachable              no connection, or none that answered (HTTP: 502)
├── TimedOut                 too slow to connect, to begin, or to go on (HTTP: 504)
├── Broken                   the answer stopped before its end (HTTP: 502)
└── Refused                  the upstream answered with an error of its own: passed on unchanged
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thinkonce.errors import UpstreamError

__all__ = ("Broken", "Header", "Refused", "TimedOut", "Unreachable")

Header = tuple[bytes, bytes]


class Unreachable(UpstreamError, crosses=True):
    """No server of the pool took the request."""

    status = 502
    code = "upstream_unreachable"


class TimedOut(UpstreamError, crosses=True):
    """A server took longer than its timeout allows."""

    status = 504
    code = "upstream_timeout"


class Broken(UpstreamError, crosses=True):
    """The answer ended before it was complete."""

    status = 502
    code = "upstream_broken"


class Refused(UpstreamError, crosses=True):
    """Not a 200. `headers` are the end-to-end ones, `Retry-After` among them."""

    code = "upstream_error"

    def __init__(self, status: int, headers: Iterable[Sequence[bytes]], body: bytes) -> None:
        self.status, self.body = status, body
        self.headers: tuple[Header, ...] = tuple((name, value) for name, value in headers)
        super().__init__(status, self.headers, body)

    def __str__(self) -> str:
        return f"the upstream answered {self.status}"
