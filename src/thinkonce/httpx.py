"""Transports for `httpx` that answer from a cache what was asked of a model before.

    client = OpenAI(http_client=httpx.Client(transport=CachingTransport(store="sqlite:///a.db")))

See docs/adapters.md; what `**options` may be is in `thinkonce.adapters.options.Options`.
"""

from __future__ import annotations

try:
    import httpx
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "thinkonce.httpx needs the package httpx: pip install '/path/to/thinkonce[httpx]'"
    ) from error

from thinkonce.adapters.transport import (
    AsyncPieces,
    AsyncTransport,
    BlockingPieces,
    BlockingTransport,
)

__all__ = ("AsyncCachingTransport", "CachingTransport")


class _Pieces(BlockingPieces, httpx.SyncByteStream):
    library = httpx


class _AsyncPieces(AsyncPieces, httpx.AsyncByteStream):
    library = httpx


class CachingTransport(BlockingTransport, httpx.BaseTransport):
    """For `httpx.Client`. Thread-safe; close it, or the client that holds it.

    `transport` (default: an `HTTPTransport`) is what providers are asked with. `cache` is shared
    with whoever else uses it; or name `store`, `ttl`, `max_bytes` ... of one of its own. Raises
    ConfigError.
    """

    library, pieces = httpx, _Pieces


class AsyncCachingTransport(AsyncTransport, httpx.AsyncBaseTransport):
    """The same for `httpx.AsyncClient`, on any event loop of asyncio."""

    library, pieces = httpx, _AsyncPieces
