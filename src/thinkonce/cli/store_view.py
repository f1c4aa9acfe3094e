"""A store's file, opened beside whatever else is using it."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from thinkonce.backing import open_file
from thinkonce.cli.view import Chosen
from thinkonce.clock import SYSTEM
from thinkonce.entry import Entry
from thinkonce.errors import ConfigError, RequestError
from thinkonce.insight.entries import EntryRow, content_of, row_of
from thinkonce.selector import MOST_ALIKE, Selector, beginning_with, only_one
from thinkonce.settings import Store
from thinkonce.tiers.store import store_path

__all__ = ("StoreFileView", "file_of")

# Looking must not trim: the bound is for whoever fills the store, and may differ from ours.
UNBOUNDED = 2**62


def file_of(store: Store) -> Path | None:
    """The file of a store, there or not; None for one in memory. Raises ConfigError."""
    return None if store.url == "memory://" else store_path(store.url)


def _existing(store: Store) -> Path:
    path = file_of(store)
    if path is None:
        accepts = "a store with a file; what lies in memory is seen with --url"
        raise ConfigError("--store", store.url, accepts)
    if not path.exists():
        raise ConfigError("--store", store.url, f"a store that exists; there is no {path} yet")
    return path


class StoreFileView:
    """Opening makes no new store. Raises ConfigError where it cannot be opened."""

    def __init__(self, store: Store) -> None:
        path = _existing(store)
        self.place = str(path)
        self._path = path
        self._file = open_file(path, secret=store.secret, clock=SYSTEM, max_bytes=UNBOUNDED)
        self._tier = self._file.tier

    def stats(self) -> dict[str, Any]:
        counts = self._tier.stats()
        return {
            "entries": counts.entries,
            "bytes": counts.bytes,
            "file_bytes": self._path.stat().st_size,
            "purge_epoch": self._file.host.epoch[0],
        }

    def entries(self, chosen: Chosen, limit: int) -> list[EntryRow]:
        now = time.time()
        found = self._tier.entries(selector_of(chosen, now), limit)
        return [row_of(entry, now) for entry in islice(found, limit)]

    def show(self, key: str, content: bool) -> dict[str, Any]:
        entry = self._one(key)
        found: dict[str, Any] = msgspec.to_builtins(row_of(entry, time.time()))
        return {**found, "content": content_of(entry)} if content else found

    def purge(self, chosen: Chosen) -> int:
        digest = b"" if chosen.key is None else self._one(chosen.key).digest
        _, count = self._tier.purges.append(selector_of(chosen, time.time(), digest))
        return count

    def _one(self, digits: str) -> Entry:
        alike = self._tier.entries(beginning_with(digits), MOST_ALIKE)
        found = only_one(alike, digits, "KEY")
        if found is None:
            raise RequestError("KEY", digits, f"a key of {self.place}; see `thinkonce ls`")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def selector_of(chosen: Chosen, now: float, digest: bytes = b"") -> Selector:
    """`chosen` as instants of the wall clock; `all` is a selector without any condition."""
    return Selector(
        tags=chosen.tags,
        namespace=chosen.namespace,
        model=chosen.model,
        key=digest,
        older_than=None if chosen.older_than is None else now - chosen.older_than,
        expired_before=now if chosen.expired else None,
    )
