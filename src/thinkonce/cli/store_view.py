"""A store's file, opened beside whatever else is using it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import msgspec

from thinkonce.cli.view import Chosen, Purged
from thinkonce.clock import SYSTEM
from thinkonce.entry import Entry
from thinkonce.errors import ConfigError, RequestError, ThinkOnceError
from thinkonce.insight.apart import SAMPLED, apart
from thinkonce.insight.entries import EntryRow, content_of, row_of
from thinkonce.insight.savings import Book, by_dimension
from thinkonce.request.secret import load_secret, secret_path
from thinkonce.selector import MOST_ALIKE, Selector, beginning_with, only_one
from thinkonce.settings import Store
from thinkonce.store_file import StoreFile, open_file
from thinkonce.stores import kind_of
from thinkonce.tiers.keyring import cipher_of, keys_of
from thinkonce.tiers.lookout import Lookout
from thinkonce.tiers.store import store_path

__all__ = ("StoreFileView", "file_of")

# Looking must not trim: the bound is for whoever fills the store, and may differ from ours.
UNBOUNDED = 2**62


def file_of(store: Store) -> Path | None:
    """The file of a store, there or not; None for one in memory. Raises ConfigError."""
    return None if kind_of(store.url).place else store_path(store.url)


def _existing(store: Store) -> Path:
    path = file_of(store)
    if path is None:
        accepts = "a store with a file; what lies in memory is seen with --url"
        raise ConfigError("--store", store.url, accepts)
    if not path.exists():
        accepts = f"a store that exists (there is no {path} yet), or --url of a running gateway"
        raise ConfigError("--store", store.url, accepts)
    return path


def secret_of(store: Store, path: Path) -> bytes | None:
    """The one configured, or that beside the store; None where there is none: none is made."""
    if store.secret:
        return load_secret(store.secret)
    file = secret_path(path)
    return load_secret(path=file) if file.exists() else None


class NoEntry(RequestError):
    """No key begins with the digits given."""

    def __init__(self, digits: str, place: str) -> None:
        super().__init__("KEY", digits, "a key that is there")
        self.args = (f"no entry begins with {digits} in {place}; see `thinkonce ls`",)


class StoreFileView:
    """Makes nothing, and changes nothing but by `purge` and `reset_audits`.

    Raises ConfigError for what is no store.
    """

    def __init__(self, store: Store) -> None:
        path = _existing(store)
        self.place, self._path, self._store = str(path), path, store
        self._keys = keys_of(store)
        cipher = cipher_of(self._keys, "sqlite")
        self._lookout = Lookout(path, secret_of(store, path), SYSTEM, cipher)

    def stats(self) -> dict[str, Any]:
        return {
            "entries": self._lookout.count(),
            "bytes": self._lookout.used_bytes(),
            "file_bytes": self._path.stat().st_size,
            "purge_epoch": self._lookout.purge_epoch(),
            "savings": by_dimension(Book(self._lookout.savings())),
            **self._apart(),
        }

    def _apart(self) -> dict[str, Any]:
        try:
            told = apart(self._lookout.entries(Selector(), SAMPLED))
        except ThinkOnceError:  # of a store that cannot be read there are numbers all the same
            return {}
        return {"apart": msgspec.to_builtins(told)}

    def entries(self, chosen: Chosen, limit: int) -> list[EntryRow]:
        now = time.time()
        found = self._lookout.entries(selector_of(chosen, now), limit)
        return [row_of(entry, now) for entry in found]

    def show(self, key: str, content: bool) -> dict[str, Any]:
        entry = self._one(key)
        found: dict[str, Any] = msgspec.to_builtins(row_of(entry, time.time()))
        return {**found, "content": content_of(entry)} if content else found

    def purge(self, chosen: Chosen) -> Purged:
        digest = b"" if chosen.key is None else self._one(chosen.key).digest
        file = self._opened()
        try:
            _, count = file.tier.purges.append(selector_of(chosen, time.time(), digest))
        finally:
            file.close()
        return Purged(count)

    def reset_audits(self, namespace: str | None, tenant: str | None) -> int:
        # Only here: it brings all that compares questions.
        from thinkonce.meaning.audit.resetting import reset_stored

        file = self._opened()
        try:
            return len(reset_stored(file.tier.ledger, namespace, tenant))
        finally:
            file.close()

    def _opened(self) -> StoreFile:
        """To be changed. Without a secret beside it, it gets none."""
        secret = self._store.secret or ("" if secret_path(self._path).exists() else token_hex())
        keys = replace(self._keys, secret=secret)
        return open_file(self._path, keys, clock=SYSTEM, max_bytes=UNBOUNDED)

    def verdict(self) -> str:
        """`ok`, or what SQLite finds wrong with the file, in one line."""
        return self._lookout.verdict()

    def settled(self) -> tuple[str, dict[str, int]]:
        """See `resealing.settled`."""
        return self._lookout.settled()

    def is_readable(self) -> bool:
        """Whether the oldest entry was made with this store's secret and key."""
        return self._lookout.is_readable()

    def _one(self, digits: str) -> Entry:
        alike = self._lookout.entries(beginning_with(digits), MOST_ALIKE)
        found = only_one(alike, digits, "KEY")
        if found is None:
            raise NoEntry(digits, self.place)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lookout.close()


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
