"""One body of a test for functions and coroutines, with the inline probe on and off."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools

import pytest

from thinkonce import Cache, cached


def as_coroutine(body):
    @functools.wraps(body)
    async def run(*args, **kwargs):
        return body(*args, **kwargs)

    return run


def as_async_generator(body):
    @functools.wraps(body)
    async def run(*args, **kwargs):
        for item in body(*args, **kwargs):
            yield item

    return run


class Way:
    """Decorates a plain body, as it is or made a coroutine; calls it and gives the result."""

    def __init__(self, *, is_async, inline):
        self.is_async, self.inline = is_async, inline
        self.runner = asyncio.Runner() if is_async else None

    def cache(self, *args, **settings):
        return Cache(*args, inline=self.inline, **settings)

    def body(self, body):
        if not self.is_async:
            return body
        if inspect.isgeneratorfunction(body):
            return as_async_generator(body)
        return as_coroutine(body)

    def cached(self, body, **settings):
        """The decorated function; `call` and `run` take what it gives."""
        holder = {"max_size", "max_bytes", "policy", "store"} & settings.keys()
        own = {name: settings.pop(name) for name in holder}
        settings.setdefault("cache", None)
        if settings["cache"] is None:
            settings["cache"] = self.cache(**own)
        return cached(**settings)(self.body(body))

    def run(self, given):
        """The value of what a call gave: a coroutine's result, a generator's list."""
        if inspect.isasyncgen(given):
            return self.runner.run(collected(given))
        if inspect.iscoroutine(given):
            return self.runner.run(given)
        return list(given) if inspect.isgenerator(given) else given

    def call(self, function, /, *args, **kwargs):
        return self.run(function(*args, **kwargs))

    def renewed(self, cache):
        """Wait for the renewals under way."""
        if self.is_async:
            self.runner.run(cache._async.wait_for_renewals(20.0))
        else:
            cache._blocking.wait_for_renewals(20.0)

    def close(self):
        if self.runner is not None:
            self.runner.close()


async def collected(items):
    return [item async for item in items]


WAYS = list(itertools.product([False, True], [True, False]))
NAMES = [f"{'async' if a else 'sync'}-{'inline' if i else 'plain'}" for a, i in WAYS]


@pytest.fixture(params=WAYS, ids=NAMES)
def way(request):
    way = Way(is_async=request.param[0], inline=request.param[1])
    yield way
    way.close()
