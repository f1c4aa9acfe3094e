"""Runs the gateway: opens, says when it is ready, drains on a signal, leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import msgspec

from thinkonce.errors import MISSING, ConfigError
from thinkonce.gateway.clients import check_guarded
from thinkonce.gateway.local import END_SECONDS, LocalModel, local_model
from thinkonce.gateway.readiness import (
    LOCAL_POOL,
    complaints,
    local_models,
    open_to_proxies,
    pays,
    unreachable,
)
from thinkonce.gateway.reload import Reload
from thinkonce.gateway.workers.lines import unhindered
from thinkonce.settings import Settings, Upstream
from thinkonce.stores import kind_of
from thinkonce.tiers.store import store_path
from thinkonce.upstream.presence import tell_absent
from thinkonce.web.listener import bind
from thinkonce.web.log_lines import log_to_stderr, write_as
from thinkonce.web.server import Say, let_collector_rest, new_loop, print_line
from thinkonce.web.signals import handling, stopping

__all__ = (
    "Signals",
    "announce",
    "beside_model",
    "check_models",
    "reaching",
    "run",
    "with_local",
    "write_log_as",
)

log = logging.getLogger("thinkonce")


def run(
    settings: Settings, read: Callable[[], Settings] | None = None, say: Say = print_line
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code, 0 after a clean end.

    SIGHUP puts in force what `read` gives then. `say` gets the lines for whoever started it; by
    default they are printed. Raises ConfigError.
    """
    check_models(settings)
    with unhindered(alone=settings.gateway.workers == 1 and not settings.local.enabled):
        log_to_stderr(settings.log.level, form=settings.log.format)
        _check_ready(settings)
        return _run(settings, read or (lambda: settings), say)


def _run(settings: Settings, read: Callable[[], Settings], say: Say) -> int:
    if settings.gateway.workers > 1:
        if os.name != "posix":
            raise ConfigError(
                "workers", settings.gateway.workers, "1; only POSIX systems take more"
            )
        from thinkonce.gateway.workers.parent import run_workers

        return run_workers(settings, read, say)
    listener = bind(settings.gateway.host, settings.gateway.port)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_serve(settings, read, listener, say))
    finally:
        listener.close()


async def _serve(
    settings: Settings, read: Callable[[], Settings], listener: socket.socket, say: Say
) -> int:
    async def alone(asked: Signals, model: LocalModel | None) -> None:
        # Not above: the parent of several workers needs nothing of it.
        from thinkonce.gateway.server import GatewayServer

        complete = partial(with_local, model)
        is_restarting = None if model is None else lambda: model.restarting
        server = GatewayServer(listener, complete(settings), say, is_restarting)
        asked.ends(server)
        adopt = reaching(model, lambda new: server.adopt(complete(new)))
        asked.reload = Reload(settings, read, adopt)
        let_collector_rest()
        try:
            await server.serve()
        finally:
            await server.close()
        say(server.farewell())

    return await beside_model(settings, say, alone)


async def beside_model(
    settings: Settings, say: Say, serve: Callable[[Signals, LocalModel | None], Awaitable[None]]
) -> int:
    """Start the local model where there is to be one, `serve`, and end it; the exit code."""
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
            looking = asyncio.ensure_future(tell_absent(settings.upstreams))
            await serve(asked, model)
            looking.cancel()
        finally:
            if model is not None:
                await model.stop(0.0 if asked.twice else END_SECONDS)
    return 0


def reaching(
    model: LocalModel | None, adopt: Callable[[Settings], None]
) -> Callable[[Settings], None]:
    """`adopt`, and where that held, the local model's server reads its clients again."""

    def adopted(settings: Settings) -> None:
        adopt(settings)
        if model is not None:
            model.reload()

    return adopted


def _check_ready(settings: Settings) -> None:
    """Raises ConfigError before anything is begun, a local model say."""
    for _, wrong in complaints(settings, os.environ):
        if wrong is not None:
            raise wrong
    for name, other in unreachable(settings):
        log.warning(
            "upstream %r is never asked: %r, declared before it, takes every model", name, other
        )


def check_models(settings: Settings) -> None:
    if not settings.upstreams and not settings.local.enabled:
        accepts = "--upstream URL for a provider, or --local for a model on this machine"
        raise ConfigError("a model to ask", MISSING, accepts)
    check_guarded(settings)


def with_local(model: LocalModel | None, settings: Settings) -> Settings:
    """The local model is the last pool: configured ones choose their models first, but its name."""
    check_models(settings)
    if model is None:
        return settings
    # Our own server counts its tokens when asked; an estimate would be worse and no cheaper.
    local = Upstream(
        urls=[f"{model.url}/v1"],
        models=local_models(settings),
        ask_usage=True,
        fallback_model=settings.local.model,
        engine_secret=model.secret,
    )
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


def write_log_as(settings: Settings) -> None:
    """Write what is worth it from now on, as people or programs read it."""
    logging.getLogger("thinkonce").setLevel(settings.log.level.upper())
    write_as(settings.log.format)


def announce(settings: Settings, url: str, say: Say) -> None:
    """Requests are accepted: say where, and what to try."""
    if pays(settings) and (line := open_to_proxies(settings)):
        log.warning("%s", line)  # `doctor` says it where only stored answers could be laid open
    say(f"answers are kept in {_place_of(settings)}")
    say(f"thinkonce ready on {url}")
    model = settings.local.model if LOCAL_POOL in settings.upstreams else "MODEL"
    wants_key = model == "MODEL" or settings.clients
    key = ' -H "authorization: Bearer $OPENAI_API_KEY"' if wants_key else ""
    trust = " --cacert CERTIFICATE" if settings.gateway.tls_cert else ""
    say(
        f"try: curl{trust} {url}/v1/chat/completions -H 'content-type: application/json'{key} "
        f'-d \'{{"model": "{model}", "temperature": 0, "messages": '
        f'[{{"role": "user", "content": "What is the capital of France?"}}]}}\''
    )


def _place_of(settings: Settings) -> str:
    url = settings.store.url
    return kind_of(url).place or str(store_path(url))
