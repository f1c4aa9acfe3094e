"""Runs the gateway: opens, says when it is ready, drains on a signal, leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import msgspec

from thinkonce.errors import MISSING, ConfigError, UpstreamError
from thinkonce.gateway.assembly import assemble
from thinkonce.gateway.clients import check_guarded
from thinkonce.gateway.edge import attainable, limits_of, tls_of
from thinkonce.gateway.http import HttpError
from thinkonce.gateway.local import END_SECONDS, LocalModel, local_model
from thinkonce.gateway.reload import Reload
from thinkonce.gateway.team import Place
from thinkonce.settings import Settings, Upstream
from thinkonce.upstream.failure import Unreachable
from thinkonce.upstream.pools import Pools
from thinkonce.web.listener import bind
from thinkonce.web.log_lines import log_to_stderr
from thinkonce.web.server import Say, Server, Terms, new_loop, print_line
from thinkonce.web.signals import handling, stopping
from thinkonce.web.tls import read_again

__all__ = ("GatewayServer", "Signals", "announce", "check_models", "run", "set_level", "with_local")

log = logging.getLogger("thinkonce")

LOCAL_POOL = "local"
RETRY_AFTER = b"5"  # seconds; the packaged model takes about as long to load


def run(
    settings: Settings, read: Callable[[], Settings] | None = None, say: Say = print_line
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code, 0 after a clean end.

    SIGHUP puts in force what `read` gives then. `say` gets the lines for whoever started it; by
    default they are printed. Raises ConfigError.
    """
    check_models(settings)
    if settings.gateway.workers > 1:
        from thinkonce.gateway.workers.parent import run_workers

        return run_workers(settings, read or (lambda: settings), say)
    log_to_stderr(settings.log.level, form=settings.log.format)
    listener = bind(settings.gateway.host, settings.gateway.port)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_serve(settings, read or (lambda: settings), listener, say))
    finally:
        listener.close()


async def _serve(
    settings: Settings, read: Callable[[], Settings], listener: socket.socket, say: Say
) -> int:
    asked = Signals()
    model: LocalModel | None = None
    with asked.handled():
        try:
            if settings.local.enabled:
                model = local_model(settings, say)
                starting = asyncio.ensure_future(model.start())
                if await asked.came_before(starting):
                    say("stopped before it was ready")
                    return 0
                await starting
            complete = partial(with_local, model)
            is_restarting = None if model is None else lambda: model.restarting
            server = GatewayServer(listener, complete(settings), say, is_restarting)
            asked.ends(server)
            asked.reload = Reload(settings, read, lambda new: server.adopt(complete(new)))
            try:
                await server.serve()
            finally:
                await server.close()
            say(server.farewell())
        finally:
            if model is not None:
                await model.stop(0.0 if asked.twice else END_SECONDS)
    return 0


def check_models(settings: Settings) -> None:
    if not settings.upstreams and not settings.local.enabled:
        accepts = "--upstream URL for a provider, or --local for a model on this machine"
        raise ConfigError("a model to ask", MISSING, accepts)
    check_guarded(settings)


def with_local(model: LocalModel | None, settings: Settings) -> Settings:
    """The local model is the last pool: configured ones choose their models first."""
    check_models(settings)
    if model is None:
        return settings
    # Our own server counts its tokens when asked; an estimate would be worse and no cheaper.
    local = Upstream(urls=[f"{model.url}/v1"], ask_usage=True, fallback_model=settings.local.model)
    upstreams = {**settings.upstreams, LOCAL_POOL: local}
    return msgspec.structs.replace(settings, upstreams=upstreams)


class Stoppable(Protocol):
    def stop(self) -> None: ...


class Signals:
    """What signals ask for: to drain, then to stop at once; and to read the settings again."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.asked = asyncio.Event()
        self.twice = False
        self.server: Stoppable | None = None
        self.reload: Callable[[], None] = _too_early

    def handled(self) -> AbstractContextManager[None]:
        return handling(self._handlers())

    def _handlers(self) -> dict[int, Callable[[], object]]:
        found = stopping(partial(self._loop.call_soon_threadsafe, self._stop))
        if hasattr(signal, "SIGHUP"):
            found[signal.SIGHUP] = partial(self._loop.call_soon_threadsafe, self._reload)
        return found

    def ends(self, server: Stoppable) -> None:
        """Pass on what is asked for from now on, and what was meanwhile."""
        self.server = server
        if self.asked.is_set():
            server.stop()

    def _stop(self) -> None:
        self.twice = self.asked.is_set()
        self.asked.set()
        if self.server is not None:
            self.server.stop()

    def _reload(self) -> None:
        self.reload()

    async def came_before(self, work: asyncio.Future[Any]) -> bool:
        """True if a signal came before `work` was done; it is cancelled then."""
        asked = asyncio.ensure_future(self.asked.wait())
        await asyncio.wait((asked, work), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if work.done():
            return False
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return True


def _too_early() -> None:
    log.warning("SIGHUP: nothing is reloaded, the gateway is not ready yet")


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
        self._assembly = assemble(settings, Pools.of(settings.upstreams), place=place)
        self._assembly.gateway.excuse = partial(_excuse, is_restarting)
        self._settings = settings
        super().__init__(self._assembly.gateway, listener, terms, say, self._assembly.lane)
        self._assembly.gateway.guard(self.edge)

    def adopt(self, settings: Settings) -> None:
        """Serve what begins from now on under `settings`. Raises ConfigError: nothing changed."""
        gateway = settings.gateway
        tls_of(gateway)  # a certificate that cannot be used leaves the one in use as it is
        self._assembly.adopt(settings, Pools.of(settings.upstreams))
        self.drain_within(gateway.drain_timeout)
        self.edge.limits = attainable(limits_of(gateway))
        if self.terms.tls is not None:
            read_again(self.terms.tls, gateway.tls_cert, gateway.tls_key)
        set_level(settings)

    def announce(self, url: str) -> None:
        announce(self._settings, url, self.say)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._assembly.gateway.ready = False
        await super().shutdown(sockets)

    async def close(self) -> None:
        """Calls that outlive their answers get what is left of the time; all is flushed."""
        await self.unless_forced(self._assembly.world.close(self.seconds_left))
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


def set_level(settings: Settings) -> None:
    logging.getLogger("thinkonce").setLevel(settings.log.level.upper())


def announce(settings: Settings, url: str, say: Say) -> None:
    """Requests are accepted: say where, and what to try."""
    say(f"thinkonce ready on {url}")
    model = settings.local.model if LOCAL_POOL in settings.upstreams else "MODEL"
    key = "" if model != "MODEL" else ' -H "authorization: Bearer $OPENAI_API_KEY"'
    trust = " --cacert CERTIFICATE" if settings.gateway.tls_cert else ""
    say(
        f"try: curl{trust} {url}/v1/chat/completions -H 'content-type: application/json'{key} "
        f'-d \'{{"model": "{model}", "temperature": 0, "messages": '
        f'[{{"role": "user", "content": "What is the capital of France?"}}]}}\''
    )
