"""Looking: numbers, listings, one entry."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import msgspec

from thinkonce.engine.http import Call, HttpError
from thinkonce.entry import Entry
from thinkonce.errors import CorruptEntry, RequestError
from thinkonce.gateway.admin.desk import Desk
from thinkonce.insight.apart import SAMPLED, apart
from thinkonce.insight.entries import content_of, row_of
from thinkonce.insight.savings import by_dimension, totals
from thinkonce.selector import Selector

__all__ = ("chosen", "entries", "entry", "hex_of", "stats", "whole")

MOST_LISTED = 10_000
_CHOICE = {"tag", "namespace", "model", "tenant"}


async def stats(desk: Desk, call: Call) -> None:
    numbers = await desk.team.numbers()
    saved = await desk.metrics.keeper.sums(numbers.counted.savings)
    told: dict[str, Any] = {
        "store": desk.settings.store.url,
        "tiers": {name: msgspec.structs.asdict(stats) for name, stats in numbers.tiers.items()},
        **desk.team.bounds(),
        **desk.shelf.identity(),
        **numbers.counted.summary(),
        **totals(saved),
        "following": numbers.following,
        "savings": {**by_dimension(saved), "prices": desk.prices.about()},
    }
    if desk.shelf.meaning is not None:
        told["semantic"] = desk.shelf.meaning.told()
        told["semantic"]["compared"] = msgspec.structs.asdict(numbers.compared)
    if parse_qs(call.query.decode("latin-1")).get("apart") == ["true"]:
        sampled = await asyncio.to_thread(desk.shelf.entries, Selector(), SAMPLED)
        told["apart"] = await asyncio.to_thread(apart, sampled)
    for tenant, names in desk.tenants.names().items():
        if tenant in told["savings"]["by_tenant"]:
            told["savings"]["by_tenant"][tenant]["clients"] = names
        for account in told.get("semantic", {}).get("namespaces", ()):
            if account["tenant"] == tenant:
                account["clients"] = names
    await desk.send(call, told)


async def entries(desk: Desk, call: Call) -> None:
    query = _query(call, _CHOICE | {"limit", "after"})
    limit = whole("limit", query.get("limit", ["100"])[0], MOST_LISTED)
    after = hex_of("after", query.get("after", [""])[0])
    found = await asyncio.to_thread(desk.shelf.entries, _selector(query), limit, after)
    now = desk.shelf.clock.wall()
    rows = [row_of(entry, now) for entry in found]
    following = rows[-1].key if len(rows) == limit else None
    await desk.send(call, {"entries": rows, "next": following})


async def entry(desk: Desk, call: Call, name: str) -> None:
    found = await desk.found(name)
    told = msgspec.to_builtins(row_of(found, desk.shelf.clock.wall()))
    if parse_qs(call.query.decode("latin-1")).get("content") == ["true"]:
        told["content"] = _content(found)
    await desk.send(call, told)


def chosen(call: Call) -> tuple[Selector, bytes]:
    """Which entries the URL's query means, and the key to begin behind."""
    query = _query(call, _CHOICE | {"after"})
    return _selector(query), hex_of("after", query.get("after", [""])[0])


def hex_of(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise RequestError(name, text, "a key in hex") from None


def _query(call: Call, known: set[str]) -> dict[str, list[str]]:
    query = parse_qs(call.query.decode("latin-1"), keep_blank_values=True)
    unknown = sorted(set(query) - known)
    if unknown:
        raise RequestError(unknown[0], query[unknown[0]][0], ", ".join(sorted(known)))
    return query


def _selector(query: dict[str, list[str]]) -> Selector:
    one: dict[str, str | None] = {
        name: query.get(name, [None])[0] for name in ("namespace", "model", "tenant")
    }
    return Selector(tags=tuple(query.get("tag", ())), **one)  # type: ignore[arg-type]


def whole(name: str, text: str, most: int) -> int:
    """A number of the URL's query, from 1. Raises RequestError."""
    # `int` refuses thousands of digits with an error of its own.
    if not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise RequestError(name, text, f"1 to {most}")
    return int(text)


def _content(found: Entry) -> Any:
    try:
        return content_of(found)
    except CorruptEntry as error:
        raise HttpError(
            422, f"content: cannot be shown here: {error}", code="unreadable"
        ) from error
