"""Which keys a request asks for: one as a rule, more where it is a batch or has samples."""

from __future__ import annotations

from thinkonce.engine.asking import Asking, Reader
from thinkonce.protocols.registry import BATCHES

__all__ = ("parts_of",)


def parts_of(reader: Reader, endpoint: str, query: bytes, asking: Asking) -> list[bytes]:
    """What each key is made of; none where the request goes around the cache."""
    if asking.key is None:
        return []
    dialect = BATCHES.get(endpoint)
    if dialect is None:
        return reader.sample_parts(query, asking)
    batch = dialect.batch(asking.body)
    return [] if batch is None else reader.item_parts(query, asking, dialect.members(batch))
