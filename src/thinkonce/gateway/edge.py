"""The gateway's settings as the limits of its connections; what was refused before a request."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace
from functools import partial
from math import ceil, inf

from thinkonce.engine.request_ids import RequestIds
from thinkonce.gateway.access_log import AccessLog
from thinkonce.gateway.counts import Counts
from thinkonce.settings import Gateway
from thinkonce.web.edge import Edge, EdgeLimits, descriptors_for
from thinkonce.web.tls import context_of

__all__ = ("attainable", "bodies_of", "guarded", "limits_of", "tls_of")

log = logging.getLogger("thinkonce")


def limits_of(gateway: Gateway) -> EdgeLimits:
    """As they are written; of what counts connections, a worker's part."""
    part = partial(_part_of, gateway.workers)
    return EdgeLimits(
        header_limit=gateway.header_limit,
        header_setting="[gateway] header_limit",
        request_timeout=gateway.request_timeout,
        idle_timeout=gateway.idle_timeout,
        write_timeout=gateway.write_timeout,
        max_connections=part(gateway.max_connections),
        per_peer=part(gateway.max_connections_per_peer),
    )


def bodies_of(gateway: Gateway) -> float:
    """Bytes of request bodies that a worker may hold."""
    part = _part_of(gateway.workers, gateway.bodies_limit)
    return inf if part is None else part


def _part_of(workers: int, most: int | None) -> int | None:
    return None if most is None else ceil(most / workers)


def attainable(limits: EdgeLimits) -> EdgeLimits:
    """`limits` with no more connections than this process may open files; a line says so."""
    wanted = limits.max_connections
    if wanted is None:
        return limits
    possible = descriptors_for(wanted)
    if possible < wanted:
        log.warning(
            "[gateway] max_connections: %d at once, not %d: the system allows this process no "
            "more open files (ulimit -n)",
            possible,
            wanted,
        )
    return replace(limits, max_connections=possible)


def tls_of(gateway: Gateway) -> ssl.SSLContext | None:
    """Raises ConfigError."""
    return context_of(gateway.tls_cert, gateway.tls_key)


def guarded(edge: Edge, ids: RequestIds, access_log: AccessLog, counts: Counts) -> None:
    """Let answers of `edge` carry a request id of the gateway's and stand in its log and counts.

    Refused connections are only counted: in a flood of them the log would be flooded too.
    """

    def note(status: int, code: str) -> bytes:
        given = next(ids)
        if access_log.enabled and status != 503:
            access_log.write(given.decode("latin-1"), "-", status, "", code, 0.0)
        return given

    edge.note = note
    counts.counted.connections_ended.update(edge.ended)
    edge.ended = counts.counted.connections_ended
    counts.connections = lambda: edge.open
