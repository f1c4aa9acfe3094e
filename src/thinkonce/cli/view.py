"""What the commands that look ask of a store, be it a file or a running gateway."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from thinkonce.errors import RequestError
from thinkonce.insight.entries import EntryRow

__all__ = ("LEAST_PREFIX", "Chosen", "StoreView", "key_prefix")

# Hex digits of a key that commands accept in place of all 64.
LEAST_PREFIX = 8


class Chosen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which entries a command means; also the body of the admin API's purge.

    Every field given must match. `older_than` is in seconds. Nothing given means nothing:
    emptying takes `all`.
    """

    tags: tuple[str, ...] = ()
    namespace: str | None = None
    model: str | None = None
    key: str | None = None
    older_than: float | None = None
    expired: bool = False
    all: bool = False

    def is_empty(self) -> bool:
        return self == Chosen()


class StoreView(Protocol):
    """A store to look into and to empty. Methods raise ThinkOnceError; a context manager."""

    place: str

    def stats(self) -> dict[str, Any]: ...

    def entries(self, chosen: Chosen, limit: int) -> list[EntryRow]: ...

    def show(self, key: str, content: bool) -> dict[str, Any]:
        """One entry as a mapping; with `content`, its answer under "content"."""
        ...

    def purge(self, chosen: Chosen) -> int: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def key_prefix(key: str) -> str:
    """`key` checked: 8 to 64 hex digits, in lower case. Raises RequestError."""
    digits = key.lower()
    if not LEAST_PREFIX <= len(digits) <= 64 or set(digits) - set("0123456789abcdef"):
        raise RequestError("KEY", key, f"{LEAST_PREFIX} to 64 hex digits")
    return digits
