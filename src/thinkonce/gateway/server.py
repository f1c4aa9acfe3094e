"""One gateway on a socket: assembled, put under new settings, drained and closed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from thinkonce.engine.http import HttpError
from thinkonce.errors import UpstreamError
from thinkonce.gateway.assembly import assemble
from thinkonce.gateway.edge import attainable, limits_of, tls_of
from thinkonce.gateway.readiness import LOCAL_POOL
from thinkonce.gateway.serve import announce, write_log_as
from thinkonce.gateway.team import Place
from thinkonce.settings import Settings
from thinkonce.upstream.failure import Unreachable
from thinkonce.upstream.pools import Pools
from thinkonce.web.server import Say, Server, Terms
from thinkonce.web.tls import read_again

__all__ = ("GatewayServer",)

RETRY_AFTER = b"5"  # seconds; the packaged model takes about as long to load


class GatewayServer(Server):
    """Serves one gateway, and says what to try.

    `is_restarting`: whether the local model is being started again; None: there is none.
    """

    def __init__(
        self,
        listener: socket.socket,
        settings: Settings,
        say: Say,
        is_restarting: Callable[[], bool] | None,
        place: Place | None = None,
    ) -> None:
        """Raises ConfigError for a store that cannot be used."""
        gateway = settings.gateway
        terms = Terms(gateway.drain_timeout, attainable(limits_of(gateway)), tls_of(gateway))
        self._rooms = None if place is None else place.room
        self._assembly = assemble(settings, self._pools(settings), place=place)
        self._assembly.gateway.excuse = partial(_excuse, is_restarting)
        self._settings = settings
        super().__init__(self._assembly.gateway, listener, terms, say, self._assembly.lane)
        self._assembly.gateway.guard(self.edge)

    def adopt(self, settings: Settings) -> None:
        """Serve what begins from now on under `settings`. Raises ConfigError: nothing changed."""
        gateway = settings.gateway
        tls_of(gateway)  # a certificate that cannot be used leaves the one in use as it is
        self._assembly.adopt(settings, self._pools(settings))
        self.drain_within(gateway.drain_timeout)
        self.edge.limits = attainable(limits_of(gateway))
        if self.terms.tls is not None:
            read_again(self.terms.tls, gateway.tls_cert, gateway.tls_key)
        write_log_as(settings)

    def _pools(self, settings: Settings) -> Pools:
        return Pools.of(settings.upstreams, self._rooms)

    def announce(self, url: str) -> None:
        announce(self._settings, url, self.say)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._assembly.gateway.ready = False
        await super().shutdown(sockets)

    async def close(self) -> None:
        """Calls that outlive their answers get what is left of the time; all is flushed."""
        try:
            await self.unless_forced(self._assembly.world.close(self.seconds_left))
        finally:
            await self._assembly.close(0.0)


def _excuse(is_restarting: Callable[[], bool] | None, error: UpstreamError) -> HttpError | None:
    """A 503 for whoever asks the local model while it is being started again."""
    if is_restarting is None or not is_restarting() or not isinstance(error, Unreachable):
        return None
    if not str(error).startswith(f"upstream {LOCAL_POOL!r} "):  # another pool is down as well
        return None
    return HttpError(
        503,
        "the local model is being restarted",
        code="model_restarting",
        headers=((b"retry-after", RETRY_AFTER),),
    )
