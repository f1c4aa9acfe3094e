"""Runs the model server: binds, loads, says when it is ready, drains on a signal."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import transformers

from thinkonce.errors import ConfigError
from thinkonce.kv.engine import KvEngine, open_engine, sequences_of
from thinkonce.kv.modules.folder import schemas_in
from thinkonce.kv.modules.registry import Schemas
from thinkonce.kv.prefix.public import PublicPrefixes
from thinkonce.kv.serving.admin.public import public_prefixes, read_public_ahead
from thinkonce.kv.serving.app import ModelApp
from thinkonce.kv.serving.clients import ANYBODY, Access, Clients
from thinkonce.kv.serving.intake import ModelLimits
from thinkonce.kv.serving.line.auditing import Auditing
from thinkonce.kv.serving.line.heap import give_blocks_back
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.owners import Owners
from thinkonce.kv.weights.model import Model, load
from thinkonce.kv.weights.packaged import Progress
from thinkonce.settings import Client, Kv
from thinkonce.tiers.keyring import NO_KEYS, Keyring
from thinkonce.web.access import is_loopback
from thinkonce.web.listener import bind
from thinkonce.web.server import Say, Server, Terms, let_collector_rest, new_loop, print_line
from thinkonce.web.signals import handling, reloading, stopping

__all__ = ("ModelServer", "run")

_logger = logging.getLogger("thinkonce.kv")


class _Stopped(BaseException):
    """A signal came before the server was ready; nothing has to be drained."""


def run(
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8001,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    threads: int = 0,
    max_waiting: int = 16,
    max_waiting_tokens: int = 262_144,
    deadline: float = 0.0,
    kv: Kv | None = None,
    keys: Keyring = NO_KEYS,
    gateway_secret: str = "",
    access: Access = ANYBODY,
    read_access: Callable[[], Access] | None = None,
    limits: ModelLimits | None = None,
    drain_seconds: int = 30,
    access_log: bool = False,
    progress: Progress | None = None,
    say: Say = print_line,
) -> int:
    """Serve one model until SIGTERM or SIGINT; returns the exit code, 0 after a clean end.

    `model` is a packaged model's name, a directory, or None for the packaged default; `port` 0
    takes a free one. `dtype` and `device` are those of `load`; `threads` are torch's, 0 leaves
    its choice, which is all cores.
    `max_waiting` requests, with prompts of `max_waiting_tokens`, may wait besides those that are
    answered, by turns, and are given up `deadline` seconds after they came, 0: never. `kv` says
    what is kept of prompts, `keys` what seals it on disk; `gateway_secret` is that of the
    gateway which started this server. `access` says who may ask and administer; SIGHUP puts in
    force what `read_access` gives then, and what that raises leaves everything as it was. The first
    signal lets running and waiting answers finish, at most `drain_seconds`; a second one gives
    them up. `say` gets the lines for whoever started it: the first says that requests are
    accepted, one that the end was asked for, and the last what came of it. By default they are
    printed.

    Raises ConfigError for a model, an address or a number that cannot work.
    """
    _not_negative(threads=threads, max_waiting=max_waiting, drain_seconds=drain_seconds)
    if access_log:
        _log_to_stderr()
    give_blocks_back()
    listener, again = bind(host, port), threading.Event()
    with handling(reloading(again.set)):
        try:
            with handling(stopping(_stop)), _closed_on_failure(listener):
                loaded = _loaded(model, dtype, device, threads, progress)
                engine, public, schemas = _opened(loaded, kv or Kv(), keys)
        except _Stopped:
            say("stopped before it was ready")
            return 0
        scheduler = Scheduler(
            max_waiting,
            sequences=sequences_of(engine, kv or Kv()),
            max_tokens=max_waiting_tokens,
            deadline=deadline,
            spare=Auditing(engine),
        )
        let_collector_rest()  # it would walk all that torch is, again and again, for a large body
        app = ModelApp(
            loaded,
            engine,
            scheduler,
            owners=_owners(gateway_secret, engine.owners_key, host, access.clients),
            admin_token=access.admin_token,
            limits=limits,
            schemas=schemas,
            access_log=access_log,
        )
        read_public_ahead(engine, scheduler, public)
        server = ModelServer(app, listener, drain_seconds, say, read_access or (lambda: access))
        if again.is_set():  # asked for while the model was loaded
            server.reload()
        server.serve_until_stopped()
        engine.close()
    return 0


@contextmanager
def _closed_on_failure(listener: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listener.close()
        raise


class _Opened(NamedTuple):
    engine: KvEngine
    public: PublicPrefixes
    schemas: Schemas


def _opened(model: Model, kv: Kv, keys: Keyring) -> _Opened:
    public = public_prefixes(model, kv.public)
    schemas = schemas_in(kv.schemas, model.tokenizer, model.context_tokens)
    engine = open_engine(model, kv, keys=keys)
    engine.publish(public)
    return _Opened(engine, public, schemas)


def _owners(secret: str, key: bytes, host: str, clients: Mapping[str, Client]) -> Owners:
    is_local = is_loopback(host)
    if not (clients or secret or is_local):
        _logger.warning("whoever reaches %s may use this model: `thinkonce keys add NAME`", host)
    return Owners(secret, key, is_local=is_local, clients=Clients(clients))


def _loaded(
    name: str | None, dtype: str, device: str, threads: int, progress: Progress | None
) -> Model:
    # It says in a line of its own that a prompt is too long; whoever asked is told that by us.
    transformers.logging.set_verbosity_error()
    model = load(name, dtype=dtype, device=device, progress=progress)
    if threads:
        torch.set_num_threads(threads)
    return model


class ModelServer(Server):
    """Serves one model; ends what is made for answers that are given up."""

    def __init__(
        self,
        app: ModelApp,
        listener: socket.socket,
        drain_seconds: float,
        say: Say = print_line,
        read_access: Callable[[], Access] = Access,
    ) -> None:
        super().__init__(app, listener, Terms(drain_seconds), say)
        self._app, self._read_access = app, read_access

    def announce(self, url: str) -> None:
        self.say(f"thinkonce model ready on {url}")

    def serve_until_stopped(self) -> None:
        """Serve; returns once every answer has been sent or given up."""
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                loop = runner.get_loop()
                again = reloading(lambda: loop.call_soon_threadsafe(self.reload))
                with handling(stopping(self.stop) | again):
                    runner.run(self.serve())
        finally:
            self._app.scheduler.cancel_all()
            self._app.scheduler.close()
            self._app.close()
        self.say(self.farewell())

    def reload(self) -> None:
        """Read who may ask and administer again. On the event loop, or before it runs."""
        try:
            access = self._read_access()
        except ConfigError as wrong:
            _logger.error("SIGHUP: clients stay as they were: %s", wrong)  # noqa: TRY400 - a line, not a trace
            return
        except Exception:
            _logger.exception("SIGHUP: clients stay as they were")
            return
        self._app.admit(access)
        known = len(access.clients)
        _logger.info("SIGHUP: %d clients are known; all else is read at the start", known)

    def stop(self) -> None:
        self._app.scheduler.end_ahead()
        if self.should_exit:
            self._app.scheduler.cancel_all()
        super().stop()


def _stop() -> None:
    raise _Stopped


def _not_negative(**settings: float) -> None:
    for setting, value in settings.items():
        if value < 0:
            raise ConfigError(setting, value, "0 or more")


def _log_to_stderr() -> None:
    access = logging.getLogger("thinkonce.kv.access")
    if not access.isEnabledFor(logging.INFO):
        access.setLevel(logging.INFO)
    if not access.hasHandlers():
        access.addHandler(logging.StreamHandler(sys.stderr))
