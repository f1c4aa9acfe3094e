"""Web pages of other sites as clients: what their browsers are told (Fetch standard, 3.2).

    page ──► browser ──► OPTIONS, if the request is no plain one ──► allowed? ──► the request
                                                                       │ no
                                                                       ▼
                                                         the browser refuses the page

Off unless `gateway.cors_origins` names sites. What clients of a model use is open to them, never
the gateway's own rooms: /cache, /metrics, /dashboard. Nothing here lets anybody in: keys, the
rules of a gateway with its own key, and those of /cache are the same with it and without.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from thinkonce.engine.http import Call, HttpError
from thinkonce.engine.marks import MARKS
from thinkonce.settings import Settings
from thinkonce.upstream.failure import Header

__all__ = ("Cors", "asks_first", "cors_of", "is_open_to_pages")

_ROOMS = ("/cache", "/dashboard", "/metrics", "/v1/dashboard")
_METHODS = b"DELETE, GET, HEAD, PATCH, POST, PUT"
_EXPOSED = ", ".join((*MARKS, "retry-after")).encode()
# How long a browser may go on without asking again, seconds.
_MAX_AGE = b"600"
# Names of headers, as a browser lists them (RFC 9110, 5.6.2).
_are_names = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,4096}").fullmatch
_VARY: Header = (b"vary", b"Origin")
_VARY_FIRST: Header = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)


def cors_of(settings: Settings) -> Cors | None:
    """None: it is off."""
    gateway = settings.gateway
    if not gateway.cors_origins:
        return None
    return Cors(gateway.cors_origins, credentials=gateway.cors_credentials)


def is_open_to_pages(path: str) -> bool:
    """Whether what answers at `path` may be shown to pages of other sites at all."""
    return not any(path == room or path.startswith(room + "/") for room in _ROOMS)


def asks_first(call: Call) -> bool:
    """Whether it is a browser's question what a page may send (a preflight)."""
    head = call.head
    return call.method == "OPTIONS" and b"origin" in head and _WANTED in head


_WANTED, _WANTED_HEADERS = b"access-control-request-method", b"access-control-request-headers"


class Cors:
    """`origins`: sites as browsers name them, or "*" alone. Thread-safe: it never changes."""

    def __init__(self, origins: Collection[str], *, credentials: bool = False) -> None:
        self._all = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._credentials = credentials

    def headers(self, head: Mapping[bytes, bytes]) -> tuple[Header, ...]:
        """What every answer to a request with this head says besides."""
        if self._all:
            return ((b"access-control-allow-origin", b"*"), _SHOWN) if b"origin" in head else ()
        if head.get(b"origin") not in self._origins:
            return (_VARY,)
        return (_VARY, *self._allowed(head[b"origin"]), _SHOWN)

    def lines(self, head: Mapping[bytes, bytes]) -> bytes:
        """The same, as lines of an answer."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers(head))

    def preflight(self, head: Mapping[bytes, bytes]) -> list[Header]:
        """The headers of the 204 that lets a page send what it asks for. Raises HttpError 403."""
        origin = head[b"origin"]
        if not self._all and origin not in self._origins:
            raise HttpError(
                403,
                f"Origin: {origin.decode('latin-1')!r:.80} is not in [gateway] cors_origins",
                code="origin_not_allowed",
                headers=(_VARY_FIRST,),
            )
        allowed = [(b"access-control-allow-origin", b"*")] if self._all else self._allowed(origin)
        wanted = head.get(_WANTED_HEADERS, b"")
        if _are_names(wanted):
            # All of them: what a header means is decided when it comes, for pages as for others.
            allowed.append((b"access-control-allow-headers", wanted))
        return [
            *allowed,
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", _MAX_AGE),
            _VARY_FIRST,
        ]

    def _allowed(self, origin: bytes) -> list[Header]:
        allowed = [(b"access-control-allow-origin", origin)]
        if self._credentials:
            allowed.append((b"access-control-allow-credentials", b"true"))
        return allowed


_SHOWN: Header = (b"access-control-expose-headers", _EXPOSED)
