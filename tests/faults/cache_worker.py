"""A process with a cache on a file; does as it is told, one JSON command a line."""

from __future__ import annotations

import json
import sys

from leaks import until
from thinkonce import Cache, cached

cache = Cache(store=sys.argv[1])


def say(**answer):
    print(json.dumps(answer), flush=True)


seats = []
join = cache.shelf.flights.join


def noted_join(key, digest):
    seats.append(join(key, digest))
    return seats[-1]


cache.shelf.flights.join = noted_join


@cached(cache=cache, tags=["faq"], version="1")
def ask(prompt, pause=False):
    if prompt.startswith("slow"):
        say(begun=prompt)
        told = json.loads(sys.stdin.readline())
        if told == "go on when followed":
            until(lambda: seats[-1].followers > 0, "a follower")
    return f"{prompt}, answered by {sys.argv[2]}"


def obey(do, *args):
    match do:
        case "ask":
            return ask(*args)
        case "explain":
            told = ask.explain(*args)
            return [told.outcome, told.tier]
        case "purge":
            return cache.purge(tags=args[0])
        case "invalidate":
            return ask.invalidate(*args)
        case "stats":
            return cache.stats()
        case "flush":
            return cache.flush()
    raise ValueError(do)


for line in sys.stdin:
    say(gave=obey(*json.loads(line)))
cache.close()
