"""Whether anybody listens where upstreams are said to be, asked once as a gateway starts.

A gateway serves hits without its upstreams, so this refuses nothing: it is a line in the log for
whoever mistyped a port.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from thinkonce.settings import Upstream
from thinkonce.upstream.server import base_url

__all__ = ("tell_absent",)

log = logging.getLogger("thinkonce")

PATIENCE_SECONDS = 5.0


async def tell_absent(upstreams: Mapping[str, Upstream]) -> None:
    """Log a warning for each server that nobody answers at. Sends nothing but the handshake."""
    urls = {url for pool in upstreams.values() for url in pool.urls}
    await asyncio.gather(*map(_tell, sorted(urls)))


async def _tell(url: str) -> None:
    host, port = base_url(url).address
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except TimeoutError:
        return  # it may be there and slow
    except (OSError, UnicodeError) as error:  # refused, not reachable, a name nobody knows
        log.warning("upstream %s is not there: %s; misses get a 502 until it is", where, error)
