"""The model behind `serve --local`: a child process, started, watched and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.settings import Kv, Local, Settings
from thinkonce.settings.secret_file import SUFFIX
from thinkonce.web.lifeline import held

__all__ = ("END_SECONDS", "LocalModel", "command_of", "local_model")

log = logging.getLogger("thinkonce")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a model that died is started again
END_SECONDS = 10.0
_SECRET = "THINKONCE_KV_GATEWAY_SECRET"
_READY = re.compile(r"ready on (http://\S+)")


def command_of(local: Local, port: int = 0) -> list[str]:
    """What starts the model's server. Port 0: it takes a free one and says which."""
    module = [sys.executable, "-m", "thinkonce", "serve-model"]
    limits = ["--threads", str(local.threads), "--queue", str(local.queue)]
    kind = ["--dtype", local.dtype, "--device", local.device]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    # The gateway has a line for each request already.
    return [*module, local.model, *address, *kind, *limits, "--quiet"]


class LocalModel:
    """Supervises one child on one event loop; the child ends with this process.

    `command` starts it on a port (0: any free one), `say` gets the lines a person at the
    terminal should see, and `pause` waits some seconds before it is started again.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        say: Callable[[str], None] = print,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`environ`: what its environment has besides this process's."""
        self._environ = environ
        self._command, self._say, self._pause = command, say, pause
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.url = ""
        self.secret = secrets.token_hex(32)  # the model takes the tenant's name from us alone
        self.restarts = 0
        self.restarting = False  # from its death until it answers again
        self.changed: Callable[[], object] = lambda: None  # told when `restarting` changes

    async def start(self) -> str:
        """Start it and wait until it answers; its base URL. Raises ConfigError if it cannot."""
        self._say("starting the local model ...")
        if not await self._spawn(0):
            assert self._process is not None
            code = await self._process.wait()
            accepts = "a model whose server starts; the line above says why this one did not"
            raise ConfigError("the local model", f"exit code {code}", accepts)
        self._keeper = asyncio.create_task(self._keep())
        self._say(f"the local model is on {self.url} (for `thinkonce kv ... --url`)")
        return self.url

    def reload(self) -> None:
        """Have it read again who its clients are, as this process did."""
        if hasattr(signal, "SIGHUP") and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def stop(self, seconds: float = END_SECONDS) -> None:
        """End it; it gets `seconds` to do so by itself."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), seconds)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _spawn(self, port: int) -> bool:
        """True once it is ready; False if it ended before."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command(port),
            stdin=asyncio.subprocess.PIPE,  # held open: its end is ours
            stdout=asyncio.subprocess.PIPE,
            env={
                **{name: value for name, value in os.environ.items() if name != _SECRET + SUFFIX},
                **self._environ,
                **held(),
                _SECRET: self.secret,
                "PYTHONUNBUFFERED": "1",
            },
            # Ctrl-C reaches the gateway alone, which ends the model when answers are out.
            start_new_session=True,
        )
        output = self._process.stdout
        assert output is not None
        while line := (await output.readline()).decode(errors="replace").rstrip():
            if ready := _READY.search(line):
                self.url = ready[1]
                return True
            self._say(line)
        return False

    async def _keep(self) -> None:
        """Start it again, on the same port, whenever it dies."""
        port = int(self.url.rpartition(":")[2])
        pause = FIRST_PAUSE
        while True:
            assert self._process is not None
            started = asyncio.get_running_loop().time()
            code = await self._drained()
            self._is_restarting(True)
            if asyncio.get_running_loop().time() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.error("the local model exited %s; it is started again in %.1f s", code, pause)
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            self.restarts += 1
            if await self._spawn(port):
                self._is_restarting(False)
                log.warning("the local model is back on %s", self.url)

    def _is_restarting(self, restarting: bool) -> None:
        self.restarting = restarting
        self.changed()

    async def _drained(self) -> int:
        """Its exit code, once it is gone; what it prints meanwhile is read, so it never blocks."""
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._say(line.decode(errors="replace").rstrip())
        return await self._process.wait()


def local_model(settings: Settings, say: Callable[[str], None]) -> LocalModel:
    """The one that `settings` name, whose lines are written as the gateway's."""
    environ = {
        "THINKONCE_LOG_FORMAT": settings.log.format,
        "THINKONCE_LOCAL_QUEUE_TOKENS": str(settings.local.queue_tokens),
        "THINKONCE_LOCAL_DEADLINE": str(settings.local.deadline),
        **_kv_environ(settings.kv),
    }
    if settings.kv.store:  # what is written there is sealed as the gateway's own store is
        store = settings.store
        keys = {"": store.encryption_key, "_FILE": store.encryption_key_file}
        environ |= {f"THINKONCE_STORE_ENCRYPTION_KEY{end}": key for end, key in keys.items() if key}
    return LocalModel(partial(command_of, settings.local), say, environ=environ)


def _kv_environ(kv: Kv) -> dict[str, str]:
    """All that [kv] says but the secret, which is made for each model that is started."""
    said = msgspec.structs.asdict(kv)
    del said["gateway_secret"]
    told = {f"THINKONCE_KV_{name.upper()}": _as_text(value) for name, value in said.items()}
    return {name: text for name, text in told.items() if text}


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
