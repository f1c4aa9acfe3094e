"""The cached endpoints, made of settings: the same for the gateway and for transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import msgspec

from thinkonce.freshness import Rules, TtlClass
from thinkonce.gateway.asking import Reader
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.embeddings import SPEECH, EmbeddingsEndpoint
from thinkonce.gateway.endpoint import Endpoint
from thinkonce.gateway.memo import Memo
from thinkonce.gateway.parts import LEAST, Parts, share_of
from thinkonce.gateway.passing import Passing
from thinkonce.gateway.samples import Samples
from thinkonce.gateway.served import Served
from thinkonce.gateway.telling import Teller
from thinkonce.gateway.tenants import Tenants
from thinkonce.gateway.world import GatewayWorld
from thinkonce.insight.prices import Price, Prices
from thinkonce.protocols.dialect import Speech
from thinkonce.protocols.registry import DIALECTS
from thinkonce.request.headers import headers_named
from thinkonce.request.storable import StoreRules
from thinkonce.settings import Settings
from thinkonce.shelf import Shelf
from thinkonce.upstream.pools import Pools
from thinkonce.upstream.request import Sender

__all__ = ("Beside", "beside_of", "endpoints_of", "prices_of", "readers", "rules_of")


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
    speeches: Mapping[str, Speech] = {SPEECH.name: SPEECH, **DIALECTS}
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
        )
        for name, speech in speeches.items()
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


def endpoints_of(
    settings: Settings,
    pools: Pools,
    shelf: Shelf,
    world: GatewayWorld,
    client: Sender,
    passing: Passing,
    metrics: Counts,
    prices: Prices,
    beside: Beside | None = None,
) -> dict[str, Served]:
    """By name; one Endpoint for each dialect. `client` asks the pools."""
    cache, gateway = settings.cache, settings.gateway
    reads = readers(settings, pools, shelf)
    stored = StoreRules(cache.max_temperature, cache.max_entry_bytes)
    beside = beside or beside_of(settings, prices)
    dialects = {
        name: Endpoint(
            reads[name],
            shelf,
            world,
            client,
            passing,
            Teller(
                dialect,
                prices,
                beside.parts,
                metrics,
                shelf.clock,
                stored,
                gateway.annotate_body,
            ),
            beside.memos[name],
            gateway.body_limit,
            inline=gateway.inline,
        )
        for name, dialect in DIALECTS.items()
    }
    embeddings = EmbeddingsEndpoint(
        reads[SPEECH.name], shelf, world, client, passing, metrics, prices, stored, gateway
    )
    return {SPEECH.name: embeddings, **dialects}
