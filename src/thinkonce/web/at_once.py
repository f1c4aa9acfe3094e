"""A way to answer in one write, where the server offers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ("CYCLE", "send_at_once")

# In a scope's `state`: what `send_at_once` takes.
CYCLE = "thinkonce.cycle"

_OK = b"HTTP/1.1 200 OK\r\n"


def send_at_once(cycle: RequestResponseCycle, head: bytes, body: bytes) -> bool:
    """Answer 200 with `head` (lines, each with its end) and `body`; False: do it the usual way.

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
    cycle.transport.write(b"".join((_OK, *lines, head, b"\r\n", body)))
    cycle.message_event.set()
    cycle.on_response()
    return True
