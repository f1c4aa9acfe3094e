"""A way past the application for requests whose head came before, byte for byte.

A head that the HTTP parser has taken once means the same every time, so a request that begins
with it needs no parser to find where it ends: the head is looked up, its length says how much body
follows, and the lane is asked. What it has read and cannot answer goes to the application as if the
parser had taken it; anything else is given to the parser, from the first byte, as if there were no
lane.

    bytes ──► known? ──────────────────────────────► lane.again ──► one write
                │ no                                     │ nothing
                ▼                                        ▼
              head known? ──► body whole? ──► lane.answer ──► one write
                │ no            (waits)         │     └─ what it read ──► application
                └──────────────► parser ◄───────┘ nothing
"""

from __future__ import annotations

from asyncio import Event
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from thinkonce.web.at_once import CYCLE
from thinkonce.web.edge import Edge
from thinkonce.web.exchange import READ
from thinkonce.web.protocol import LimitedProtocol

__all__ = ("Door", "Lane", "LaneProtocol", "protocol_of")

HEAD_END = b"\r\n\r\n"
HEAD_END_BYTES = len(HEAD_END)
MAX_HEAD = 16 * 1024  # bytes; larger heads are not worth remembering
MAX_WHOLE = 16 * 1024  # bytes; larger requests are known by their head and their body


class Door(Protocol):
    """A head that came before. `length`: bytes of the body that follows it.

    `scope` is what of an ASGI scope follows from the head alone, the connection aside; `state`
    goes into that scope's.
    """

    length: int
    scope: dict[str, Any]
    state: dict[str, Any]


class Lane(Protocol):
    """Belongs to one event loop."""

    def door(self, head: bytes) -> Door | None:
        """For a head that came before, its blank line included."""
        ...

    def learn(self, head: bytes, scope: Any) -> None:
        """`head` was taken by the parser, which made `scope` of it."""
        ...

    def answer(
        self, door: Any, body: bytes, default_headers: list[tuple[bytes, bytes]]
    ) -> bytes | object | None:
        """A whole answer in bytes, for a connection that stays open; else what was made of the

        request, for the application to go on with, or None.
        """
        ...

    @property
    def known(self) -> Callable[[bytes], Any | None]:
        """What is known of a whole request that came before: what `again` takes.

        The same callable for ever.
        """
        ...

    def again(self, known: Any, default_headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """A whole answer to it as `answer` gives it; None: find its head first."""
        ...

    def remember(self, request: bytes, door: Any, body: bytes) -> None:
        """`request`, of this head and this body, was answered."""
        ...


class LaneProtocol(LimitedProtocol):
    """uvicorn's protocol with `lane` in front of its parser. Relies on names private to uvicorn."""

    lane: Lane
    _door: Door | None = None  # of a request whose body is on its way
    _pieces: list[bytes]
    _known: Callable[[bytes], Any | None]
    _again: Callable[[Any, list[tuple[bytes, bytes]]], bytes | None]
    _write: Callable[[bytes], None]
    _is_closing: Callable[[], bool]
    _time: Callable[[], float]
    _missing = _held = 0  # bytes
    _used_at = 0.0  # loop time of the last answer out of the lane
    _learnable = b""  # the head that the parser is about to take

    def connection_made(self, transport: Any) -> None:
        # Each request looks at these: found on the object itself, they take half the time.
        self._door, self._between = None, True
        self._known, self._again = self.lane.known, self.lane.again
        self._write, self._is_closing = transport.write, transport.is_closing
        self._time = self.loop.time
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """In one function what a request that came before needs, `_is_clear` and `_send` as well:

        calls took as long as all that is done in them. A callable is taken off its object before
        it is called, for the same reason: so CPython 3.11 looks for it once.
        """
        if self._door is not None:
            data = self._with_the_rest(data)
            if not data:
                return
        if len(data) <= MAX_WHOLE:
            find, again, is_closing = self._known, self._again, self._is_closing
            known = find(data)
            if known is not None and self._between and not self.flow.write_paused:
                cycle = self.cycle
                if (cycle is None or cycle.response_complete) and not is_closing():
                    state = self.server_state
                    answer = again(known, state.default_headers)
                    if answer is not None:
                        write, time = self._write, self._time
                        write(answer)
                        state.total_requests += 1
                        self._used_at = time()
                        if self.timeout_keep_alive_task is None:
                            self._wait_idle(self.timeout_keep_alive)
                        return
        self._find_heads(data)

    def _find_heads(self, data: bytes) -> None:
        lane, headers = self.lane, self.server_state.default_headers
        while data and self._is_clear():
            end = data.find(HEAD_END, 0, MAX_HEAD) + HEAD_END_BYTES
            door = lane.door(data[:end])  # without an end: a few bytes, which are no known head
            if door is None:
                break
            rest = end + door.length
            if rest > len(data):
                if not self.edge.bodies.take(len(data)):
                    break  # the application says that there is no room
                self._wait_for_body(door, data, rest - len(data))
                return
            body = data[end:rest]
            answer = lane.answer(door, body, headers)
            if answer is None:
                break
            if not isinstance(answer, bytes):
                self._begin(door, body, answer)
                data = data[rest:]
                break
            self._send(answer)
            if rest == len(data) <= MAX_WHOLE:
                lane.remember(data, door, body)
            data = data[rest:]
        if data:
            self._parse(data)

    def _send(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._used_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_idle(self.timeout_keep_alive)

    def _begin(self, door: Door, body: bytes, read: object) -> None:
        """Have the application answer a request, as the parser does that has taken its head.

        `read` is what the lane made of it.
        """
        self._unset_keepalive_if_required()
        self._began = 0.0
        state = {**self.app_state, **door.state, READ: read}
        scope = {
            **door.scope,
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "state": state,
        }
        self.scope = cast(Any, scope)
        self.cycle = cycle = RequestResponseCycle(
            scope=self.scope,
            transport=cast(Any, self.transport),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        cycle.body, cycle.more_body = cast(Any, body), False
        cycle.message_event.set()
        state[CYCLE] = cycle
        self._start_asgi_task(cycle, self.app)

    def _is_clear(self) -> bool:
        """Whether no earlier answer is under way, and the client reads what it is sent."""
        return (
            self._between
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _parse(self, data: bytes) -> None:
        if self._between:
            end = data.find(HEAD_END, 0, MAX_HEAD) + len(HEAD_END)
            self._learnable = data[:end] if end >= len(HEAD_END) else b""
        super().data_received(data)
        self._learnable = b""  # it is of the first request in `data`

    # -- a body on its way ---------------------------------------------------------------

    def _with_the_rest(self, data: bytes) -> bytes:
        """The request whose body is on its way, and what came behind it; b"": there is more."""
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0 and self.edge.bodies.take(len(data), self._held):
            self._held += len(data)
            return b""
        self._began = 0.0
        return self._let_go()

    def _wait_for_body(self, door: Door, data: bytes, missing: int) -> None:
        self._unset_keepalive_if_required()
        self._door, self._pieces, self._missing = door, [data], missing
        self._held = len(data)
        self._began, self._came = 0.0, 0
        self._await_rest()

    def _let_go(self) -> bytes:
        """What came of the request so far."""
        data = b"".join(self._pieces)
        self._door, self._pieces = None, []
        self.edge.bodies.give_back(self._held)
        self._held = 0
        return data

    def _end_late(self) -> None:
        if self._door is not None:  # who has asked is told in the words of the application
            self._parse(self._let_go())
        super()._end_late()

    # -- the parser's side ---------------------------------------------------------------

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._learnable:
            learnable, self._learnable = self._learnable, b""
            self.lane.learn(learnable, self.scope)

    # -- the connection ------------------------------------------------------------------

    def _wait_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        left = self._used_at + self.timeout_keep_alive - self.loop.time()
        if self._used_at and left > 0:  # one timer for many answers, moved when it goes off
            self._wait_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._door is not None:  # the request has begun: it gets its answer
            self._parse(self._let_go())
        super().shutdown()

    def connection_lost(self, error: Exception | None) -> None:
        if self._door is not None:
            self._let_go()
        super().connection_lost(error)


def protocol_of(lane: Lane | None, edge: Edge) -> type[LimitedProtocol]:
    """The class to give to uvicorn."""
    if lane is None:
        return type("Limited", (LimitedProtocol,), {"edge": edge})
    return type("WithLane", (LaneProtocol,), {"edge": edge, "lane": lane})
