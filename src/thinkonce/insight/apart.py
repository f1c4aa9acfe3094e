"""What spoils a hit rate: the one field in which requests that are otherwise equal differ.

Each stored request was a miss once, so a sample of them stands for the misses that were stored. Two
that differ in one field alone would have shared an answer without it. Other questions are other
requests, so the text of the last message, `prompt` and `input` are never named.

    leaves of a request ──► a number for all of them, which is a sum
                            less one leaf's ──► equal for two: they differ in that leaf alone
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from thinkonce.entry import Entry
from thinkonce.insight.carried import request_of
from thinkonce.insight.explain import leaves

__all__ = ("SAMPLED", "Apart", "advice", "apart", "sentences")

# Entries looked at: about 100 us each.
SAMPLED = 1000
WORTH_SAYING = 0.1
MOST_SAID = 3

_IF = "if answers do not depend on it"
# What sets requests apart beside their bodies. [cache] ignore_fields knows none of it.
_REMEDIES = {
    "upstream pool": "declare servers that may stand for one another as one pool",
    "tenant": "API keys never share answers, unless [groups] or [clients.NAME] group says so",
    "namespace": "let clients name the same kv_cache.namespace, or none",
    "cache_key": "let clients name the same kv_cache.cache_key, or none",
    "key_mode": "let clients name the same kv_cache.key_mode",
    "context_aware": "let clients name the same kv_cache.context_aware",
    "query": "let clients send the same query in the URL, or none",
}


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """`compared` requests; of them the share that differs from another in that field only."""

    compared: int
    only_in: dict[str, float]


def apart(entries: Iterable[Entry]) -> Apart:
    """The greatest share first. Entries without their request, and second samples, do not count."""
    requests: dict[int, list[tuple[str, int]]] = {}
    for entry in entries:
        if (kept := request_of(entry)) is not None:
            parts = [(name, hash((name, text))) for name, text in leaves(kept)]
            asked = _asked(kept.identity)
            named = [part for part in parts if not part[0].startswith(asked)]
            requests.setdefault(sum(number for _, number in parts), named)
    found = {name: len(alike) / len(requests) for name, alike in _alike(requests).items()}
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return Apart(compared=len(requests), only_in=dict(ordered))


def sentences(told: Apart) -> Iterator[str]:
    """The first few fields that keep a tenth or more apart."""
    return (says for says, _ in advice(told))


def advice(told: Apart) -> Iterator[tuple[str, str]]:
    """The same sentences, each with what to do where answers do not depend on that field."""
    for name, share in list(told.only_in.items())[:MOST_SAID]:
        if share >= WORTH_SAYING:
            requests = f"{share:.0%} of {told.compared:,} stored requests"
            yield f"{requests} differ from another only in {name}", _remedy(name)


def _remedy(name: str) -> str:
    """`name` as `leaves` spells it: a control, `header NAME`, or a path in the body."""
    if name in _REMEDIES:
        return _REMEDIES[name]
    if name.startswith("header "):
        return f"let clients send the same {name.removeprefix('header ')}, or none"
    field = re.split(r"[.\[]", name, maxsplit=1)[0]
    if field in ("messages", "system", "input", "instructions"):
        return "leave out of that text what changes (a date, an id), if answers do not depend on it"
    if field == "model":
        return "ask for one model, if either will do"
    return f"leave {field} out of requests, or name it in [cache] ignore_fields, {_IF}"


def _alike(requests: dict[int, list[tuple[str, int]]]) -> dict[str, set[int]]:
    """By field, the requests that another one equals but for it; one may lack the field."""
    rests: dict[tuple[str, int], set[int]] = defaultdict(set)
    for whole, parts in requests.items():
        for name, number in parts:
            rests[name, whole - number].add(whole)
    found: dict[str, set[int]] = defaultdict(set)
    for (name, rest), alike in rests.items():
        if rest in requests:
            alike.add(rest)
        if len(alike) > 1:
            found[name.removesuffix(" (json)")] |= alike
    return found


def _asked(body: dict[str, Any]) -> tuple[str, ...]:
    """How the paths of the question itself begin."""
    found = ["prompt"]
    for name in ("messages", "input"):
        items = body.get(name)
        if isinstance(items, list) and items and isinstance(items[-1], dict):
            found.append(f"{name}[{len(items) - 1}]")
        else:
            found.append(name)
    return tuple(found)
