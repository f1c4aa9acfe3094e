"""A request as the gateway understands it, for tests of what is kept of one."""

from __future__ import annotations

from typing import Any

from thinkonce.engine.asking import Asking
from thinkonce.protocols.dialect import Asked
from thinkonce.request.controls import DEFAULTS
from thinkonce.request.headers import Taken
from thinkonce.settings import Upstream
from thinkonce.tiers.tier import Key
from thinkonce.upstream.pools import Pool

__all__ = ("asking_of",)

POOL = Pool("main", Upstream(urls=["http://127.0.0.1:1/v1"]))
NO_HEADERS = Taken()


def asking_of(
    raw: bytes = b"",
    body: dict[str, Any] | None = None,
    *,
    taken: Taken = NO_HEADERS,
    key: Key | None = None,
) -> Asking:
    """One without controls, of nobody in particular."""
    return Asking(raw, body or {}, Asked(), DEFAULTS, taken, "", POOL, key, None)
