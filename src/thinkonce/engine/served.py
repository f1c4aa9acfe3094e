"""What a cached path is to whoever routes requests to it."""

from __future__ import annotations

from typing import Protocol

from thinkonce.engine.http import Call, Message
from thinkonce.engine.plates import Plain

__all__ = ("Served",)


class Served(Protocol):
    """What answers on one path, by way of the cache. Raises as `endpoint.Endpoint` does."""

    def answer_inline(self, call: Call, message: Message) -> Plain | None: ...

    async def __call__(self, call: Call, message: Message) -> None: ...
