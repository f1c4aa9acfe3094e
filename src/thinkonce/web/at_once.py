"""What the server offers beyond ASGI: an answer in one write, news of a client that has left."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from thinkonce.web.protocol import LimitedProtocol

__all__ = ("CYCLE", "forget_when_gone", "lines_of", "send_at_once", "tell_when_gone")

# In a scope's `state`: what these functions take. Whoever takes it out spares the collector a
# circle, for it holds the scope.
CYCLE = "thinkonce.cycle"

# Besides CR and LF, which are counted.
_USUAL = bytes({*range(256)} - {*range(9), 11, 12, *range(14, 32), 127})
_UNUSUAL_NAMES = re.compile(rb"(?:\A|\n)(?i:connection|transfer-encoding):")
_OK = b"HTTP/1.1 200 OK\r\n"


def lines_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """`headers` as `send_at_once` takes them; None where one is not to be sent so.

    That is one with a control character, which the usual way refuses, or `connection`.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        return None
    if lines.translate(None, _USUAL):
        return None
    return None if _UNUSUAL_NAMES.search(lines) else lines


def send_at_once(cycle: RequestResponseCycle, head: bytes, *body: bytes) -> bool:
    """Answer 200 with `head` (lines, each with its end) and `body`, in pieces; else False.

    Does what `RequestResponseCycle.send` does for a whole answer on a connection that stays open.
    """
    if (
        cycle.response_started
        or cycle.disconnected
        or not cycle.keep_alive
        or cycle.flow.write_paused
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    lines = [b"%b: %b\r\n" % header for header in cycle.default_headers]
    cycle.transport.write(b"".join((_OK, *lines, head, b"\r\n", *body)))
    cycle.message_event.set()
    cycle.on_response()
    return True


def tell_when_gone(cycle: RequestResponseCycle, told: Callable[[], None]) -> None:
    """Call `told` once, on the event loop, if the connection ends before the answer does.

    To be asked for once the body was read; for one request of a connection at a time.
    """
    protocol = _protocol_of(cycle)
    if protocol is None or cycle.disconnected:
        told()
        return
    cycle.flow.resume_reading()  # what stopped for the body's sake would not see the end either
    protocol.when_gone = told


def forget_when_gone(cycle: RequestResponseCycle, told: Callable[[], None]) -> None:
    """Do not call `told` any more."""
    protocol = _protocol_of(cycle)
    if protocol is not None and protocol.when_gone == told:
        protocol.when_gone = None


def _protocol_of(cycle: RequestResponseCycle) -> LimitedProtocol | None:
    """None once the connection has ended."""
    return cast("LimitedProtocol | None", cycle.transport.get_protocol())
