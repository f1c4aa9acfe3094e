"""Which entries a purge or a listing means, in one vocabulary for every tier."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from thinkonce.entry import Entry, Meta
from thinkonce.errors import RequestError

__all__ = (
    "ALL_DIGITS",
    "MOST_ALIKE",
    "Purge",
    "Selector",
    "beginning_with",
    "key_digits",
    "only_one",
)

LEAST_DIGITS, ALL_DIGITS = 8, 64  # of a key in hex
# Entries to list when one is named by its first digits: eight are shared by two among thousands.
MOST_ALIKE = 1000


class Selector(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which entries a purge or a listing means. Every field given must match; all empty = all.

    `tags` matches entries that carry any of them. `older_than` is a wall-clock instant: entries
    created before it. `expired_before` likewise on `expires_at`. `key` is a digest or a prefix
    of one (>= 4 bytes). `tenant` None means every tenant.
    """

    tags: tuple[str, ...] = ()
    namespace: str | None = None
    model: str | None = None
    scope: str | None = None
    tenant: str | None = None
    key: bytes = b""
    older_than: float | None = None
    expired_before: float | None = None

    def matches(self, meta: Meta, digest: bytes, created_at: float, expires_at: float) -> bool:
        return (
            (self.namespace is None or meta.namespace == self.namespace)
            and (self.model is None or meta.model == self.model)
            and (self.scope is None or meta.scope == self.scope)
            and (self.tenant is None or meta.tenant == self.tenant)
            and (not self.tags or not set(self.tags).isdisjoint(meta.tags))
            and (not self.key or digest.startswith(self.key))
            and (self.older_than is None or created_at < self.older_than)
            and (self.expired_before is None or expires_at < self.expired_before)
        )

    def matches_entry(self, entry: Entry) -> bool:
        return self.matches(entry.meta, entry.digest, entry.created_at, entry.expires_at)


class Purge(msgspec.Struct, frozen=True):
    """A purge and its number. It concerns only entries whose request began before it."""

    epoch: int
    selector: Selector

    def concerns(self, entry: Entry) -> bool:
        return entry.epoch < self.epoch and self.selector.matches_entry(entry)


def key_digits(text: str, field: str = "key") -> str:
    """`text` as a key in hex or the first digits of one. Raises RequestError naming `field`."""
    digits = text.strip().lower()
    if not LEAST_DIGITS <= len(digits) <= ALL_DIGITS or set(digits) - set("0123456789abcdef"):
        raise RequestError(field, text, f"{LEAST_DIGITS} to {ALL_DIGITS} hex digits")
    return digits


def beginning_with(digits: str) -> Selector:
    """Means the entries whose keys begin with `digits`, and where they are odd a few more."""
    return Selector(key=bytes.fromhex(digits[: len(digits) // 2 * 2]))


def only_one(entries: Iterable[Entry], digits: str, field: str = "key") -> Entry | None:
    """The one whose key begins with `digits`; None if none does, RequestError if several do."""
    found = {entry.digest: entry for entry in entries if entry.digest.hex().startswith(digits)}
    if len(found) > 1:
        raise RequestError(field, digits, f"more digits: {len(found)} keys begin with these")
    return next(iter(found.values()), None)
