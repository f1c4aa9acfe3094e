"""Runs the gateway: opens, says when it is ready, drains on a signal, leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import msgspec
import uvicorn

from thinkonce.errors import ConfigError
from thinkonce.gateway.app import Gateway
from thinkonce.gateway.assembly import Assembly, assemble
from thinkonce.gateway.local import LocalModel, command_of
from thinkonce.gateway.protocol import protocol_with_limit
from thinkonce.settings import Settings, Upstream
from thinkonce.upstream.pools import Pools

__all__ = ("run",)

log = logging.getLogger("thinkonce")

LOCAL_POOL = "local"
Say = Callable[[str], None]


def run(settings: Settings, *, say: Say | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code, 0 after a clean end.

    `say` gets the lines for whoever started it; by default they are printed. Raises ConfigError.
    """
    if not settings.upstreams and not settings.local.enabled:
        accepts = "--upstream URL for a provider, or --local for a model on this machine"
        raise ConfigError("serve", "no model to ask", accepts)
    if settings.gateway.workers != 1:
        raise ConfigError("workers", settings.gateway.workers, "1: more are not built yet")
    _log_to_stderr(settings)
    listener = _bind(settings.gateway.host, settings.gateway.port)
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(_serve(settings, listener, say or _print))
    finally:
        listener.close()


async def _serve(settings: Settings, listener: socket.socket, say: Say) -> int:
    stopping = _Stopping()
    model: LocalModel | None = None
    with stopping.on_signals():
        try:
            if settings.local.enabled:
                model = LocalModel(lambda port: command_of(settings.local, port), say)
                starting = asyncio.ensure_future(model.start())
                if await stopping.came_before(starting):
                    return 0
                settings = _with_local(settings, await starting)
            assembly = assemble(settings, Pools.of(settings.upstreams))
            try:
                await _Server(assembly, listener, settings, stopping, say).serve()
            finally:
                await assembly.close(settings.gateway.drain_timeout)
        finally:
            if model is not None:
                await model.stop()
    return 0


def _with_local(settings: Settings, url: str) -> Settings:
    """The local model is the last pool: configured ones choose their models first."""
    # Our own server counts its tokens when asked; an estimate would be worse and no cheaper.
    local = Upstream(urls=[f"{url}/v1"], ask_usage=True)
    upstreams = {**settings.upstreams, LOCAL_POOL: local}
    return msgspec.structs.replace(settings, upstreams=upstreams)


class _Stopping:
    """What signals ask for. The first one drains, a second one gives answers up."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.server: uvicorn.Server | None = None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop}
        if hasattr(signal, "SIGHUP"):
            handled[signal.SIGHUP] = _no_reload
        for number, handler in handled.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        if self.server is not None:
            self.server.force_exit = self.asked.is_set()
            self.server.should_exit = True
        self.asked.set()

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


class _Server(uvicorn.Server):
    """uvicorn with our own announcement; signals are ours (it would raise them again)."""

    def __init__(
        self,
        assembly: Assembly,
        listener: socket.socket,
        settings: Settings,
        stopping: _Stopping,
        say: Say,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                assembly.gateway,
                http=protocol_with_limit(settings.gateway.header_limit),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(int(settings.gateway.drain_timeout), 1),
            )
        )
        self._gateway: Gateway = assembly.gateway
        self._listener, self._settings = listener, settings
        self._stopping, self._say = stopping, say
        stopping.server = self

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        if not self._stopping.asked.is_set():
            await super().serve([self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.ready = False
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def _announce(self) -> None:
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{port}"
        self._say(f"thinkonce ready on {url}")
        local = self._settings.local
        model = local.model if LOCAL_POOL in self._settings.upstreams else "MODEL"
        key = "" if model != "MODEL" else ' -H "authorization: Bearer $OPENAI_API_KEY"'
        self._say(
            f"try: curl {url}/v1/chat/completions -H 'content-type: application/json'{key} "
            f'-d \'{{"model": "{model}", "temperature": 0, "messages": '
            f'[{{"role": "user", "content": "What is the capital of France?"}}]}}\''
        )


def _bind(host: str, port: int) -> socket.socket:
    """Bound and not listening yet, so that an address in use is known at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as wrong:
        raise ConfigError("host", host, f"an address of this machine ({wrong})") from wrong
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as wrong:
        listener.close()
        if wrong.errno == errno.EADDRNOTAVAIL:
            raise ConfigError("host", host, f"an address of this machine ({wrong})") from wrong
        accepts = f"a port that is free on {host} ({wrong})"
        raise ConfigError("port", port, accepts) from wrong
    return listener


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _log_to_stderr(settings: Settings) -> None:
    logger = logging.getLogger("thinkonce")
    logger.setLevel(settings.log.level.upper())
    # What an application does with a client that has gone is no error of the server.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


def _print(line: str) -> None:
    print(line, flush=True)
