"""uvicorn as both servers run it: own signals, lines that say how far it is, a drained end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import uvicorn

from thinkonce.web.edge import Edge, EdgeLimits
from thinkonce.web.handshake import Handshakes
from thinkonce.web.lane import Lane, protocol_of
from thinkonce.web.listener import url_of

__all__ = (
    "Say", "Server", "Terms", "drains", "let_collector_rest", "new_loop", "print_line", "stopped",
)  # fmt: skip

BACKLOG = 2048
# Objects made less objects freed until the collector looks at the young ones. Requests leave no
# circles behind, so it seldom finds any.
YOUNG_OBJECTS = 10_000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """`drain_seconds` is how long answers under way may take once the end was asked for.

    `tls`: what to serve HTTPS with, None for plain HTTP.
    """

    drain_seconds: float = 30.0
    limits: EdgeLimits = field(default_factory=EdgeLimits)
    tls: ssl.SSLContext | None = None


def print_line(line: str) -> None:
    """To stdout at once; nobody reading it any more is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


class Server(uvicorn.Server):
    """Serves an ASGI application on a bound listener, on one event loop.

    `say` gets the lines for whoever started it. Signals are the caller's: it calls `stop`.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        terms: Terms | None = None,
        say: Say = print_line,
        lane: Lane | None = None,
    ) -> None:
        self.terms = terms or Terms()
        self.edge = Edge(self.terms.limits)
        tls = self.terms.tls
        self._handshakes = None if tls is None else Handshakes(self.edge, tls, self._connection)
        self._listener, self.say = listener, say
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forced = asyncio.Event()
        self._drained_at = math.inf  # by the monotonic clock: when time is up
        self._cut: set[asyncio.Task[None]] = set()  # answers that did not come to their end
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_of(lane, self.edge),
                lifespan="off",
                ws="none",
                log_config=None,
                # What an application does with a client that has gone is no error of the server.
                log_level=logging.CRITICAL,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=math.ceil(self.terms.drain_seconds),
            )
        )

    @property
    def url(self) -> str:
        return url_of(self._listener, "http" if self.terms.tls is None else "https")

    def announce(self, url: str) -> None:
        """Requests are accepted now."""
        self.say(f"ready on {url}")

    def stop(self) -> None:
        """Begin to drain; a second call gives up what is under way.

        From any thread, and from a signal handler.
        """
        again, self.should_exit = self.should_exit, True
        if again:
            self.force_exit = True
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is under way
                    self._loop.call_soon_threadsafe(self._give_up)

    def drain_within(self, seconds: float) -> None:
        """Change how long answers under way may take; not while it drains."""
        self.terms = replace(self.terms, drain_seconds=seconds)
        self.config.timeout_graceful_shutdown = math.ceil(seconds)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until `stop`. What it was asked before that begins, it does not serve at all."""
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await super().serve([self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        url = self.url
        await self.lifespan.startup()
        self.servers = [await self.accept_on(self._listener)]
        self.started = True
        self.announce(url)

    async def accept_on(self, listener: socket.socket) -> asyncio.Server:
        """Accept on a bound socket until what is returned is closed."""
        begin = self._connection if self._handshakes is None else self._handshakes.begin
        return await asyncio.get_running_loop().create_server(begin, sock=listener, backlog=BACKLOG)

    def _connection(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        return cast(
            asyncio.Protocol,
            protocol(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            ),
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        seconds = self.terms.drain_seconds
        self._drained_at = time.monotonic() + seconds
        self.say(drains(len(self.server_state.tasks), seconds))
        if self._handshakes is not None:
            self._handshakes.end()
        await super().shutdown(sockets)
        self._cut |= self.server_state.tasks  # their time is up, and they were cancelled

    @property
    def seconds_left(self) -> float:
        """Of the time to drain; 0 once everything is to be given up."""
        return 0.0 if self.force_exit else max(0.0, self._drained_at - time.monotonic())

    async def unless_forced(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`; a second `stop` cancels it."""
        forced = asyncio.ensure_future(self._forced.wait())
        working = asyncio.ensure_future(work)
        await asyncio.wait((forced, working), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if working.done():
            working.result()
        else:
            working.cancel()
        await asyncio.gather(forced, working, return_exceptions=True)

    def farewell(self) -> str:
        """The last line: what became of the answers under way."""
        if not self.started:
            return "stopped before it was ready"
        return stopped(self.given_up)

    @property
    def given_up(self) -> int:
        """Answers that were cut off at the end."""
        return len(self._cut)

    def _give_up(self) -> None:
        self._forced.set()
        self._cut |= self.server_state.tasks
        for task in self._cut:
            task.cancel("the server was told to stop at once")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: uvicorn would raise them again once it is done, and the process would die."""
        yield


def drains(answers: int, seconds: float) -> str:
    """What is said when the end was asked for."""
    return f"draining: {_answers(answers)} under way, up to {seconds:g} s; again to stop at once"


def stopped(given_up: int) -> str:
    """The last line of a server that had begun."""
    return (
        f"stopped: {_answers(given_up)} given up" if given_up else "stopped: no answer was cut off"
    )


def _answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count} answers"


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def let_collector_rest() -> None:
    """For a process that only serves, once it is ready: what stands by now is not walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
