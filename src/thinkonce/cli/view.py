"""What the commands that look ask of a store, be it a file or a running gateway."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from thinkonce.insight.entries import EntryRow

__all__ = ("Chosen", "Purged", "StoreView")


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


class Purged(msgspec.Struct):
    """`purged`: entries; `engines`: what each engine behind a gateway did, by its address:
    `purged` blocks of attention state in memory, and what became of those on `disk`.
    """

    purged: int
    engines: dict[str, dict[str, Any]] = {}


class StoreView(Protocol):
    """A store to look into and to empty. Methods raise ThinkOnceError; a context manager."""

    place: str

    def stats(self) -> dict[str, Any]: ...

    def entries(self, chosen: Chosen, limit: int) -> list[EntryRow]: ...

    def show(self, key: str, content: bool) -> dict[str, Any]:
        """One entry as a mapping; with `content`, its answer under "content"."""
        ...

    def purge(self, chosen: Chosen) -> Purged: ...

    def reset_audits(self, namespace: str | None, tenant: str | None) -> int:
        """Begin anew after alarms; None is any. How many accounts there were."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
