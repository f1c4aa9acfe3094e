"""Puts a gateway together from its settings; owns what has to be closed again."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

from thinkonce.clock import SYSTEM, Clock
from thinkonce.engine.endpoints import rules_of
from thinkonce.engine.parts import memory_of
from thinkonce.engine.request_ids import RequestIds
from thinkonce.engine.world import GatewayWorld
from thinkonce.gateway.access_log import AccessLog
from thinkonce.gateway.app import Gateway
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.fastlane import FastLane
from thinkonce.gateway.numbers import ServerNumbers
from thinkonce.gateway.readiness import check_tracing
from thinkonce.gateway.saving import Keeper
from thinkonce.gateway.service import Ground, Service, service_of
from thinkonce.gateway.team import Alone, Place
from thinkonce.insight.prices import Prices
from thinkonce.insight.savings import Savings
from thinkonce.settings import Settings, data_folder
from thinkonce.shelf import Shelf, open_shelf
from thinkonce.tiers.keyring import keys_of
from thinkonce.upstream.client import Client
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

    ground: Ground
    service: Service
    gateway: Gateway
    lane: FastLane
    access_log: AccessLog
    retired: WeakSet[Client] = field(default_factory=WeakSet)  # those still in somebody's use
    tracing: Tracing | None = None

    @property
    def shelf(self) -> Shelf:
        return self.ground.shelf

    @property
    def world(self) -> GatewayWorld:
        return self.ground.world

    @property
    def metrics(self) -> Counts:
        return self.ground.metrics

    @property
    def pools(self) -> Pools:
        return self.service.pools

    @property
    def client(self) -> Client:
        return self.service.client

    def adopt(self, settings: Settings, pools: Pools) -> None:
        """Serve what begins from now on under `settings`; what has begun ends as it began.

        What answers lie in, and what is counted, stays. Settings that only a restart changes are
        not looked at. Raises ConfigError; then nothing has changed.
        """
        pools.take_keys(os.environ)
        former, shelf, rules = self.service, self.shelf, rules_of(settings)
        service = service_of(settings, pools, self.ground, former)
        if settings.compares and shelf.meaning is None:
            shelf.compare(settings.semantic, settings.namespaces, data_folder(settings.data.dir))
        # Everything is built. Of what changes from here on, only the first may refuse.
        shelf.memory.resize(*memory_of(settings))
        if shelf.meaning is not None:
            shelf.compare(settings.semantic, settings.namespaces, data_folder(settings.data.dir))
        if shelf.store is not None:
            shelf.store.resize(settings.store.max_bytes)
        shelf.adopt(rules)
        self.world.setting = shelf.setting
        if service.client is not former.client:
            former.client.retire()
            self.retired.add(former.client)
            service.client.watching = former.client.watching
        self.gateway.adopt(service)
        self.begin(service)

    def begin(self, service: Service) -> None:
        """Let all but the gateway itself, which has it, serve with `service`."""
        self.service, settings = service, service.settings
        service.client.watch(service.pools.all)
        self.metrics.know(service.models())
        self.access_log.enabled = settings.gateway.access_log
        self.access_log.as_json = settings.log.format == "json"
        self.access_log.every_probe = settings.log.level == "debug"
        self.lane.adopt(service.in_lane, service.clients, service.cors)

    def trace(self, tracing: Tracing) -> None:
        """Make spans of what comes from now on; they are flushed at the end."""
        self.tracing = self.gateway.tracing = self.lane.tracing = tracing
        self.client.watching = tracing.attempt

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
    ground = _ground(settings, clock, prices, place)
    service = service_of(settings, pools, ground)
    access_log, metrics = AccessLog(), ground.metrics
    ids = RequestIds() if place is None else RequestIds(place.run[:8], place.serial)
    gateway = Gateway(service, ground, access_log, ids)
    made = Assembly(ground, service, gateway, FastLane(ids, metrics, access_log), access_log)
    made.begin(service)
    metrics.servers = lambda: _servers_of(made.pools, clock.monotonic())
    if settings.tracing.enabled:
        made.trace(_tracing())
    return made


def _ground(settings: Settings, clock: Clock, prices: Prices | None, place: Place | None) -> Ground:
    shelf = _shelf(settings, clock)
    keeper = Keeper(Savings(clock.wall), None if shelf.store is None else shelf.store.savings)
    metrics = Counts(keeper=keeper)
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
    return Ground(shelf, world, metrics, team, gateway_id, place, prices)


def _tracing() -> Tracing:
    check_tracing()
    from thinkonce.gateway.tracing import open_tracing  # what it stands on is an extra

    return open_tracing()


def _shelf(settings: Settings, clock: Clock) -> Shelf:
    """With this worker's part of the memory, and the whole store."""
    max_size, max_bytes = memory_of(settings)
    shelf = open_shelf(
        settings.store.url,
        rules_of(settings),
        keys=keys_of(settings.store),
        max_size=max_size,
        max_bytes=max_bytes,
        store_max_bytes=settings.store.max_bytes,
        policy=settings.cache.policy,
        clock=clock,
    )
    if settings.compares:
        try:
            shelf.compare(settings.semantic, settings.namespaces, data_folder(settings.data.dir))
        except BaseException:
            shelf.close()
            raise
    return shelf


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
