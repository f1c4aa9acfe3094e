"""Runs the gateway: opens, says when it is ready, drains on a signal, leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

import msgspec

from thinkonce.errors import MISSING, ConfigError
from thinkonce.gateway.assembly import Assembly, assemble
from thinkonce.gateway.local import END_SECONDS, LocalModel, command_of
from thinkonce.settings import Settings, Upstream
from thinkonce.upstream.pools import Pools
from thinkonce.web.listener import bind
from thinkonce.web.server import Say, Server, Terms, new_loop, print_line
from thinkonce.web.signals import handling, stopping

__all__ = ("run",)

log = logging.getLogger("thinkonce")

LOCAL_POOL = "local"


def run(settings: Settings, *, say: Say = print_line) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code, 0 after a clean end.

    `say` gets the lines for whoever started it; by default they are printed. Raises ConfigError.
    """
    if not settings.upstreams and not settings.local.enabled:
        accepts = "--upstream URL for a provider, or --local for a model on this machine"
        raise ConfigError("a model to ask", MISSING, accepts)
    if settings.gateway.workers != 1:
        raise ConfigError("workers", settings.gateway.workers, "1; more are not built yet")
    _log_to_stderr(settings)
    listener = bind(settings.gateway.host, settings.gateway.port)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_serve(settings, listener, say))
    finally:
        listener.close()


async def _serve(settings: Settings, listener: socket.socket, say: Say) -> int:
    asked = _Stopping()
    model: LocalModel | None = None
    with handling(asked.handlers()):
        try:
            if settings.local.enabled:
                model = LocalModel(lambda port: command_of(settings.local, port), say)
                starting = asyncio.ensure_future(model.start())
                if await asked.came_before(starting):
                    say("stopped before it was ready")
                    return 0
                settings = _with_local(settings, await starting)
            server = _Server(
                assemble(settings, Pools.of(settings.upstreams)), listener, settings, say
            )
            asked.ends(server)
            try:
                await server.serve()
            finally:
                await server.close()
            say(server.farewell())
        finally:
            if model is not None:
                await model.stop(0.0 if asked.twice else END_SECONDS)
    return 0


def _with_local(settings: Settings, url: str) -> Settings:
    """The local model is the last pool: configured ones choose their models first."""
    # Our own server counts its tokens when asked; an estimate would be worse and no cheaper.
    local = Upstream(urls=[f"{url}/v1"], ask_usage=True)
    upstreams = {**settings.upstreams, LOCAL_POOL: local}
    return msgspec.structs.replace(settings, upstreams=upstreams)


class _Stopping:
    """What signals ask for: to drain, and then to stop at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.asked = asyncio.Event()
        self.twice = False
        self.server: Server | None = None

    def handlers(self) -> dict[int, Callable[[], object]]:
        found = stopping(partial(self._loop.call_soon_threadsafe, self._stop))
        if hasattr(signal, "SIGHUP"):
            found[signal.SIGHUP] = partial(self._loop.call_soon_threadsafe, _no_reload)
        return found

    def ends(self, server: Server) -> None:
        """Pass on what is asked for from now on, and what was meanwhile."""
        self.server = server
        if self.asked.is_set():
            server.stop()

    def _stop(self) -> None:
        self.twice = self.asked.is_set()
        self.asked.set()
        if self.server is not None:
            self.server.stop()

    async def came_before(self, work: asyncio.Future[str]) -> bool:
        """True if a signal came before `work` was done; it is cancelled then."""
        asked = asyncio.ensure_future(self.asked.wait())
        await asyncio.wait((asked, work), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if work.done():
            return False
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return True


def _no_reload() -> None:
    log.warning("SIGHUP: reloading the configuration is not built yet; restart to change it")


class _Server(Server):
    """Serves one gateway, and says what to try."""

    def __init__(
        self, assembly: Assembly, listener: socket.socket, settings: Settings, say: Say
    ) -> None:
        gateway = settings.gateway
        terms = Terms(gateway.drain_timeout, gateway.header_limit, "[gateway] header_limit")
        super().__init__(assembly.gateway, listener, terms, say)
        self._assembly, self._settings = assembly, settings

    def announce(self, url: str) -> None:
        self.say(f"thinkonce ready on {url}")
        local = self._settings.local
        model = local.model if LOCAL_POOL in self._settings.upstreams else "MODEL"
        key = "" if model != "MODEL" else ' -H "authorization: Bearer $OPENAI_API_KEY"'
        self.say(
            f"try: curl {url}/v1/chat/completions -H 'content-type: application/json'{key} "
            f'-d \'{{"model": "{model}", "temperature": 0, "messages": '
            f'[{{"role": "user", "content": "What is the capital of France?"}}]}}\''
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._assembly.gateway.ready = False
        await super().shutdown(sockets)

    async def close(self) -> None:
        """Calls that outlive their answers get what is left of the time; all is flushed."""
        await self.unless_forced(self._assembly.world.close(self.seconds_left))
        await self._assembly.close(0.0)


def _log_to_stderr(settings: Settings) -> None:
    logger = logging.getLogger("thinkonce")
    logger.setLevel(settings.log.level.upper())
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
