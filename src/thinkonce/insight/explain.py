"""Would a request hit; and if not, what keeps it apart from the stored one most like it.

    look      the entry under the very key, and what it is good for now
    nearest   among kept requests of the endpoint, the one that differs least
    compare   where two requests differ: which control or field, which message, which character

Nothing is counted, stored or called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from thinkonce.entry import Entry
from thinkonce.errors import TierError
from thinkonce.freshness import Verdict, judge
from thinkonce.insight.carried import request_of
from thinkonce.outcome import Outcome, Reason
from thinkonce.request.controls import Controls
from thinkonce.request.kept import KeptRequest
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf
from thinkonce.tiers.tier import Key

__all__ = ("Compared", "Difference", "Looked", "candidates", "compare", "look", "nearest")

# Kept requests to compare with: about 50 us each. Keys are random, so any of them are a sample.
MOST_COMPARED = 2000
MOST_DIFFERENCES = 20
AROUND = 30  # characters shown on either side of the first that differs

_OUTCOMES = {
    Verdict.FRESH: Outcome.HIT,
    Verdict.EARLY: Outcome.HIT,
    Verdict.STALE: Outcome.STALE,
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a request would get now. `entry` may be there and yet not serve: `reason` says why."""

    outcome: Outcome
    reason: Reason | None
    entry: Entry | None = None
    tier: str | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`field` is a path such as messages[1].content, or a control's name.

    For two texts `character` (from 0) is the first that differs, and `asked` and `stored` are cut
    around it; `at` is its place in each of these. None: the field is not there.
    """

    field: str
    asked: str | None
    stored: str | None
    character: int | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """The stored request most like the one asked. `differences`: in order, the first few."""

    entry: Entry
    differences: tuple[Difference, ...]
    more: int


def look(shelf: Shelf, key: Key, controls: Controls) -> Looked:
    """In a thread: a store's disk may take its time. A tier that fails is passed over."""
    setting, best = shelf.setting, None
    now = (setting.clock.wall(), setting.clock.monotonic())
    for tier in setting.tiers:
        try:
            entry = tier.peek(key)
        except TierError:
            best = best or Looked(Outcome.MISS, Reason.TIER_ERROR)
            continue
        if entry is None:
            continue
        verdict, why = judge(entry, controls, setting.rules, now, 1.0)
        found = Looked(_OUTCOMES.get(verdict, Outcome.MISS), why, entry, tier.name)
        if verdict in _OUTCOMES:
            return found
        best = found if best is None or best.entry is None else best
    return best or Looked(Outcome.MISS, setting.why_gone(key) or Reason.NEW)


def candidates(shelf: Shelf, endpoint: str, model: str) -> list[Entry]:
    """Entries to compare with: of the same model, and then of others. Raises TierError."""
    alike = shelf.entries(Selector(scope=endpoint, model=model), MOST_COMPARED)
    if len(alike) == MOST_COMPARED:
        return alike
    found = {entry.digest: entry for entry in alike}
    for entry in shelf.entries(Selector(scope=endpoint), MOST_COMPARED):
        found.setdefault(entry.digest, entry)
    return list(found.values())[:MOST_COMPARED]


def nearest(asked: KeptRequest, entries: Iterable[Entry]) -> Compared | None:
    """None where no entry keeps its request. The entry of the same request does not count."""
    ours = dict(leaves(asked))
    best: tuple[float, Entry, KeptRequest] | None = None
    for entry in entries:
        stored = request_of(entry)
        if stored is None or msgspec.structs.replace(stored, sample=asked.sample) == asked:
            continue
        apart = _distance(ours, dict(leaves(stored)))
        if best is None or apart < best[0]:
            best = (apart, entry, stored)
    if best is None:
        return None
    found = compare(asked, best[2])
    return Compared(best[1], tuple(found[:MOST_DIFFERENCES]), len(found[MOST_DIFFERENCES:]))


def compare(asked: KeptRequest, stored: KeptRequest) -> list[Difference]:
    """Every field that differs: what partitions first, then the body in the order of its fields."""
    ours, theirs = dict(leaves(asked)), dict(leaves(stored))
    fields = [*ours, *(name for name in theirs if name not in ours)]
    return [
        _difference(name, ours.get(name), theirs.get(name))
        for name in fields
        if ours.get(name) != theirs.get(name)
    ]


def leaves(request: KeptRequest) -> Iterator[tuple[str, str]]:
    """What counts, as paths and texts; equal requests have equal leaves."""
    for name, control in _CONTROLS.items():
        value = getattr(request, name)
        yield control, value if isinstance(value, str) else msgspec.json.encode(value).decode()
    for name, value in request.headers:
        yield f"header {name}", value
    yield "query", request.query
    body = request.identity
    first = [name for name in ("model", "system", "messages") if name in body]
    for name in (*first, *sorted(body.keys() - {*first})):
        yield from _leaves(name, body[name])


_CONTROLS = {
    "endpoint": "endpoint",
    "pool": "upstream pool",
    "tenant": "tenant",
    "namespace": "namespace",
    "label": "cache_key",
    "override": "key_mode",
    "mode": "context_aware",
}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name in sorted(value):
            yield from _leaves(f"{path}.{name}", value[name])
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(f"{path}[{number}]", item)
    else:
        # A text keeps its quotes off, anything else is its JSON: so "1" and 1 must be told apart.
        plain = isinstance(value, str)
        yield (path, value) if plain else (f"{path} (json)", msgspec.json.encode(value).decode())


def _distance(ours: dict[str, str], theirs: dict[str, str]) -> float:
    """0 for equal leaves; each leaf that differs adds up to 1, texts by how much they share."""
    apart = float(len(ours.keys() ^ theirs.keys()))
    for name in ours.keys() & theirs.keys():
        if ours[name] != theirs[name]:
            apart += 0.1 + 0.9 * _unlike(ours[name], theirs[name])
    return apart


def _unlike(one: str, other: str) -> float:
    """The share that neither a common beginning nor a common end covers."""
    longest = max(len(one), len(other))
    head = _shared(one, other)
    tail = _shared(one[head:][::-1], other[head:][::-1])
    return 1 - (head + tail) / longest


def _shared(one: str, other: str) -> int:
    """Characters that both begin with. By halving: comparing slices costs next to nothing."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _difference(name: str, asked: str | None, stored: str | None) -> Difference:
    field = name.removesuffix(" (json)")
    if asked is None or stored is None:
        return Difference(field=field, asked=_short(asked), stored=_short(stored))
    place = _shared(asked, stored)
    start = max(place - AROUND, 0)
    return Difference(
        field=field,
        asked=asked[start : place + AROUND],
        stored=stored[start : place + AROUND],
        character=place,
        at=place - start,
    )


def _short(text: str | None) -> str | None:
    return None if text is None else text[: 2 * AROUND]
