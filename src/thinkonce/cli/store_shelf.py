"""A store's file as the gateway sees it: with keys, tenants and a memory tier in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from thinkonce.cli.store_view import UNBOUNDED, file_of
from thinkonce.errors import ConfigError
from thinkonce.freshness import Rules
from thinkonce.settings import Settings
from thinkonce.settings.sections import DEFAULT_POLICY
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.tiers.keyring import keys_of

__all__ = ("opened_shelf",)

# Commands read through the memory tier, they do not fill it.
MEMORY_BYTES = 16 * 2**20
NO_RULES = Rules()


@contextmanager
def opened_shelf(
    settings: Settings, rules: Rules = NO_RULES, *, fill: bool = False
) -> Iterator[Shelf]:
    """`fill`: the store is made if there is none, and keeps to its bound. Raises ConfigError."""
    path = file_of(settings.store)
    if path is None:
        accepts = "a store with a file; what lies in memory is reached with --url"
        raise ConfigError("--store", settings.store.url, accepts)
    if not fill and not path.exists():
        accepts = f"a store that exists (there is no {path} yet), or --url of a running gateway"
        raise ConfigError("--store", settings.store.url, accepts)
    shelf = open_shelf(
        settings.store.url,
        rules,
        keys=keys_of(settings.store),
        max_bytes=MEMORY_BYTES,
        store_max_bytes=settings.store.max_bytes if fill else UNBOUNDED,
        policy=DEFAULT_POLICY,
    )
    try:
        yield shelf
    finally:
        shelf.close()
