"""Purges reach the attention state that our own engines keep, besides the answers kept here."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any
from urllib.parse import urlsplit

import msgspec

from thinkonce.request.headers import ENGINE_HEADERS
from thinkonce.settings import Settings, Upstream

__all__ = ("EnginePurge", "purge_engines")

_TIMEOUT = 10.0  # seconds to connect, and for each read
_MOST_BYTES = 65_536  # of an answer


class EnginePurge(msgspec.Struct, omit_defaults=True):
    """What an engine says that it did: `purged` blocks in memory, and what became of those on
    disk. `failed`: why it did nothing, as far as is known.
    """

    purged: int
    disk: dict[str, int] | None = None
    failed: str = ""


async def purge_engines(settings: Settings, wanted: dict[str, Any]) -> dict[str, EnginePurge]:
    """Ask every server of every engine; what each did, by its address. Nothing here raises."""
    asked = [
        (url, upstream)
        for upstream in settings.upstreams.values()
        if upstream.engine_secret
        for url in upstream.urls
    ]
    body = msgspec.json.encode(wanted)
    calls = [asyncio.to_thread(_purge, url, upstream, body) for url, upstream in asked]
    done = await asyncio.gather(*calls)
    return {url: each for (url, _), each in zip(asked, done, strict=True)}


def _purge(url: str, upstream: Upstream, body: bytes) -> EnginePurge:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    headers = {
        "content-type": "application/json",
        ENGINE_HEADERS[0].decode(): upstream.engine_secret,
    }
    try:
        connection.request("POST", f"{parts.path.rstrip('/')}/kv/purge", body, headers)
        answer = connection.getresponse()
        said = answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return EnginePurge(0, failed=str(error) or type(error).__name__)
    finally:
        connection.close()
    if answer.status == 404 and b'"model"' in body:
        return EnginePurge(0)  # an engine of another model
    if answer.status != 200:
        return EnginePurge(0, failed=f"it answered {answer.status}")
    try:
        return msgspec.json.decode(said, type=EnginePurge)
    except msgspec.DecodeError:
        return EnginePurge(0, failed="it answered what is no purge")
