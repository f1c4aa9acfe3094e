"""What a request says about caching, from three places, parsed once into one struct.

Precedence per field, from first to last:

    body `kv_cache`      ours
    body `cache`         as LiteLLM spells it
    headers              `x-thinkonce-FIELD`, then `Cache-Control` (RFC 9111, RFC 5861)

A prohibition (`enabled: false`, `no-store`) wins from any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ("DEFAULTS", "TTL_CLASSES", "Controls", "parse_controls", "strip_controls")

TTL_CLASSES = frozenset({"hot", "warm", "cold", "static", "dynamic", "realtime"})


class Controls(msgspec.Struct, frozen=True, gc=False):
    """None and "" mean "not said". Times are in seconds; 0 is a value like any other."""

    enabled: bool = True  # False: neither read nor stored
    read: bool = True  # False: `enabled: false`, `refresh`, `no-cache`
    store: bool = True  # False: `enabled: false`, `no-store`
    ttl: float | None = None
    ttl_class: str = ""  # in place of `ttl`
    priority: str = ""  # high | medium | low | pinned
    label: str = ""  # `cache_key`
    override: bool = False  # `key_mode: "override"`: the label is the key
    context_aware: bool = True
    batch_mode: bool = False
    preload: bool = False
    namespace: str = ""
    tags: tuple[str, ...] = ()
    refresh: bool = False
    semantic: bool | float | None = None
    reuse: str = ""
    max_age: float | None = None
    max_stale: float | None = None  # inf: however stale
    min_fresh: float | None = None
    only_if_cached: bool = False
    stale_if_error: float | None = None
    stale_while_revalidate: float | None = None


DEFAULTS = Controls()


def parse_controls(
    kv_cache: Any,
    cache: Any,
    headers: Iterable[tuple[bytes, bytes]],
    ttl_classes: frozenset[str] = TTL_CLASSES,
) -> Controls:
    """`kv_cache` and `cache` as found in the body (None: absent); header names in lower case.

    Raises RequestError naming the field, and for an unknown one all known ones.
    """
    raise NotImplementedError


def strip_controls(raw: bytes, body: dict[str, Any], keep: bytes = b"") -> bytes:
    """The request's bytes without `kv_cache` and `cache`; everything else byte for byte.

    `keep` is the JSON of a `kv_cache` to put in their place, for our own engine.
    """
    raise NotImplementedError
