"""Processes that read decorated streams as they are told, one JSON command a line.

Its sources make an item when they are asked; "held" ones wait for a command before the second,
or, where the prompt says so, before the first.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import signal
import sys
import threading

from thinkonce import Cache, cached


class Thing:
    """Can be copied, but not encoded."""


class Letters:
    """A serializer for strings alone."""

    def dumps(self, value):
        return value.encode()

    def loads(self, data):
        return data.decode()


told = {"begun": 0, "made": 0, "closed": 0}
let_go = threading.Event()
readers = {}


def item_of(prompt, number):
    if prompt == "things":
        return Thing()
    if prompt == "dicts":
        return {"number": number, "by": (name, b"bytes")}
    if prompt == "failing" and number == 1:
        raise ConnectionError("lost")
    return f"{number} by {name}"


def holds(prompt, number):
    return number == {"held": 1, "held at once": 0}.get(prompt)


def stream(prompt):
    told["begun"] += 1
    try:
        for number in range(5):
            if holds(prompt, number):
                let_go.wait()
            item = item_of(prompt, number)
            told["made"] += 1
            yield item
    finally:
        told["closed"] += 1


async def stream_async(prompt):
    told["begun"] += 1
    try:
        for number in range(5):
            if holds(prompt, number):
                await asyncio.to_thread(let_go.wait)
            item = item_of(prompt, number)
            told["made"] += 1
            yield item
    finally:
        told["closed"] += 1


def begin(order):
    """Make this process what it was ordered to be."""
    global cache, name, is_async, asks
    cache, name, is_async = Cache(store=order["url"]), order["name"], order["kind"] == "async"
    function = stream_async if is_async else stream

    def decorated(**options):
        return cached(cache=cache, version="1", tags=["faq"], **options)(function)

    asks = {
        "plain": decorated(),
        "unkept": decorated(condition=lambda items: False, namespace="unkept"),
        "serialized": decorated(serializer=Letters(), namespace="serialized"),
    }


async def storm(seed, times):
    """Read streams of a few prompts, some of them to the end; what came of it, by kind."""
    chance, ends = random.Random(seed), collections.Counter()
    for _ in range(times):
        reader = asks["unkept"](f"storm {chance.randrange(3)}")
        most = chance.choice((1, 3, 9))
        got = []
        while len(got) < most and (not got or got[-1][:1].isdigit()):
            got.append(await step(reader))
        await reader.aclose() if is_async else await asyncio.to_thread(reader.close)
        ends[kind_of(got)] += 1
    return ends


def kind_of(got):
    if got[-1].startswith("UpstreamError: "):
        got, kind = got[:-1], "error"
    else:
        kind = "whole" if got[-1] == "the end" else "left"
        got = got[:5]
    by = got[0].partition(" by ")[2] if got else ""
    return kind if got == [f"{number} by {by}" for number in range(len(got))] else f"wrong: {got}"


async def step(reader):
    """The next item in words, "the end", or the error."""
    try:
        if is_async:
            return show(await anext(reader, "the end"))
        return show(await asyncio.to_thread(next, reader, "the end"))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def show(item):
    return "a thing" if isinstance(item, Thing) else item if isinstance(item, str) else repr(item)


async def obey(do, *args):
    match do:
        case "open":
            reader, prompt, *how = args
            readers[reader] = asks[how[0] if how else "plain"](prompt)
            return None
        case "next":
            return await step(readers[args[0]])
        case "rest":
            got = [await step(readers[args[0]])]
            while got[-1] != "the end" and "Error" not in got[-1]:
                got.append(await step(readers[args[0]]))
            return got
        case "close":
            reader = readers.pop(args[0])
            await reader.aclose() if is_async else reader.close()
            return None
        case "let go":
            return let_go.set()
        case "told":
            return told
        case "followers":
            return [flight.followers for flight in cache.shelf.flights._table.values()]
        case "stats":
            return asks[args[0]].cache_stats()[args[1]]
        case "storm":
            seeds = range(args[0], args[0] + 4)
            ends = await asyncio.gather(*(storm(seed, args[1]) for seed in seeds))
            return sum(ends, collections.Counter())
        case "flights":
            return len(cache.shelf.flights)
        case "purge":
            return cache.purge(tags="faq")
        case "flush":
            return cache.flush()
        case "cut":
            for peer in list(cache.shelf.flights.sharing._exchange.peers):
                cache.shelf.flights.sharing._exchange.call(peer.close)
            return None
    raise ValueError(do)


async def carry_out(number, command):
    print(json.dumps({"id": number, "gave": await obey(*command)}), flush=True)


async def main():
    loop, tasks = asyncio.get_running_loop(), set()
    print(json.dumps({"id": 0, "gave": os.getpid()}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        number, *command = json.loads(line)
        # A step may wait for another process: the next command must not.
        task = asyncio.ensure_future(carry_out(number, command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(0)
    let_go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    for reader in readers.values():
        await reader.aclose() if is_async else reader.close()


def work(order):
    with open(order["commands"]) as commands, open(order["answers"], "w") as answers:
        sys.stdin, sys.stdout = commands, answers
        begin(order)
        asyncio.run(main())
        cache.close()


def fork_workers():
    """Fork one for every order: imports take longer than most tests."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need nobody to collect them
    for line in sys.stdin:
        if os.fork() == 0:
            work(json.loads(line))
            os._exit(0)


if __name__ == "__main__":
    fork_workers()
