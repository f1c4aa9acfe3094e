"""One server of a pool: whether it is well, and when it may be asked again.

well      every request may go to it
open      after failures in a row it is left alone for a pause
half-open the pause is over: one request goes through; it closes the circuit, or opens it again
resting   it said Retry-After, and is left alone for that long; a 429 counts only where all clients
          share a key, because limits belong to keys
down      its last health check failed
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import inf
from urllib.parse import urlsplit, urlunsplit

from thinkonce.protocols.registry import SPEECHES
from thinkonce.upstream.failure import Header
from thinkonce.upstream.room import Room

__all__ = ("MAX_REST", "Base", "Server", "base_url", "retry_after")

log = logging.getLogger("thinkonce")

# However long a server wants to be left alone, it is asked again after this many seconds.
MAX_REST = 60.0

# Anthropic's SDK takes a base URL without /v1 and adds it itself; OpenAI's takes it with /v1.
# And what lies below: messages/count_tokens, messages/batches.
_ADDS_VERSION = tuple(name for name, each in SPEECHES.items() if each.facts.adds_version)


@dataclass(frozen=True, slots=True)
class Base:
    """Where a server's API begins: `root` without a slash at its end, `query` for every call."""

    root: str
    query: str = ""

    def url(self, path: str, query: str) -> str:
        """`path` without /v1 and without a slash at its beginning."""
        root = self.root
        if path.startswith(_ADDS_VERSION) and not root.endswith("/v1"):
            root += "/v1"
        both = "&".join(filter(None, (self.query, query)))
        return f"{root}/{path}?{both}" if both else f"{root}/{path}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.root)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def beside(self, path: str) -> str:
        """`path` at the server's own root: health pages lie outside the API."""
        parts = urlsplit(self.root)
        return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def base_url(written: str) -> Base:
    """A provider's base URL as its SDK takes it; a bare host means its `/v1`."""
    parts = urlsplit(written)
    path = parts.path.rstrip("/") or "/v1"
    return Base(urlunsplit((parts.scheme, parts.netloc, path, "", "")), parts.query)


class Server:
    """Belongs to one event loop. Instants are monotonic seconds, given by whoever asks.

    `most`, or `room`, bounds the requests it serves at a time; `failures` in a row open its
    circuit for `pause` seconds.
    """

    __slots__ = (
        "_failed", "_failures", "_open", "_pause", "_quiet_until", "_resting_until", "attempts",
        "base", "down", "failures", "room", "weight",
    )  # fmt: skip

    def __init__(
        self,
        base: Base,
        weight: float = 1.0,
        *,
        most: float = inf,
        room: Room | None = None,
        failures: int = 5,
        pause: float = 5.0,
    ) -> None:
        self.base, self.weight, self.down = base, weight, False
        self.room = room or Room(most)
        self.attempts = self.failures = 0  # since the start
        self._failures, self._pause = failures, pause
        self._failed, self._open = 0, False
        self._quiet_until = self._resting_until = -inf

    def __repr__(self) -> str:
        return f"Server({self.name})"

    @property
    def name(self) -> str:
        """Its address, without anything that may be a credential."""
        parts = urlsplit(self.base.root)
        return f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"

    def is_left_alone(self, now: float) -> bool:
        """Whether its circuit is open, so that it gets one request now and then, or it rests."""
        return self._open or now < self._resting_until

    @property
    def busy(self) -> int:
        """Requests of this process that it serves."""
        return self.room.busy

    def is_ready(self, now: float) -> bool:
        """Whether it may be asked; when half-open it may."""
        return not self.down and now >= self.ready_at

    @property
    def ready_at(self) -> float:
        """When it may be asked again, its health check apart."""
        return max(self._quiet_until, self._resting_until)

    def asked(self, now: float) -> None:
        """A request goes to it: when half-open, the only one for a pause."""
        self.attempts += 1
        if self._open:
            self._quiet_until = now + self._pause

    def failed(self, now: float) -> None:
        """No connection, no answer in time, or one that says that the server is broken."""
        self._failed += 1
        self.failures += 1
        if self._failed < self._failures:
            return
        if not self._open:
            log.warning("upstream %s is left alone after %d failures", self.name, self._failed)
        self._open, self._quiet_until = True, now + self._pause

    def succeeded(self) -> None:
        if self._open:
            log.warning("upstream %s works again", self.name)
        self._failed, self._open, self._quiet_until = 0, False, -inf

    def rest(self, seconds: float, now: float) -> None:
        """It asked to be left alone for so long; at most MAX_REST counts."""
        self._resting_until = now + min(seconds, MAX_REST)

    def checked(self, well: bool) -> None:
        """The result of a health check. A good one closes the circuit as well."""
        if well is self.down:
            log.warning("upstream %s %s its health check", self.name, "passes" if well else "fails")
        self.down = not well
        if well:
            self.succeeded()


def retry_after(headers: Iterable[Header], wall: float) -> float | None:
    """The seconds that `Retry-After` names (RFC 9110, 10.2.3); None where it names none."""
    for name, value in headers:
        if name == b"retry-after":
            text = value.decode("latin-1").strip()
            if text.isascii() and text.isdigit():
                return float(text[:9])
            try:
                return max(parsedate_to_datetime(text).timestamp() - wall, 0.0)
            except (ValueError, OverflowError):
                return None
    return None
