"""The socket a server listens on: bound first, so that an address in use is known at once."""

from __future__ import annotations

import errno
import os
import socket
import sys

from thinkonce.errors import ConfigError

__all__ = ("bind", "bind_each", "url_of")


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; port 0 takes a free one. Raises ConfigError."""
    if not 0 <= port <= 65_535:
        raise ConfigError("--port", port, "0 (any free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as wrong:
        raise _no_address(host, wrong) from wrong
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as wrong:
        listener.close()
        if wrong.errno == errno.EADDRNOTAVAIL:
            raise _no_address(host, wrong) from wrong
        raise ConfigError("--port", port, f"a port that is free on {host} ({wrong})") from wrong
    return listener


def bind_each(host: str, port: int, count: int) -> list[socket.socket]:
    """A bound socket for each of `count` processes that serve one address. Raises ConfigError.

    On Linux each is a socket of its own, among which the system spreads connections evenly
    (SO_REUSEPORT, socket(7)): of one socket that all share, whoever wakes first takes a whole
    burst. Elsewhere SO_REUSEPORT does not spread, and all get the same one.
    """
    first = bind(host, port)
    if sys.platform != "linux":
        return [first] * count
    # Only now: that the port is free of others is known, and nobody else binds without the option.
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return [first, *(_beside(first) for _ in range(count - 1))]


def _beside(first: socket.socket) -> socket.socket:
    listener = socket.socket(first.family, first.type, first.proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(first.getsockname())
    return listener


def _no_address(host: str, wrong: OSError) -> ConfigError:
    return ConfigError("--host", host, f"an address of this machine ({wrong})")


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a bound socket is reached, such as http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
