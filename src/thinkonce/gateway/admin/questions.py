"""Which keys a request asks for: one as a rule, more where it is a batch or has samples."""

from __future__ import annotations

from thinkonce.engine.asking import Asking, Reader
from thinkonce.protocols.openai_embeddings import batch_of
from thinkonce.protocols.registry import DIALECTS

__all__ = ("parts_of",)


def parts_of(reader: Reader, endpoint: str, query: bytes, asking: Asking) -> list[bytes]:
    """What each key is made of; none where the request goes around the cache."""
    if asking.key is None:
        return []
    if endpoint in DIALECTS:
        return reader.sample_parts(query, asking)
    batch = batch_of(asking.body)
    if batch is None:
        return []
    return reader.item_parts(query, asking, [{"input": item} for item in batch.items])
