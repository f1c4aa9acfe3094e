"""How an upstream can fail, and what its caller is told.

UpstreamError                (thinkonce.errors)
├── Unreachable              no connection, or none that answered (HTTP: 502)
│   └── Resting              every server is left alone for now, and others can be asked
├── TimedOut                 too slow to connect or to begin (HTTP: 504)
│   └── Stalled              an answer that has begun does not go on
├── Overloaded               every server has its hands full (HTTP: 503)
├── Broken                   the answer stopped before its end (HTTP: 502)
└── Refused                  the upstream answered with an error of its own: passed on unchanged
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from thinkonce.errors import UpstreamError

__all__ = (
    "Broken",
    "Header",
    "Overloaded",
    "Refused",
    "Resting",
    "Stalled",
    "TimedOut",
    "Unreachable",
    "asker_of",
    "may_others_do_better",
    "says_try_elsewhere",
)

Header = tuple[bytes, bytes]

# An unknown key, an empty account, what one may not do or see (a model, too), too many requests.
_OF_THE_ASKER = frozenset({401, 402, 403, 404, 429})


class Unreachable(UpstreamError, crosses=True):
    """No server of the pool took the request."""

    status = 502
    code = "upstream_unreachable"


class Resting(Unreachable, crosses=True):
    """Nobody was asked: the pool's servers are left alone, and another pool may answer."""


class TimedOut(UpstreamError, crosses=True):
    """A server took longer than its timeout allows."""

    status = 504
    code = "upstream_timeout"


class Stalled(TimedOut, crosses=True):
    """The answer had begun: asking anybody else could say something twice."""


class Overloaded(UpstreamError, crosses=True):
    """`max_concurrent` requests are under way at every server, and no place came free."""

    status = 503
    code = "upstream_busy"


class Broken(UpstreamError, crosses=True):
    """The answer ended before it was complete."""

    status = 502
    code = "upstream_broken"


class Refused(UpstreamError, crosses=True):
    """Not a 200. `headers` are the end-to-end ones, `Retry-After` among them.

    `whose` stands for the client's credential that was sent (`asker_of`), where it may be that
    alone which was refused; b"" where any other would be told the same.
    """

    code = "upstream_error"

    def __init__(
        self, status: int, headers: Iterable[Sequence[bytes]], body: bytes, whose: bytes = b""
    ) -> None:
        self.status, self.body, self.whose = status, body, whose
        self.headers: tuple[Header, ...] = tuple((name, value) for name, value in headers)
        super().__init__(status, self.headers, body, whose)

    def __str__(self) -> str:
        return f"the upstream answered {self.status}"


def asker_of(status: int, credential: Sequence[Header]) -> bytes:
    """What `Refused.whose` is for an answer of this status to a request with this credential."""
    if status not in _OF_THE_ASKER or not credential:
        return b""
    return blake2b(repr(tuple(credential)).encode(), digest_size=16).digest()


def says_try_elsewhere(status: int) -> bool:
    """Whether an answer concerns the server and its load, and not what it was asked."""
    return status == 429 or status >= 500


def may_others_do_better(error: UpstreamError) -> bool:
    """Whether another pool may be asked: nothing of an answer has come."""
    if isinstance(error, Refused):
        return says_try_elsewhere(error.status)
    unanswered = isinstance(error, Unreachable | TimedOut | Overloaded)
    return unanswered and not isinstance(error, Stalled)
