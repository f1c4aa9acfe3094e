"""The connections to upstreams, and which request may use one again.

Requests of a tenant follow one another on a connection, so an answer that is counted wrong is
another request's (RFC 9112, 9.2 and 11.2). What is not sure to be counted right goes alone:

    POST to a path of ours    its tenant's kept connections (kept.py, wire.py); kept on after a 200
                              alone: who refuses may not have read the body, and takes it for the
                              next request
    GET without a body        the same
    everything else           a connection of its own

And a connection on which anything came that nobody had asked for is not used again.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from thinkonce.protocols.registry import SPEECHES
from thinkonce.upstream.failure import Header
from thinkonce.upstream.kept import KeptConnector, bound_interim, handed_over
from thinkonce.upstream.wire import MAX_HEADER, MAX_WRITE, Answer, Wire

__all__ = ("Connections",)

# Answers that end with their heads, whatever is declared there: some servers send a body still.
_CONDITION = b"if-none-match"


class Connections:
    """At most `most` of each kind, made in `connect` seconds. Belongs to one event loop."""

    def __init__(self, most: int, connect: float) -> None:
        self._kept = _session(KeptConnector(most), connect)
        single = aiohttp.TCPConnector(limit=most, force_close=True, socket_factory=handed_over)
        bound_interim(single)
        self._single = _session(single, connect)
        self._wire = Wire(self._kept)

    async def close(self) -> None:
        await self._kept.close()
        await self._single.close()

    async def ask(
        self,
        method: str,
        path: str,
        url: str,
        headers: Sequence[Header],
        body: bytes,
        owner: str,
        until: float,
    ) -> Answer | aiohttp.ClientResponse:
        """The beginning of the answer of `url`; `path` is its end, without /v1.

        `owner`: whose request it is; no connection carries those of two. Raises
        aiohttp.ClientError, ValueError for a header or a URL that is none, and TimeoutError where
        it has not begun at `until`, by the loop's time.
        """
        plain = method == "GET" and not body and all(name != _CONDITION for name, _ in headers)
        if plain or (method == "POST" and path in SPEECHES):
            answer = await self._wire.ask(method, url, headers, body, owner, until)
            if answer is not None:
                return answer
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        async with asyncio.timeout_at(until):
            return await self._single.request(
                method,
                URL(url, encoded=True),
                data=_payload(body),
                headers=CIMultiDict(pairs),
                allow_redirects=False,
            )

    async def status_of(self, url: str) -> int:
        """What a GET of ours is answered with. Raises aiohttp.ClientError, ValueError, OSError."""
        found = self._kept.get(URL(url, encoded=True), allow_redirects=False)
        async with found as response:
            return response.status


def _session(connector: aiohttp.TCPConnector, connect: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
    )


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    # Bytes go out in one write, which would hold the loop up where there are many.
    return io.BytesIO(body) if len(body) > MAX_WRITE else body or None
