"""What the gateway bears from whoever connects to it: the part of `[gateway]` about connections."""

from __future__ import annotations

from typing import Annotated

from thinkonce.settings.section import MIB, NONE, Section, about, seconds, size

__all__ = ("EdgeSettings",)


class EdgeSettings(Section, frozen=True):
    """Limits of connections and requests, and what HTTPS is served with."""

    body_limit: Annotated[int, size("Larger request bodies get a 413.", least=1024)] = 32 * MIB
    bodies_limit: Annotated[
        int | None,
        size(
            "Bytes of all request bodies under way; beyond it a 503. A body counts as long as its "
            "request takes; one alone is served whatever its size. Each of several workers allows "
            "its part, rounded up.",
            NONE,
            least=1024,
        ),
    ] = 512 * MIB
    header_limit: Annotated[
        int, size("Larger request heads get a 431.", least=1024, fixed=True)
    ] = 64 * 2**10
    request_timeout: Annotated[
        float,
        seconds(
            "For a request to come whole, from its first byte; then a 408. A second more for each "
            "16 KiB of it.",
            least=0.01,
        ),
    ] = 60.0
    idle_timeout: Annotated[
        float, seconds("How long a connection may lie idle between requests.", least=0.01)
    ] = 75.0
    write_timeout: Annotated[
        float,
        seconds(
            "For a client to take at least 4 KiB of an answer that waits for it; then its "
            "connection is ended.",
            least=0.01,
        ),
    ] = 60.0
    max_connections: Annotated[
        int, about("Connections at once; beyond it a 503.", "a whole number >= 1", least=1)
    ] = 10_000
    max_connections_per_peer: Annotated[
        int | None,
        about(
            "Connections at once from one address (of IPv6: from one /64 network); beyond it a "
            "503. Behind a proxy all have the proxy's. Each of several workers allows its part, "
            "rounded up, however the system spreads that address's connections.",
            "a whole number >= 1" + NONE,
            least=1,
        ),
    ] = None
    tls_cert: Annotated[
        str,
        about(
            "Certificate chain to serve HTTPS with; empty: plain HTTP. Read again at SIGHUP.",
            "a PEM file; ~ is expanded",
            fixed=True,
        ),
    ] = ""
    tls_key: Annotated[
        str,
        about(
            "Private key of the certificate; empty: it is in the same file.",
            "a PEM file without a password; ~ is expanded",
            fixed=True,
        ),
    ] = ""
