"""Which entries a purge or a listing means, in one vocabulary for every tier."""

from __future__ import annotations

import msgspec

from thinkonce.entry import Entry, Meta

__all__ = ("Purge", "Selector")


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
