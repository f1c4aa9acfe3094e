"""What all connections of one server share: their limits, and what became of those beyond them.

connect ──► too many? 503 ──► head ──► body ──► answer ──► idle ──► closed
                               └─ 408 ─┘          └─ taken too slowly: ended
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from thinkonce.web.bodies import Bodies
from thinkonce.web.exchange import HttpError, error_body

__all__ = ("Edge", "EdgeLimits", "descriptors_for")

# Who sends a large body over a thin line gets more time: a second more for so many bytes.
BYTES_A_SECOND = 16 * 1024
# Of its answer a client has to take so many bytes while `write_timeout` passes.
LEAST_TAKEN = 4096
# Files and sockets of a process besides its clients' connections: upstreams, store, workers.
OTHER_DESCRIPTORS = 1536

Note = Callable[[int, str], bytes]  # status and code -> the request id to answer with


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Seconds, bytes and connections. None for no limit.

    `header_limit`: larger heads are refused; `header_setting` names that limit to whoever meets
    it. `request_timeout`: for a request to come whole, from its first byte; large bodies get more.
    `idle_timeout`: how long a connection may lie idle between two requests. `write_timeout`: for a
    client to take some of its answer. `max_connections` at once, of them `per_peer` from one
    address.
    """

    header_limit: int = 64 * 2**10
    header_setting: str = ""
    request_timeout: float = 60.0
    idle_timeout: float = 75.0
    write_timeout: float = 60.0
    max_connections: int | None = None
    per_peer: int | None = None


class Edge:
    """Belongs to one event loop. `limits` may be replaced; they hold for what begins then.

    `note` is told of each answer that no application gave. `ended` counts, by cause, the
    connections that were refused or cut off. In `bodies` counts what is held of bodies on their
    way.
    """

    def __init__(self, limits: EdgeLimits | None = None) -> None:
        self.limits = limits or EdgeLimits()
        self.note: Note = _no_id
        self.ended: dict[str, int] = dict.fromkeys(("connections", "peer", "request", "write"), 0)
        self.open = 0
        self.bodies = Bodies()
        self._peers: dict[str, int] = {}

    def enter(self, peer: str) -> HttpError | None:
        """Count a connection from `peer`; or why it is refused, and then it is not to `leave`."""
        held = self._peers.get(peer, 0)
        limits = self.limits
        if limits.max_connections is not None and self.open >= limits.max_connections:
            self.ended["connections"] += 1
            return _full(f"{limits.max_connections} connections are open")
        if limits.per_peer is not None and held >= limits.per_peer:
            self.ended["peer"] += 1
            return _full(f"{limits.per_peer} connections are open from this address")
        self.open += 1
        self._peers[peer] = held + 1
        return None

    def leave(self, peer: str) -> None:
        """A connection has ended. Addresses without one are forgotten."""
        self.open -= 1
        left = self._peers[peer] - 1
        if left:
            self._peers[peer] = left
        else:
            del self._peers[peer]

    def __len__(self) -> int:
        """Addresses that hold a connection."""
        return len(self._peers)

    def late(self) -> HttpError:
        """The 408 for a request that did not come whole in time."""
        self.ended["request"] += 1
        return HttpError(
            408,
            f"the request did not come whole in {self.limits.request_timeout:g} s",
            type="invalid_request_error",
            code="request_timeout",
            headers=((b"connection", b"close"),),
        )

    def answer(self, error: HttpError) -> bytes:
        """A whole answer, for a client whose request never became one."""
        body = error_body(error)
        known = (b"content-type", b"connection", b"content-length", b"x-request-id")
        more = [pair for pair in error.headers if pair[0] not in known]
        lines = [
            (b"content-type", b"application/json"),
            (b"connection", b"close"),
            (b"content-length", b"%d" % len(body)),
            *more,
        ]
        if ids := self.note(error.status, error.code):
            lines.append((b"x-request-id", ids))
        phrase = HTTPStatus(error.status).phrase.encode()
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (error.status, phrase, head, body)


def _full(why: str) -> HttpError:
    return HttpError(
        503,
        f"{why}, which is the limit of this server",
        code="too_many_connections",
        headers=((b"retry-after", b"1"),),
    )


def _no_id(status: int, code: str) -> bytes:
    return b""


def descriptors_for(connections: int) -> int:
    """How many connections this process can hold, up to `connections`.

    The system's soft limit of open files is raised for them as far as its hard limit allows.
    """
    try:
        import resource
    except ImportError:  # Windows
        return connections
    wanted = connections + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        most = soft
    return max(1, min(connections, most - min(OTHER_DESCRIPTORS, most // 2)))
