"""The cached endpoints, made of settings: the same for the gateway and for transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import msgspec

from thinkonce.engine.asking import Reader
from thinkonce.engine.batch_endpoint import BatchEndpoint
from thinkonce.engine.endpoint import Endpoint
from thinkonce.engine.means import Means
from thinkonce.engine.memo import Memo
from thinkonce.engine.parts import LEAST, Parts, share_of
from thinkonce.engine.samples import Samples
from thinkonce.engine.served import Served
from thinkonce.engine.telling import Teller
from thinkonce.engine.tenants import Tenants
from thinkonce.freshness import Rules
from thinkonce.insight.prices import Price, Prices
from thinkonce.protocols.registry import BATCHES, DIALECTS, SPEECHES
from thinkonce.request.headers import headers_named
from thinkonce.request.storable import StoreRules
from thinkonce.settings import Settings
from thinkonce.shelf import Shelf
from thinkonce.ttl_classes import TtlClass
from thinkonce.upstream.pools import Pools

__all__ = (
    "Beside",
    "Making",
    "Manner",
    "beside_of",
    "endpoint_of",
    "endpoints_of",
    "prices_of",
    "readers",
    "rules_of",
)


def rules_of(settings: Settings) -> Rules:
    """How long answers live, as the flow wants to know it."""
    cache, gateway = settings.cache, settings.gateway
    rules = Rules(
        max_age=inf if cache.max_age is None else cache.max_age,
        jitter=cache.jitter,
        stale_while_revalidate=cache.stale_while_revalidate,
        stale_if_error=cache.stale_if_error,
        retention=cache.stale_retention,
        early_refresh=cache.early_refresh,
        # Nobody may give a leader up while its own timeouts still allow it to wait.
        lease=gateway.connect_timeout * (gateway.retries + 1)
        + max(gateway.first_byte_timeout, gateway.read_timeout, *_deadlines(settings))
        + 5.0,
        ttl_classes={
            name: TtlClass(row.ttl, row.priority) for name, row in settings.ttl_classes.items()
        },
    )
    ttl, _ = rules.parse_ttl(cache.ttl)
    return replace(rules, ttl=ttl)


def _deadlines(settings: Settings) -> list[float]:
    return [row.deadline for row in settings.upstreams.values() if row.deadline is not None]


def prices_of(settings: Settings) -> Prices:
    """The list, and what the settings say instead."""
    rows = settings.prices.items()
    return Prices({name: Price(**msgspec.structs.asdict(row)) for name, row in rows})


def readers(settings: Settings, pools: Pools, shelf: Shelf) -> dict[str, Reader]:
    """By endpoint, what its requests are read with."""
    cache, gateway = settings.cache, settings.gateway
    tenants = Tenants(shelf.keyer, settings.groups, settings.clients)
    return {
        name: Reader(
            speech,
            pools,
            shelf.keyer,
            tenants,
            rules_of(settings),
            forward_headers=headers_named(gateway.forward_headers),
            ignore_fields=frozenset(cache.ignore_fields),
            cache_remote_media=gateway.remote_media == "cache",
            keep_requests=cache.keep_requests,
            samples=Samples(cache.samples, cache.sampling) if name in DIALECTS else None,
            compares=settings.compares and name in DIALECTS,
        )
        for name, speech in SPEECHES.items()
    }


@dataclass(frozen=True, slots=True)
class Beside:
    """What is kept beside the tiers to answer hits with, in bounds of its own. Of one event loop.

    `memos`: by dialect.
    """

    parts: Parts
    memos: Mapping[str, Memo]


def beside_of(settings: Settings, prices: Prices, share: float = 1.0) -> Beside:
    """`share`: what it may use of the settings' bounds."""
    forwarded = headers_named(settings.gateway.forward_headers)
    of_memo = share * share_of(settings) // len(DIALECTS)
    return Beside(
        Parts(prices, int(share * share_of(settings, least=LEAST))),
        {name: Memo(forwarded, int(of_memo)) for name in DIALECTS},
    )


@dataclass(frozen=True, slots=True)
class Making:
    """What endpoints are made of. `readers` and what lies `beside`: by name."""

    settings: Settings
    means: Means
    readers: Mapping[str, Reader]
    beside: Beside

    def stored(self) -> StoreRules:
        """What may be kept."""
        cache = self.settings.cache
        return StoreRules(cache.max_temperature, cache.max_entry_bytes)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a dialect's answers are handed out: with marks in bodies? Memory hits before the flow?"""

    annotate: bool
    inline: bool
    teller: type[Teller] = Teller
    endpoint: type[Endpoint] = Endpoint


def endpoints_of(making: Making) -> dict[str, Served]:
    """By name, one for each dialect."""
    gateway = making.settings.gateway
    manner = Manner(gateway.annotate_body, gateway.inline)
    dialects = {name: endpoint_of(making, name, manner) for name in DIALECTS}
    batches = {
        name: BatchEndpoint(each, making.readers[name], making.means, making.stored(), gateway)
        for name, each in BATCHES.items()
    }
    return {**batches, **dialects}


def endpoint_of(making: Making, name: str, manner: Manner) -> Endpoint:
    """Of the dialect `name`."""
    means, beside = making.means, making.beside
    teller = manner.teller(
        DIALECTS[name],
        means.prices,
        beside.parts,
        means.metrics,
        means.shelf.clock,
        making.stored(),
        manner.annotate,
    )
    limit = making.settings.gateway.body_limit
    return manner.endpoint(
        making.readers[name], means, teller, beside.memos[name], limit, inline=manner.inline
    )
