"""The sockets on which several processes serve one address."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack

import pytest

from thinkonce.errors import ConfigError
from thinkonce.web.listener import bind, bind_each, url_of


@pytest.fixture
def listeners():
    found = bind_each("127.0.0.1", 0, 3)
    for listener in found:
        listener.listen(100)
        listener.setblocking(False)
    yield found
    for listener in found:
        listener.close()


def accepted(listener: socket.socket, stack: ExitStack) -> int:
    for count in range(1000):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return count
        stack.enter_context(connection)
    raise AssertionError("more than were made")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all share one socket")
def test_connections_are_spread_over_all_of_them(listeners):
    address = listeners[0].getsockname()
    assert {listener.getsockname() for listener in listeners} == {address}
    with ExitStack() as stack:
        for _ in range(90):
            stack.enter_context(socket.create_connection(address))
        counts = [accepted(listener, stack) for listener in listeners]
    assert sum(counts) == 90
    assert min(counts) > 5


def test_their_port_is_taken_for_everybody_else(listeners):
    port = listeners[0].getsockname()[1]
    for again in (lambda: bind("127.0.0.1", port), lambda: bind_each("127.0.0.1", port, 2)):
        with pytest.raises(ConfigError, match="a port that is free"):
            again()
    assert url_of(listeners[1]) == f"http://127.0.0.1:{port}"
