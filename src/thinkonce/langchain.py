"""LangChain's `BaseCache` over a `Cache`: `set_llm_cache(ThinkOnceCache(store=...))`.

LangChain asks for what is known (`lookup`), calls the model itself, and brings what it got
(`update`). Between the two nobody knows of the call, so concurrent equal requests each make their
own: to share them, put a caching transport below the model (`thinkonce.httpx2`).

What is kept is data. Generations are rebuilt from it as one of a closed list of classes; nothing is
imported or constructed because stored bytes name it, as unpickling would, and LangChain's own
`load` does in part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

import msgspec

try:
    from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "thinkonce.langchain needs the package langchain-core: "
        "pip install '/path/to/thinkonce[langchain]'"
    ) from error
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)

from thinkonce.adapters.options import Holder, cache_of
from thinkonce.cache import Cache

__all__ = ("ThinkOnceCache",)

log = logging.getLogger("thinkonce")

T = TypeVar("T")

# Changed when what is kept changes its form: older entries are then not found.
FORM = "langchain-1"
TEXTS: dict[str, type[Generation]] = {each.__name__: each for each in (Generation, GenerationChunk)}
CHATS: dict[str, type[ChatGeneration]] = {
    each.__name__: each for each in (ChatGeneration, ChatGenerationChunk)
}


class ThinkOnceCache(BaseCache):
    """Thread-safe, on any event loop.

    `cache` is shared with whoever else uses it; or name `store`, `ttl`, `max_bytes` ... of one of
    its own, whose answers live an hour unless told otherwise. `namespace` is what `clear` empties;
    `tags` and `life` (None: the cache's own) are given to each answer. Raises ConfigError.
    """

    def __init__(
        self,
        cache: Cache | None = None,
        *,
        namespace: str = "langchain",
        tags: Sequence[str] = (),
        life: float | str | None = None,
        **holder: Unpack[Holder],
    ) -> None:
        self.cache, self._owns = cache_of({"cache": cache, **holder})
        self.namespace, self._tags, self._life = namespace, tuple(tags), life
        self.cache.controls(life, self._tags, namespace, "")  # what cannot work is said now

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """None also for what cannot be rebuilt: LangChain then asks the model."""
        request = _request(prompt, llm_string)
        kept = self.cache.get(request, namespace=self.namespace)
        if not isinstance(kept, bytes):
            return None
        try:
            return _rebuilt(kept)
        except Exception as error:
            log.warning("a stored generation cannot be rebuilt: %s", type(error).__name__)
            self.cache.delete(request, namespace=self.namespace)
            return None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep `return_val`, if what would be rebuilt equals it; else keep nothing."""
        kept = _encoded(return_val)
        if kept is None:
            return
        self.cache.set(
            _request(prompt, llm_string),
            kept,
            ttl=self._life,
            tags=self._tags,
            namespace=self.namespace,
        )

    def clear(self, **kwargs: Any) -> None:
        """Remove what this cache has kept; `tags` or `older_than`: only what they mean."""
        self.cache.purge(namespace=self.namespace, **kwargs)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return await self._beside(lambda: self.lookup(prompt, llm_string))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        await self._beside(lambda: self.update(prompt, llm_string, return_val))

    async def aclear(self, **kwargs: Any) -> None:
        await self._beside(lambda: self.clear(**kwargs))

    def close(self) -> None:
        """Close the cache, if it was opened here. Idempotent."""
        if self._owns:
            self.cache.close()

    async def _beside(self, step: Callable[[], T]) -> T:
        """`step`, in a thread where a disk could hold it up."""
        return step() if self.cache.store is None else await asyncio.to_thread(step)


def _request(prompt: str, llm_string: str) -> tuple[str, str, str]:
    return (FORM, prompt, llm_string)


def _encoded(generations: Sequence[Generation]) -> bytes | None:
    try:
        kept = msgspec.msgpack.encode([_data_of(each) for each in generations])
        if list(generations) == _rebuilt(kept):
            return kept
    except Exception as error:
        log.info("a generation is not kept: %s: %s", type(error).__name__, error)
    return None


def _data_of(generation: Generation) -> dict[str, Any]:
    """Raises TypeError for a class that would be rebuilt as another."""
    name = type(generation).__name__
    data = {"kind": name, "text": str(generation.text), "info": generation.generation_info}
    if isinstance(generation, ChatGeneration):
        data["message"] = message_to_dict(generation.message)
    if type(generation) is not (TEXTS | CHATS).get(name):
        raise TypeError(f"{name} is none of {', '.join(TEXTS | CHATS)}")
    return data


def _rebuilt(kept: bytes) -> list[Generation]:
    return [_generation(data) for data in msgspec.msgpack.decode(kept)]


def _generation(data: dict[str, Any]) -> Generation:
    name, info = data["kind"], data["info"]
    if name in TEXTS:
        return TEXTS[name](text=data["text"], generation_info=info)
    message: BaseMessage = messages_from_dict([data["message"]])[0]
    # `text` is made of the message, unless somebody has set it since.
    made = CHATS[name](message=message, generation_info=info)
    if made.text != data["text"]:
        made.text = data["text"]
    return made
