"""uvicorn's HTTP protocol with a bound on request heads, and a way to answer in one write.

httptools would collect a head for ever. And where an answer is complete, uvicorn's own way (two
messages, two checks of every header) costs more than finding it: applications are offered another
in the scope's `state`, and use the usual one where it is not there.
"""

from __future__ import annotations

from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from thinkonce.web.at_once import CYCLE
from thinkonce.web.exchange import OVERSIZED, HttpError, error_body, oversized_head

__all__ = ("LimitedProtocol",)


class LimitedProtocol(HttpToolsProtocol):
    """Refuses heads of more than `header_limit` bytes.

    A head that comes whole is answered by the application, in its own error shape; one that does
    not end is cut off here. `header_setting` names the limit to whoever meets it.
    """

    header_limit = 64 * 1024
    header_setting = ""
    rest = b""  # what came behind the head of a request that asks for another protocol
    _body_left = 0  # bytes of such a request's body that are still to come
    _open_head = 0  # bytes of a head that has not ended yet
    _suspect = False  # so much came that its head may be too large
    _ended = False  # the latest bytes held the end of a request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)

    def data_received(self, data: bytes) -> None:
        while data := self._without_body(data):
            self._feed(data)
            data, self.rest = self.rest, b""

    def _feed(self, data: bytes) -> None:
        received = self._open_head + len(data)
        self._suspect, self._ended = received > self.header_limit, False
        super().data_received(data)
        if self.scope is not None and "method" in self.scope:
            self._open_head = 0
            return
        # Behind a whole request it is unknown where this head began: count what is parsed.
        self._open_head = _size(self.headers) if self._ended else received
        if self._open_head > self.header_limit and not self.transport.is_closing():
            self.transport.write(_written(self._refusal()))
            self.transport.close()

    def on_headers_complete(self) -> None:
        state: dict[str, Any] = cast(Any, self.scope)["state"]
        if self._suspect and _size(self.headers) > self.header_limit:
            state[OVERSIZED] = self._refusal
        super().on_headers_complete()
        state[CYCLE] = self.cycle
        if self.parser.should_upgrade():
            self._body_left = _length_of(self.headers)

    def on_message_complete(self) -> None:
        if not self._body_left:
            self._ended = True
            super().on_message_complete()

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
        return oversized_head(self.header_limit, self.header_setting)


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


def _length_of(headers: list[tuple[bytes, bytes]]) -> int:
    """Bytes of the body. Raises HttpParserError for one that comes in chunks."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise HttpParserError("a body in chunks behind a request for another protocol")
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _written(error: HttpError) -> bytes:
    """A whole answer, for a client whose request never became one."""
    body = error_body(error)
    return (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )
