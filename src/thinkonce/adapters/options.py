"""What a transport can be told, and what the endpoints behind it are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, TypedDict, cast

from msgspec.structs import replace

from thinkonce.cache import Cache
from thinkonce.entry import PRIORITY_WEIGHT
from thinkonce.errors import ConfigError
from thinkonce.request.headers import digest_of
from thinkonce.settings import CacheSection, Gateway, Settings, TtlClass, Upstream
from thinkonce.units import parse_bytes

__all__ = ("GROUP_KEY", "Holder", "Options", "Plan", "cache_of", "plan_of")

# A body is in memory already when it comes here, so nothing is gained by a bound on it. Bytes.
NO_LIMIT = 2**62
# Of a cache that a transport opens for itself: the gateway's own default.
TTL = "1h"
# In place of a credential, where a group is named: of whom the settings say that it is a member.
GROUP_KEY = (b"authorization", b"Bearer thinkonce")


class Holder(TypedDict, total=False):
    """What a `Cache` is made with."""

    store: str | None
    ttl: float | str | None
    max_size: int | None
    max_bytes: int | str | None
    store_max_bytes: int | str
    policy: str
    stale_while_revalidate: float | str
    stale_if_error: float | str
    jitter: float
    early_refresh: float
    secret: str


class Options(Holder, total=False):
    """Keyword arguments of all transports.

    Either `cache`, which stays open when the transport is closed, or what a `Cache` is made with;
    `ttl` is then an hour. The rest is as in the gateway's settings, but for:

    `pool`       the name under which answers are kept, in place of the base URL: whoever asks
                 under one name declares that the same model answers. A gateway's
                 `[upstreams.NAME]` is such a name.
    `group`      whose answers these are, in place of the credential: for credentials that change
                 by the hour. A gateway's `[groups]` are such names.
    `namespace`, `tags`, `priority`   for requests that name none of their own
    """

    cache: Cache | None
    pool: str
    group: str
    namespace: str
    tags: Sequence[str]
    priority: str
    annotate_body: bool
    ignore_fields: Sequence[str]
    keep_requests: bool
    max_entry_bytes: int | str
    max_temperature: float | None
    remote_media: Literal["cache", "bypass"]
    samples: int
    sampling: Literal["turn", "random"]
    ask_usage: bool
    finish_abandoned: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Options, checked. `owns`: the cache was opened here. `controls`: for requests with none."""

    cache: Cache
    owns: bool
    settings: Settings
    pool: str
    group: str
    controls: tuple[tuple[bytes, bytes], ...]
    ask_usage: bool

    def upstream(self, url: str) -> Upstream:
        return Upstream(urls=[url], ask_usage=self.ask_usage)


def plan_of(options: Options) -> Plan:
    """Raises ConfigError for what cannot work, TypeError for what nobody knows."""
    given: Mapping[str, Any] = options
    unknown = sorted(given.keys() - Options.__annotations__.keys())
    if unknown:
        known = ", ".join(sorted(Options.__annotations__))
        raise TypeError(f"unknown argument {unknown[0]!r}; known are transport, {known}")
    controls = _controls(given)
    settings = _gateway(given)
    if group := given.get("group", ""):
        settings = replace(settings, groups={group: [digest_of(GROUP_KEY[1])]})
    cache, owns = cache_of(given)
    return Plan(
        cache=cache,
        owns=owns,
        settings=_with_rules(settings, cache),
        pool=given.get("pool", ""),
        group=group,
        controls=controls,
        ask_usage=given.get("ask_usage", False),
    )


def cache_of(given: Mapping[str, Any]) -> tuple[Cache, bool]:
    """The cache that was named, or one that is opened here (then True). Raises ConfigError."""
    cache: Cache | None = given.get("cache")
    holder = {name: given[name] for name in Holder.__annotations__ if name in given}
    if cache is None:
        return Cache(**{"ttl": TTL, **holder}), True
    if holder:
        name, got = next(iter(holder.items()))
        raise ConfigError(name, got, "it when you make the Cache that you pass as cache=")
    return cache, False


def _gateway(given: Mapping[str, Any]) -> Settings:
    kept = ("keep_requests", "max_temperature", "samples", "sampling")
    cache: dict[str, Any] = {name: given[name] for name in kept if name in given}
    if "max_entry_bytes" in given:
        cache["max_entry_bytes"] = parse_bytes(given["max_entry_bytes"], "max_entry_bytes")
    cache["ignore_fields"] = list(given.get("ignore_fields", ()))
    if cache.get("sampling", "turn") not in ("turn", "random"):
        raise ConfigError("sampling", cache["sampling"], "turn | random")
    if cache.get("samples", 1) < 1:
        raise ConfigError("samples", cache["samples"], "a whole number >= 1")
    doors = ("annotate_body", "remote_media", "finish_abandoned")
    gateway: dict[str, Any] = {name: given[name] for name in doors if name in given}
    if gateway.get("remote_media", "cache") not in ("cache", "bypass"):
        raise ConfigError("remote_media", gateway["remote_media"], "cache | bypass")
    # Nothing of a request is held back here, so everything in it counts.
    door = Gateway(forward_headers=["*"], body_limit=NO_LIMIT, **gateway)
    return Settings(cache=CacheSection(**cache), gateway=door)


def _with_rules(settings: Settings, cache: Cache) -> Settings:
    """`settings` with what `cache` says of lives and bounds."""
    rules, limits = cache.setting.rules, cache.memory.limits
    section = replace(
        settings.cache,
        ttl=None if rules.ttl == inf else rules.ttl,
        max_age=None if rules.max_age == inf else rules.max_age,
        max_bytes=limits.max_bytes,
        max_size=limits.max_entries,
    )
    classes = {
        name: TtlClass(ttl=row.seconds, priority=cast(Any, row.priority))
        for name, row in rules.ttl_classes.items()
    }
    door = replace(settings.gateway, inline=cache.inline)
    return replace(settings, cache=section, gateway=door, ttl_classes=classes)


def _controls(given: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """As headers: what a request says in its body goes before them."""
    written = {
        b"x-thinkonce-namespace": given.get("namespace", ""),
        b"x-thinkonce-tags": ",".join(_tags(given.get("tags", ()))),
        b"x-thinkonce-priority": given.get("priority", ""),
    }
    if written[b"x-thinkonce-priority"] not in ("", *PRIORITY_WEIGHT):
        raise ConfigError("priority", given["priority"], " | ".join(PRIORITY_WEIGHT))
    return tuple((name, str(value).encode()) for name, value in written.items() if value)


def _tags(tags: Sequence[str]) -> Sequence[str]:
    return (tags,) if isinstance(tags, str) else tags
