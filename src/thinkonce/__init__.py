"""thinkonce: one cache for everything a language model computes.

from thinkonce import cached

@cached(ttl="1h")
def ask(prompt: str) -> str: ...
"""

from __future__ import annotations

from thinkonce.cache import Cache, CacheStats, Explanation
from thinkonce.clock import Clock
from thinkonce.decorator import Cached, cached
from thinkonce.errors import (
    ConfigError,
    CorruptEntry,
    NotCached,
    RequestError,
    ThinkOnceError,
    TierError,
    UpstreamError,
)
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.ttl_classes import TtlClass
from thinkonce.version import __version__

__all__ = (
    "Cache",
    "CacheStats",
    "Cached",
    "Clock",
    "ConfigError",
    "CorruptEntry",
    "Explanation",
    "Match",
    "NotCached",
    "Outcome",
    "Reason",
    "RequestError",
    "ThinkOnceError",
    "TierError",
    "TtlClass",
    "UpstreamError",
    "__version__",
    "cached",
)
