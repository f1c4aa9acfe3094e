"""Puts a gateway together from its settings; owns what has to be closed again."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

from thinkonce.clock import SYSTEM, Clock
from thinkonce.gateway.access_log import AccessLog
from thinkonce.gateway.admin import Admin
from thinkonce.gateway.admin.desk import Desk
from thinkonce.gateway.app import Gateway
from thinkonce.gateway.clients import Clients
from thinkonce.gateway.cors import cors_of
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.description import description_of
from thinkonce.gateway.endpoint import Endpoint
from thinkonce.gateway.endpoints import endpoints_of, prices_of, readers, rules_of
from thinkonce.gateway.fastlane import FastLane
from thinkonce.gateway.numbers import ServerNumbers
from thinkonce.gateway.parts import memory_of
from thinkonce.gateway.passing import Passing
from thinkonce.gateway.quota import held_by
from thinkonce.gateway.readiness import check_tracing
from thinkonce.gateway.request_ids import RequestIds
from thinkonce.gateway.saving import Keeper
from thinkonce.gateway.served import Served
from thinkonce.gateway.strict import strict_of
from thinkonce.gateway.team import Alone, Place, Team
from thinkonce.gateway.tenants import Tenants
from thinkonce.gateway.world import GatewayWorld
from thinkonce.insight.prices import Prices
from thinkonce.insight.savings import Savings
from thinkonce.request.headers import headers_named
from thinkonce.settings import Settings
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.tiers.keyring import keys_of
from thinkonce.upstream.client import Client, Timeouts
from thinkonce.upstream.pools import Pools

if TYPE_CHECKING:
    from thinkonce.gateway.tracing import Tracing

__all__ = ("Assembly", "assemble")

log = logging.getLogger("thinkonce")

# A failing tier says so at most this often, seconds.
SAY_AGAIN_SECONDS = 30.0


@dataclass(slots=True)
class Assembly:
    """A gateway and what it stands on. Close it on its event loop."""

    gateway: Gateway
    pools: Pools
    shelf: Shelf
    metrics: Counts
    team: Team
    client: Client
    world: GatewayWorld
    access_log: AccessLog
    lane: FastLane
    place: Place | None = None
    prices: Prices | None = None
    retired: WeakSet[Client] = field(default_factory=WeakSet)  # those still in somebody's use
    tracing: Tracing | None = None

    def adopt(self, settings: Settings, pools: Pools) -> None:
        """Serve what begins from now on under `settings`; what has begun ends as it began.

        What answers lie in, and what is counted, stays. Settings that only a restart changes are
        not looked at. Raises ConfigError; then nothing has changed.
        """
        pools.take_keys(os.environ)
        rules, pools = rules_of(settings), pools.keeping(self.pools)
        shelf, world, metrics = self.shelf, self.world, self.metrics
        client = self._client_for(settings)
        passing = Passing(client, pools, headers_named(settings.gateway.forward_headers))
        prices = self.prices or prices_of(settings)
        endpoints = endpoints_of(settings, pools, shelf, world, client, passing, metrics, prices)
        desk = _desk(settings, pools, shelf, world, metrics, self.team, endpoints, prices)
        admin = Admin(desk)
        strict = strict_of(settings, pools, shelf, world, client, passing, metrics, prices)
        clients = _clients(settings, shelf, self.place).keeping(self.gateway.clients)
        # Everything is built. Of what changes from here on, only the first may refuse.
        shelf.memory.resize(*memory_of(settings))
        if shelf.store is not None:
            shelf.store.resize(settings.store.max_bytes)
        shelf.adopt(rules)
        world.setting = shelf.setting
        self._use(client, pools)
        for model in _known_models(pools):
            metrics.learn_model(model)
        self.access_log.enabled = settings.gateway.access_log
        self.access_log.as_json = settings.log.format == "json"
        self.gateway.adopt(endpoints, passing, admin, clients, settings.gateway.body_limit)
        self.gateway.strict = strict
        _show(settings, self.gateway)
        self.lane.adopt(_in_lane(settings, self.gateway), clients, self.gateway.cors)

    def trace(self, tracing: Tracing) -> None:
        """Make spans of what comes from now on; they are flushed at the end."""
        self.tracing = self.gateway.tracing = self.lane.tracing = tracing
        self.client.watching = tracing.attempt

    def _client_for(self, settings: Settings) -> Client:
        """The one in use, unless it differs."""
        client = _client(settings, self.client.gateway_id, self.shelf.clock)
        same = (client.timeouts, client.retries) == (self.client.timeouts, self.client.retries)
        return self.client if same else client

    def _use(self, client: Client, pools: Pools) -> None:
        """Ask `pools` by `client` from now on; calls under way keep the one they have."""
        self.pools = pools
        if client is not self.client:
            self.client.retire()
            self.retired.add(self.client)
            client.watching = self.client.watching
            self.client = client
        self.client.watch(pools.all)

    async def close(self, drain: float) -> None:
        """Calls under way get `drain` seconds; then everything is flushed and let go."""
        async with AsyncExitStack() as ending:  # from the last line up, whatever fails
            ending.callback(self.shelf.close)
            ending.push_async_callback(self.metrics.keeper.close)
            if self.tracing is not None:
                ending.push_async_callback(asyncio.to_thread, self.tracing.close)
            ending.callback(self.access_log.flush)
            for client in (self.client, *self.retired):
                ending.push_async_callback(client.close)
            ending.push_async_callback(self.world.close, drain)


def assemble(
    settings: Settings,
    pools: Pools,
    *,
    clock: Clock = SYSTEM,
    prices: Prices | None = None,
    place: Place | None = None,
) -> Assembly:
    """Needs a running loop if health is checked. Raises ConfigError for an unusable store.

    `place`: among several workers; None: it is the only one.
    """
    pools.take_keys(os.environ)
    shelf = _shelf(settings, clock)
    keeper = Keeper(Savings(clock.wall), None if shelf.store is None else shelf.store.savings)
    metrics = Counts(_known_models(pools), keeper)
    complaints = _Complaints(metrics)
    shelf.tier_failed = complaints.tier_failed
    world = GatewayWorld(
        shelf.setting,
        shelf.flights,
        complaints.tier_failed,
        max_bytes=settings.cache.max_entry_bytes,
        finish_abandoned=settings.gateway.finish_abandoned,
    )
    alone = Alone(shelf, world, metrics)
    team = alone if place is None else place.join(alone)
    gateway_id = f"thinkonce-{secrets.token_hex(8) if place is None else place.run}"
    client = _client(settings, gateway_id, clock)
    passing = Passing(client, pools, headers_named(settings.gateway.forward_headers))
    known = prices or prices_of(settings)
    endpoints = endpoints_of(settings, pools, shelf, world, client, passing, metrics, known)
    clients = _clients(settings, shelf, place)
    as_json = settings.log.format == "json"
    access_log = AccessLog(enabled=settings.gateway.access_log, as_json=as_json)
    gateway = Gateway(
        endpoints,
        passing,
        Admin(_desk(settings, pools, shelf, world, metrics, team, endpoints, known)),
        clients,
        metrics,
        team,
        access_log,
        gateway_id=gateway_id,
        body_limit=settings.gateway.body_limit,
        ids=None if place is None else RequestIds(place.run[:8], place.serial),
    )
    gateway.strict = strict_of(settings, pools, shelf, world, client, passing, metrics, known)
    lane = FastLane(gateway.ids, metrics, access_log)
    _show(settings, gateway)
    lane.adopt(_in_lane(settings, gateway), clients, gateway.cors)
    client.watch(pools.all)
    made = Assembly(
        gateway, pools, shelf, metrics, team, client, world, access_log, lane, place, prices
    )
    metrics.servers = lambda: _servers_of(made.pools, clock.monotonic())
    if settings.tracing.enabled:
        made.trace(_tracing())
    return made


def _tracing() -> Tracing:
    check_tracing()
    from thinkonce.gateway.tracing import open_tracing  # what it stands on is an extra

    return open_tracing()


def _shelf(settings: Settings, clock: Clock) -> Shelf:
    """With this worker's part of the memory, and the whole store."""
    max_size, max_bytes = memory_of(settings)
    return open_shelf(
        settings.store.url,
        rules_of(settings),
        secret=settings.store.secret,
        encryption_keys=keys_of(settings.store),
        max_size=max_size,
        max_bytes=max_bytes,
        store_max_bytes=settings.store.max_bytes,
        policy=settings.cache.policy,
        clock=clock,
    )


def _servers_of(pools: Pools, now: float) -> dict[tuple[str, str], ServerNumbers]:
    found: dict[tuple[str, str], ServerNumbers] = {}
    for pool in pools.all:
        for server in pool.servers:
            numbers = found.setdefault((pool.name, server.name), ServerNumbers())
            numbers.requests += server.attempts
            numbers.failures += server.failures
            numbers.busy += server.busy
            numbers.open += server.is_left_alone(now)
            numbers.down += server.down
    return found


def _show(settings: Settings, gateway: Gateway) -> None:
    """What it says of itself, and to whose pages."""
    gateway.describe, gateway.cors = description_of(settings), cors_of(settings)


def _in_lane(settings: Settings, gateway: Gateway) -> Mapping[str, Endpoint]:
    """By path, what the fast lane may answer for."""
    options = settings.gateway
    chosen = options.inline and options.fast_lane and not options.strict
    if not chosen:
        return {}
    return {path: each for path, each in gateway.cached.items() if isinstance(each, Endpoint)}


def _client(settings: Settings, gateway_id: str, clock: Clock) -> Client:
    gateway = settings.gateway
    timeouts = Timeouts(gateway.connect_timeout, gateway.first_byte_timeout, gateway.read_timeout)
    return Client(timeouts, retries=gateway.retries, gateway_id=gateway_id, clock=clock)


def _clients(settings: Settings, shelf: Shelf, place: Place | None) -> Clients:
    tenants = Tenants(shelf.keyer, settings.groups, settings.clients)
    own_key = any(row.api_key_env for row in settings.upstreams.values())
    measure = partial(held_by, shelf)
    return Clients(settings.clients, tenants, shelf.clock, measure, own_key=own_key, place=place)


def _desk(
    settings: Settings,
    pools: Pools,
    shelf: Shelf,
    world: GatewayWorld,
    metrics: Counts,
    team: Team,
    endpoints: Mapping[str, Served],
    prices: Prices,
) -> Desk:
    tenants = Tenants(shelf.keyer, settings.groups, settings.clients)
    reads = readers(settings, pools, shelf)
    return Desk(settings, shelf, world, metrics, team, endpoints, reads, tenants, prices)


class _Complaints:
    """Counts every failure of a tier, and logs one now and then."""

    def __init__(self, metrics: Counts) -> None:
        self._metrics = metrics
        self._said: dict[str, float] = {}

    def tier_failed(self, tier: str, error: Exception) -> None:
        self._metrics.tier_failed(tier)
        now = monotonic()
        if now - self._said.get(tier, -inf) >= SAY_AGAIN_SECONDS:
            self._said[tier] = now
            log.warning("tier %s failed, answers come without it: %s", tier, error)


def _known_models(pools: Pools) -> Iterable[str]:
    return (pattern for pattern in pools.patterns() if not set(pattern) & set("*?["))
