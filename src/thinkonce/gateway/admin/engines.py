"""Purges reach the attention state that our own engines keep, besides the answers kept here."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any
from urllib.parse import urlsplit

import msgspec

from thinkonce.request.headers import ENGINE_HEADERS
from thinkonce.settings import Settings, Upstream

__all__ = ("purge_engines",)

_TIMEOUT = 10.0  # seconds to connect, and for each read
_MOST_BYTES = 65_536  # of an answer


async def purge_engines(settings: Settings, wanted: dict[str, Any]) -> dict[str, str]:
    """Ask every server of every engine; what failed, by its address. Nothing here raises."""
    asked = [
        (url, upstream)
        for upstream in settings.upstreams.values()
        if upstream.engine_secret
        for url in upstream.urls
    ]
    body = msgspec.json.encode(wanted)
    calls = [asyncio.to_thread(_purge, url, upstream, body) for url, upstream in asked]
    errors = await asyncio.gather(*calls)
    return {url: why for (url, _), why in zip(asked, errors, strict=True) if why}


def _purge(url: str, upstream: Upstream, body: bytes) -> str:
    """Why it failed; "" where it did not."""
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
        answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    # 404: an engine of another model, or one without such a path.
    is_done = answer.status == 200 or (answer.status == 404 and b'"model"' in body)
    return "" if is_done else f"it answered {answer.status}"
