"""What a client of `[clients]` is told where it may not ask: the same by either server."""

from __future__ import annotations

from collections.abc import Iterable

from thinkonce.web.exchange import HttpError, Limited

__all__ = ("beyond_limit", "model_not_allowed", "unknown_key")

_BEARER = ((b"www-authenticate", b"Bearer"),)


def unknown_key(server: str) -> HttpError:
    """The 401 of `server`, "gateway" or "server", which knows its clients."""
    message = f"the API key is missing or unknown to this {server}; ask whoever runs it for one"
    return HttpError(401, message, code="invalid_api_key", headers=_BEARER)


def model_not_allowed(field: str, why: str, patterns: Iterable[str]) -> HttpError:
    """The 403 for what `field` asks for, where a client may use the models of `patterns`."""
    message = f"{field}: {why} for this client, which may use {', '.join(patterns)}"
    return HttpError(403, message, code="model_not_allowed", param=field)


def beyond_limit(limit: str, may: str, code: str, seconds: int = 1) -> Limited:
    """The 429 beyond `limit`, a field of the client's row; `may`: what it allows."""
    return Limited(429, limit, f"this client may {may}", code=code, seconds=seconds)
