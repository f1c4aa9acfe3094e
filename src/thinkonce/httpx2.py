"""Transports for `httpx2` that answer from a cache what was asked of a model before.

    client = OpenAI(http_client=httpx2.Client(transport=CachingTransport(store="sqlite:///a.db")))

See docs/adapters.md; what `**options` may be is in `thinkonce.adapters.options.Options`.
"""

from __future__ import annotations

try:
    import httpx2
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "thinkonce.httpx2 needs the package httpx2: pip install '/path/to/thinkonce[httpx2]'"
    ) from error

from thinkonce.adapters.transport import (
    AsyncPieces,
    AsyncTransport,
    BlockingPieces,
    BlockingTransport,
)

__all__ = ("AsyncCachingTransport", "CachingTransport")


class _Pieces(BlockingPieces, httpx2.SyncByteStream):
    library = httpx2


class _AsyncPieces(AsyncPieces, httpx2.AsyncByteStream):
    library = httpx2


class CachingTransport(BlockingTransport, httpx2.BaseTransport):
    """For `httpx2.Client`. Thread-safe; close it, or the client that holds it.

    `transport` (default: an `HTTPTransport`) is what providers are asked with. `cache` is shared
    with whoever else uses it; or name `store`, `ttl`, `max_bytes` ... of one of its own. Raises
    ConfigError.
    """

    library, pieces = httpx2, _Pieces


class AsyncCachingTransport(AsyncTransport, httpx2.AsyncBaseTransport):
    """The same for `httpx2.AsyncClient`, on any event loop of asyncio."""

    library, pieces = httpx2, _AsyncPieces
