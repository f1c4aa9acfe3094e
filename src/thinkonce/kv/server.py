"""Runs the model server: binds, loads, says when it is ready, drains on a signal."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import torch
import uvicorn

from thinkonce.errors import ConfigError
from thinkonce.kv.app import Limits, ModelApp
from thinkonce.kv.model import load
from thinkonce.kv.packaged import Progress
from thinkonce.kv.plain import PlainGenerator
from thinkonce.kv.scheduler import Scheduler

__all__ = ("ModelServer", "bind", "run")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """A signal came before the server was ready; nothing has to be drained."""


def run(
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8001,
    *,
    dtype: str = "auto",
    threads: int = 0,
    max_waiting: int = 16,
    limits: Limits | None = None,
    drain_seconds: int = 30,
    access_log: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Serve one model until SIGTERM or SIGINT; returns the exit code, 0 after a clean end.

    `model` is a packaged model's name, a directory, or None for the packaged default; `port` 0
    takes a free one. `threads` are torch's, 0 leaves its choice, which is all cores.
    `max_waiting` requests may wait besides the one that is answered. The first signal lets
    running and waiting answers finish, at most `drain_seconds`; a second one gives them up.
    `announce` gets the one line that says the server accepts requests; by default it is printed.

    Raises ConfigError for a model, an address or a number that cannot work.
    """
    _at_least("threads", threads, 0)
    _at_least("max_waiting", max_waiting, 0)
    _at_least("drain_seconds", drain_seconds, 0)
    if access_log:
        _log_to_stderr()
    listener = bind(host, port)
    try:
        with _signals(_stop):
            loaded = load(model, dtype=dtype, progress=progress)
    except BaseException as ended:
        listener.close()
        if isinstance(ended, _Stopped):
            return 0
        raise
    if threads:
        torch.set_num_threads(threads)
    scheduler = Scheduler(max_waiting)
    generator = PlainGenerator(loaded.network, loaded.end_ids)
    app = ModelApp(loaded, generator, scheduler, limits=limits, access_log=access_log)
    ModelServer(app, listener, drain_seconds, announce or _print).serve_until_stopped()
    return 0


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that an address in use is known at once."""
    if not 0 <= port <= 65_535:
        raise ConfigError("port", port, "0 (any free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as wrong:
        raise ConfigError(
            "host", f"{host}:{port}", f"an address of this machine ({wrong})"
        ) from wrong
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as taken:
        listener.close()
        raise ConfigError("port", port, f"a port that is free on {host} ({taken})") from taken
    return listener


class ModelServer(uvicorn.Server):
    """uvicorn with our own announcement, and an end by signal that counts as success."""

    def __init__(
        self,
        app: ModelApp,
        listener: socket.socket,
        drain_seconds: int,
        announce: Callable[[str], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=drain_seconds,
            )
        )
        self._app, self._listener, self._announce = app, listener, announce

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def serve_until_stopped(self) -> None:
        """Serve; returns once every answer has been sent or given up."""
        try:
            self.run(sockets=[self._listener])
        finally:
            self._app.scheduler.cancel_all()
            self._app.scheduler.close()
            self._app.close()

    def stop(self) -> None:
        """Begin to drain; a second call gives up what is running."""
        if self.should_exit:
            self.force_exit = True
            self._app.scheduler.cancel_all()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        url = self.url
        await super().startup(sockets)
        if self.started:
            self._announce(f"thinkonce model ready on {url}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again once it is done, and the process would die of it.
        with _signals(lambda number, frame: self.stop()):
            yield


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Answer the stop signals with `handler`; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _at_least(setting: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(setting, value, f"{least} or more")


def _log_to_stderr() -> None:
    access = logging.getLogger("thinkonce.kv.access")
    access.setLevel(logging.INFO)
    if not access.hasHandlers():
        access.addHandler(logging.StreamHandler(sys.stderr))


def _print(line: str) -> None:
    print(line, flush=True)
