"""What a user's type checker sees. Checked by mypy and pyright in strict mode; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import assert_type

from thinkonce import Cache, cached


@cached
def ask(prompt: str) -> str:
    return prompt


@cached(ttl=3600, max_size=1000)
async def ask_async(prompt: str, *, temperature: float = 0) -> dict[str, int]:
    return {prompt: int(temperature)}


@cached(ttl="hot", tags=["faq"], priority="high")
def tell(prompt: str) -> Iterator[str]:
    yield prompt


@cached(namespace="v1")
async def tell_async(prompt: str) -> AsyncIterator[bytes]:
    yield prompt.encode()


cache = Cache(store="sqlite:///answers.db", ttl="1h", max_bytes="256MiB", policy="cost")


@cached(cache=cache, tags=["faq"], namespace="v1", ignore=["user"], version="2")
def ask_messages(messages: list[dict[str, str]], *, model: str, user: str = "") -> str | None:
    return messages[0].get(model) if user else None


class Bot:
    @cached
    def reply(self, prompt: str) -> int:
        return len(prompt)

    @cached(ttl=None)
    async def reply_async(self, prompt: str) -> int:
        return len(prompt)


# The wrapper keeps the signature, and what comes back keeps its type.
assert_type(ask("hi"), str)
assert_type(ask(prompt="hi"), str)
assert_type(tell("hi"), Iterator[str])
assert_type(tell_async("hi"), AsyncIterator[bytes])
assert_type(ask_messages([{"role": "user"}], model="m"), str | None)
assert_type(Bot().reply("hi"), int)
plain: Callable[[str], str] = ask
later: Callable[[str], Awaitable[dict[str, int]]] = ask_async


async def use() -> None:
    assert_type(await ask_async("hi", temperature=1), dict[str, int])
    assert_type(await Bot().reply_async("hi"), int)
    async for piece in tell_async("hi"):
        assert_type(piece, bytes)
    assert_type(await cache.aget_or_call(ask_async, "hi"), dict[str, int])


# A call that Python would refuse is refused: an unused ignore is an error to both checkers.
ask(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ask()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ask_messages([], user="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Bot().reply(2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# What the wrapper has besides.
assert_type(ask.invalidate("hi"), bool)
assert_type(ask.refresh("hi"), str)
assert_type(ask.clear_cache(), int)
assert_type(ask.cache_stats()["hits"], int)
assert_type(ask.cache, Cache)

# `Cache` by hand.
assert_type(cache.get_or_call(ask_messages, [{"role": "user"}], model="m"), str | None)
assert_type(cache.purge(tags=["faq"]), int)
with Cache() as scratch:
    scratch.set({"model": "m", "prompt": "hi"}, "yo", ttl="5m", tags=["faq"])
    assert_type(scratch.delete({"model": "m", "prompt": "hi"}), bool)
