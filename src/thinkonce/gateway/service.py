"""What serves requests under one set of settings: made at the start, and anew at each reload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from thinkonce.engine.endpoint import Endpoint
from thinkonce.engine.endpoints import (
    Making,
    beside_of,
    endpoints_of,
    prices_of,
    readers,
)
from thinkonce.engine.means import Means
from thinkonce.engine.passing import Passing
from thinkonce.engine.served import Served
from thinkonce.engine.tenants import Tenants
from thinkonce.engine.world import GatewayWorld
from thinkonce.gateway.admin import Admin
from thinkonce.gateway.admin.desk import Desk
from thinkonce.gateway.clients import Clients
from thinkonce.gateway.cors import Cors, cors_of
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.description import description_of
from thinkonce.gateway.quota import held_by
from thinkonce.gateway.strict import Strict, strict_of
from thinkonce.gateway.team import OwnLimiters, Place, Team
from thinkonce.insight.prices import Prices
from thinkonce.protocols.registry import by_path
from thinkonce.request.headers import headers_named
from thinkonce.settings import Settings
from thinkonce.shelf import Shelf
from thinkonce.upstream.client import Client, Timeouts
from thinkonce.upstream.pools import Pools
from thinkonce.web.access import is_loopback

__all__ = ("Ground", "Service", "service_of")


@dataclass(frozen=True, slots=True)
class Ground:
    """What stays whatever the settings: what answers lie in, who calls, what is counted.

    `place`: among several workers; None: it is the only one. `prices` None: those of the settings.
    """

    shelf: Shelf
    world: GatewayWorld
    metrics: Counts
    team: Team
    gateway_id: str
    place: Place | None = None
    prices: Prices | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """All that a request meets. `cached` and `in_lane`: by path, with and without /v1."""

    settings: Settings
    pools: Pools
    client: Client
    clients: Clients
    cached: Mapping[str, Served]
    in_lane: Mapping[str, Endpoint]  # what the fast lane may answer for
    strict: Strict | None
    passing: Passing
    admin: Admin
    describe: Callable[[], bytes]
    cors: Cors | None

    def models(self) -> Iterable[str]:
        """Those that the settings name."""
        return (pattern for pattern in self.pools.patterns() if not set(pattern) & set("*?["))


def service_of(
    settings: Settings, pools: Pools, ground: Ground, former: Service | None = None
) -> Service:
    """Nothing of `ground` or `former` is changed by it. Raises ConfigError.

    `pools` have their keys. `former`: what served until now. What it has learnt of servers and
    clients goes on, and so does its client where that would be the same.
    """
    pools = pools if former is None else pools.keeping(former.pools)
    client = _client(settings, ground, former)
    shelf, gateway = ground.shelf, settings.gateway
    passing = Passing(client, pools, headers_named(gateway.forward_headers))
    prices = ground.prices or prices_of(settings)
    means = Means(shelf, ground.world, ground.metrics, prices, client, passing)
    reads = readers(settings, pools, shelf)
    making = Making(settings, means, reads, beside_of(settings, prices))
    endpoints = endpoints_of(making)
    tenants = Tenants(shelf.keyer, settings.groups, settings.clients)
    desk = Desk(
        settings,
        shelf,
        ground.world,
        ground.metrics,
        ground.team,
        endpoints,
        reads,
        tenants,
        prices,
    )
    return Service(
        settings,
        pools,
        client,
        _clients(settings, ground, tenants, former),
        by_path(endpoints),
        _in_lane(settings, endpoints),
        strict_of(making),
        passing,
        Admin(desk),
        description_of(settings),
        cors_of(settings),
    )


def _client(settings: Settings, ground: Ground, former: Service | None) -> Client:
    """The one in use, unless it differs."""
    gateway = settings.gateway
    timeouts = Timeouts(gateway.connect_timeout, gateway.first_byte_timeout, gateway.read_timeout)
    if former is not None:
        used = former.client
        if (used.timeouts, used.retries) == (timeouts, gateway.retries):
            return used
    clock = ground.shelf.clock
    return Client(timeouts, retries=gateway.retries, gateway_id=ground.gateway_id, clock=clock)


def _clients(
    settings: Settings, ground: Ground, tenants: Tenants, former: Service | None
) -> Clients:
    shelf = ground.shelf
    own_key = any(row.api_key_env for row in settings.upstreams.values())
    measure = partial(held_by, shelf)
    limiters = ground.place or OwnLimiters()
    hosts = settings.gateway.hosts if is_loopback(settings.gateway.host) else None
    made = Clients(
        settings.clients, tenants, shelf.clock, measure, limiters, own_key=own_key, hosts=hosts
    )
    return made if former is None else made.keeping(former.clients)


def _in_lane(settings: Settings, endpoints: Mapping[str, Served]) -> Mapping[str, Endpoint]:
    options = settings.gateway
    if options.strict or not (options.inline and options.fast_lane):
        return {}
    return by_path({name: each for name, each in endpoints.items() if isinstance(each, Endpoint)})
