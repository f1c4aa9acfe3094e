"""uvicorn's HTTP protocol within limits, and a way to answer in one write.

httptools would collect a head for ever, and uvicorn would wait for it as long; see `web.edge` for
what bounds both. And where an answer is complete, uvicorn's own way (two messages, two checks of
every header) costs more than finding it: applications are offered another in the scope's `state`,
and use the usual one where it is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from thinkonce.web.at_once import CYCLE
from thinkonce.web.edge import BYTES_A_SECOND, LEAST_TAKEN, Edge
from thinkonce.web.exchange import BROKEN, OVERSIZED, HttpError, oversized_head

__all__ = ("LimitedProtocol",)

# What a body in chunks may take besides its content: sizes, extensions, trailers. Bytes, and as
# many more for each byte of content (a chunk of one byte takes five).
FRAMING, FRAMING_A_BYTE = 64 * 1024, 8
# How many of those bytes may come with no byte of content between them: trailers have none.
BARE = 64 * 1024
# Requests that wait on a connection for the answers before theirs; those behind them stay bytes
# until some of these are answered. So many bytes are parsed at a time, which may hold more.
MOST_PIPELINED = 64
SLICE = 16 * 1024
MOST_DIGITS = 20  # of a length; the parser takes any number of zeros in front of it, `int` does not
# What a connection that was refused when it came has to take its answer and go.
LINGER_SECONDS = 0.5


class LimitedProtocol(HttpToolsProtocol):
    """Holds a connection to the limits of its `edge`.

    A request that is too large or too slow is answered by the application, in its own error shape,
    once its head has come; before that it is refused here.
    """

    edge: Edge
    when_gone: Callable[[], None] | None = None  # see `at_once.tell_when_gone`
    rest = b""  # what came behind the head of a request that asks for another protocol
    _body_left = 0  # bytes of such a request's body that are still to come
    _open_head = 0  # bytes of a head that has not ended yet
    _suspect = False  # so much came that its head may be too large
    _ended = False  # the latest bytes held the end of a request
    _between = True  # the parser waits for the first byte of a request
    _draining = False  # the connection ends with the answer to the request under way
    _peer = ""
    _entered = False  # it counts as one of the edge's connections
    _refused = False
    # Of the request that is on its way: when its first byte came (loop time; 0: none is), and
    # what came of it: of all bytes, of content, and as the timer saw it last.
    _began = 0.0
    _came = _content = _seen = 0
    _reading: _Reading
    _later = b""  # came behind as many requests as may wait
    _bare = 0  # bytes of its body's framing since the last of its content
    _request_timer: Any = None
    _write_timer: Any = None
    _linger_timer: Any = None
    _unsent = 0  # bytes that waited for the client as the timer saw it last

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)

    # -- the connection ------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = self._reading = _Reading(transport)
        self.timeout_keep_alive = cast(Any, self.edge.limits.idle_timeout)
        self._peer = _peer_of(self.client)
        if refusal := self.edge.enter(self._peer):
            self._refuse(refusal)
            # Over TLS, closing waits half a minute for the client to agree.
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, transport.abort)
            return
        self._entered = True
        # uvicorn would wait for ever for a client that says nothing.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, error: Exception | None) -> None:
        if self._entered:
            self.edge.leave(self._peer)
        for timer in (self._request_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._request_timer = self._write_timer = self._linger_timer = None
        self._unset_keepalive_if_required()
        super().connection_lost(error)
        told, self.when_gone = self.when_gone, None
        if told is not None:
            told()

    def shutdown(self) -> None:
        """A request of which a part has come gets its answer, within its time."""
        has_begun = self._began and not self._between
        if has_begun and (self.cycle is None or self.cycle.response_complete):
            self._draining = True
        else:
            super().shutdown()

    # -- what comes ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._later or len(self.pipeline) >= MOST_PIPELINED:
            self._later += data
            self._reading.hold()
            return
        while data := self._without_body(data):
            self._feed(data[:SLICE])
            data, self.rest = self.rest + data[SLICE:], b""
            if data and len(self.pipeline) >= MOST_PIPELINED:
                self._later, data = data, b""
                self._reading.hold()
        if not self._between or (self.cycle is None or self.cycle.response_complete):
            self._await_rest()
        else:
            self._began = 0.0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._later and len(self.pipeline) < MOST_PIPELINED // 2:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Read what came behind requests that are answered by now."""
        data, self._later = self._later, b""
        if data and not self.transport.is_closing():
            self._reading.let_go()
            self.data_received(data)

    def _feed(self, data: bytes) -> None:
        received, content = self._open_head + len(data), self._content
        continued = None if self._open_head else self.scope
        self._suspect, self._ended = received > self.edge.limits.header_limit, False
        self._came += len(data)
        super().data_received(data)
        if self.scope is not None and "method" in self.scope:
            self._open_head = 0
            if not self._between:
                is_bare = self.scope is continued and self._content == content
                self._bare = self._bare + len(data) if is_bare else 0
                self._check_framing()
            return
        # Behind a whole request it is unknown where this head began: count what is parsed.
        self._open_head = _size(self.headers) if self._ended else received
        if self._open_head > self.edge.limits.header_limit and not self.transport.is_closing():
            self._refuse(self._refusal())

    def on_message_begin(self) -> None:
        self._between = False
        self._began, self._came, self._content, self._seen, self._bare = 0.0, 0, 0, 0, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        state: dict[str, Any] = cast(Any, self.scope)["state"]
        if self._suspect and _size(self.headers) > self.edge.limits.header_limit:
            state[OVERSIZED] = self._refusal
        _check_framing_of(self.headers)
        if not self.url.startswith(b"/"):
            self.headers[:] = _with_authority(self.url, self.headers)
        super().on_headers_complete()
        state[CYCLE] = self.cycle
        if self._draining:
            self.cycle.keep_alive = False
        if self.parser.should_upgrade():
            self._body_left = _length_of(self.headers)
        # What comes from here on are trailers. They are read by nobody: merged into the headers,
        # they could name another credential than was looked at (RFC 9110, 6.5.1).
        self.headers = _UNREAD

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._body_left:
            self._ended = self._between = True
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_bad("not HTTP: the request cannot be parsed"))

    def _check_framing(self) -> None:
        """Chunks' extensions and trailers are read by nobody: no limit of the parser's holds."""
        around = self._came - self._content - self.edge.limits.header_limit
        too_much = around > FRAMING + FRAMING_A_BYTE * self._content or self._bare > BARE
        if too_much and not self.transport.is_closing():
            self._refuse(_bad("body: its chunks take much more room than what is in them"))

    def _without_body(self, data: bytes) -> bytes:
        """`data` less what of it is the body of a request that asked for another protocol.

        Such a request is answered as if it had not asked (RFC 9110, 7.8), but the parser knows no
        body of it and would take it for the next request.
        """
        body, data = data[: self._body_left], data[self._body_left :]
        if body:
            self._body_left -= len(body)
            self.on_body(body)
            if not self._body_left:
                self.on_message_complete()
        return data

    def _refusal(self) -> HttpError:
        limits = self.edge.limits
        return oversized_head(limits.header_limit, limits.header_setting)

    def _refuse(self, error: HttpError) -> None:
        """Take nothing more. The answer goes behind those under way, and is the last."""
        cycle = self.cycle
        self._refused = True
        if cycle is None or cycle.response_complete:
            self.transport.write(self.edge.answer(error))
            self.transport.close()
            return
        cycle.keep_alive = False
        if cycle.more_body and cycle.response_started:
            self.transport.abort()
        elif cycle.more_body:
            cycle.scope["state"][BROKEN] = error
            cycle.message_event.set()

    # -- requests that come slowly -------------------------------------------------------

    def _await_rest(self) -> None:
        """A request has come in part. One timer serves many: it looks whose time is up."""
        if not self._began:
            self._began = self.loop.time()
            if self._request_timer is None:
                self._time_request(self.edge.limits.request_timeout)

    def _time_request(self, seconds: float) -> None:
        self._request_timer = self.loop.call_later(seconds, self._look_at_request)

    def _look_at_request(self) -> None:
        self._request_timer = None
        if not self._began or self.transport.is_closing():
            return
        limits = self.edge.limits
        until = self._began + limits.request_timeout + self._came / BYTES_A_SECOND
        left = until - self.loop.time()
        if left > 0:
            self._time_request(left)
        elif self._is_not_its_fault():
            self._time_request(limits.request_timeout)
        else:
            self._end_late()

    def _is_not_its_fault(self) -> bool:
        """Whether it waits for us, or comes while its answer goes out and has not stopped."""
        cycle, came = self.cycle, self._came > self._seen
        self._seen = self._came
        if self.flow.read_paused or self.pipeline:
            return True
        if cycle is None or cycle.response_complete:
            return False
        head_is_open = self.scope is None or "method" not in self.scope
        return head_is_open or (cycle.response_started and came)

    def _end_late(self) -> None:
        cycle = self.cycle
        is_answered = cycle is not None and cycle.response_complete
        if self._between or (is_answered and "method" in self.scope):
            self.transport.close()  # blank lines, or a body that nobody waits for
        else:
            self._refuse(self.edge.late())

    # -- answers that are taken slowly ---------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._time_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _time_write(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(
            self.edge.limits.write_timeout, self._look_at_write
        )

    def _look_at_write(self) -> None:
        self._write_timer = None
        taken = self._unsent - self.transport.get_write_buffer_size()
        if taken >= LEAST_TAKEN:
            self._time_write()
        else:
            self.edge.ended["write"] += 1
            self.transport.abort()


class _Reading(FlowControl):
    """Stays paused while it is held, though every request that is answered resumes it."""

    _held = False

    def hold(self) -> None:
        self._held = True
        self.pause_reading()

    def let_go(self) -> None:
        self._held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()


class _Unread(list[tuple[bytes, bytes]]):
    """In place of a request's headers: for each byte of a trailer, tuples would take forty."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        pass


_UNREAD = _Unread()


class _Parser(HttpRequestParser):
    """Leaves it to its protocol what comes behind a request that asks for another protocol."""

    def __init__(self, protocol: LimitedProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        # As uvicorn has it: so that the first of several requests is answered.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except HttpParserUpgrade as asked:
            self._protocol.rest = data[asked.args[0] :]


def _check_framing_of(headers: list[tuple[bytes, bytes]]) -> None:
    """Raises HttpParserError for a body that would have to be unpacked (RFC 9112, 6.1), and

    for a length that `int` would not read.
    """
    for name, value in headers:
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            raise HttpParserError("a transfer coding besides chunked")
        if name == b"content-length" and len(value) > MOST_DIGITS:
            raise HttpParserError("a length of more digits than any has")


def _with_authority(target: bytes, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A target that names where it goes does so in place of Host (RFC 9112, 3.2.2)."""
    scheme, found, rest = target.partition(b"://")
    if not found or not scheme.isalpha():
        return headers
    authority = re.split(b"[/?#]", rest, maxsplit=1)[0]
    others = [header for header in headers if header[0] != b"host"]
    return [(b"host", authority), *others]


def _length_of(headers: list[tuple[bytes, bytes]]) -> int:
    """Bytes of the body. Raises HttpParserError for one that comes in chunks."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise HttpParserError("a body in chunks behind a request for another protocol")
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _bad(message: str) -> HttpError:
    return HttpError(400, message, code="invalid_http", headers=((b"connection", b"close"),))


def _peer_of(client: tuple[str, int] | None) -> str:
    """Whose connection it is: of IPv6, all of a network share one limit."""
    address = "" if client is None else client[0].partition("%")[0]
    if ":" not in address:
        return address
    plain = IPv6Address(address)
    mapped = plain.ipv4_mapped
    return plain.exploded[:19] if mapped is None else str(mapped)
