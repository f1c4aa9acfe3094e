"""What `explain` found, as programs get it and as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import msgspec

from thinkonce.entry import Entry
from thinkonce.insight.explain import Compared, Difference, Looked, candidates, look, nearest
from thinkonce.insight.other_words import sentences
from thinkonce.outcome import Outcome
from thinkonce.request.controls import Controls
from thinkonce.request.kept import KeptRequest, read_parts
from thinkonce.request.key import CONTEXT_FREE
from thinkonce.shelf import Shelf

__all__ = ("Explained", "Near", "bypassed", "explained", "paragraphs")

_TEXT = 24  # columns of a label
_MISSING = "(not there)"


class Near(msgspec.Struct, kw_only=True):
    """The stored request most like the one asked. `more`: differences that are not listed."""

    key: str
    age: float
    ttl: float | None
    differences: tuple[Difference, ...]
    more: int = 0


class Explained(msgspec.Struct, kw_only=True):
    """`would` is what the request would get now. Seconds; `ttl` None: no expiry.

    `counts`: of the entries compared, how many have the same model, tenant, namespace; how many
    hold no request. `partitions`: what sets it apart besides its body. `in_other_words`: what
    comparing its question with others would come to (`meaning.finding`), None: it is not compared.
    """

    would: str
    reason: str | None
    key: str
    tier: str | None = None
    age: float | None = None
    ttl: float | None = None
    not_stored: dict[str, Any] | None = None
    nearest: Near | None = None
    in_other_words: dict[str, Any] | None = None
    counts: dict[str, int] = {}
    partitions: dict[str, str] = {}
    note: str = ""


def bypassed(reason: str) -> Explained:
    note = "such a request goes around the cache: it has no key"
    return Explained(would=Outcome.BYPASS, reason=reason, key="", note=note)


def explained(shelf: Shelf, parts: bytes, model: str, controls: Controls) -> Explained:
    """`parts`: what the request's key is made of. Blocks on a store's disk. Raises TierError."""
    key, asked, now = shelf.keyer.key_of(parts), read_parts(parts), shelf.clock.wall()
    found = look(shelf, key, controls)
    told = Explained(
        would=found.outcome,
        reason=None if found.reason is None else str(found.reason),
        key=key.digest.hex(),
        tier=found.tier,
        partitions=_partitions(asked),
    )
    if found.entry is not None:
        told.age, told.ttl = now - found.entry.created_at, _left(found.entry, now)
    if found.outcome is Outcome.MISS:
        near = candidates(shelf, asked.endpoint, model)
        told.counts = _counts(asked, model, near)
        told.nearest = _near(nearest(asked, near), now)
        told.note = _note(found, told)
    return told


def _partitions(asked: KeptRequest) -> dict[str, str]:
    named = {
        "endpoint": asked.endpoint,
        "upstream pool": asked.pool,
        "tenant": asked.tenant,
        "namespace": asked.namespace,
        "cache_key": asked.label,
        "key_mode": "override" if asked.override else "",
        "context_aware": "false" if asked.mode.startswith(CONTEXT_FREE) else "",
        "ignore_fields": asked.mode.removeprefix(CONTEXT_FREE).strip(),
        "query": asked.query,
        **{f"header {name}": value for name, value in asked.headers},
    }
    return {name: value for name, value in named.items() if value}


def _counts(asked: KeptRequest, model: str, near: list[Entry]) -> dict[str, int]:
    return {
        "compared": len(near),
        "same_model": sum(entry.meta.model == model for entry in near),
        "same_tenant": sum(entry.meta.tenant == asked.tenant for entry in near),
        "same_namespace": sum(entry.meta.namespace == asked.namespace for entry in near),
        "without_request": sum(not entry.request for entry in near),
    }


def _near(found: Compared | None, now: float) -> Near | None:
    if found is None:
        return None
    return Near(
        key=found.entry.digest.hex(),
        age=now - found.entry.created_at,
        ttl=_left(found.entry, now),
        differences=found.differences,
        more=found.more,
    )


def _note(found: Looked, told: Explained) -> str:
    if found.entry is not None:
        return "the answer is there, and may not be given"
    if not told.counts["compared"]:
        return "nothing is stored for this endpoint"
    if told.nearest is None:
        return (
            "no stored entry keeps its request ([cache] keep_requests, or stored by an earlier "
            "release), so there is nothing to compare with"
        )
    if any(item.field == "tenant" for item in told.nearest.differences):
        return (
            "the nearest entry is another tenant's: to ask as its client, give the client's key "
            "(--api-key-env NAME, or x-thinkonce-client-authorization)"
        )
    return ""


def _left(entry: Entry, now: float) -> float | None:
    return None if entry.expires_at == inf else entry.expires_at - now


# -- for people --------------------------------------------------------------------------------


def paragraphs(told: Explained) -> Iterator[str]:
    """Lines of text, aligned; under two texts that differ, a mark at the first character."""
    yield _row("would be", told.would + (f" ({told.reason})" if told.reason else ""))
    if told.key:
        yield _row("key", told.key)
    if told.tier:
        yield _row("found in", told.tier)
    if told.age is not None:
        yield _row("age", f"{told.age:.0f} s")
        yield _row("time left", "no expiry" if told.ttl is None else f"{told.ttl:.0f} s")
    if told.not_stored:
        why, ago = told.not_stored["reason"], told.not_stored["ago"]
        detail = f": {told.not_stored['detail']}" if told.not_stored["detail"] else ""
        yield _row("not stored last time", f"{why}{detail} ({ago:.0f} s ago)")
    for name, value in told.partitions.items():
        yield _row(name, value)
    for name, count in told.counts.items():
        yield _row(name.replace("_", " "), str(count))
    if told.nearest is not None:
        yield from _nearest(told.nearest)
    if told.in_other_words is not None:
        yield from _other_words(told.in_other_words)
    if told.note:
        yield _row("note", told.note)


def _nearest(near: Near) -> Iterator[str]:
    yield ""
    left = "no expiry" if near.ttl is None else f"{near.ttl:.0f} s left"
    yield _row("nearest entry", f"{near.key}  (made {near.age:.0f} s ago, {left})")
    for item in near.differences:
        yield from _differing(item)
    if near.more:
        yield f"... and {near.more} more"


def _differing(item: Difference) -> Iterator[str]:
    place = "" if item.character is None else f", character {item.character}"
    yield f"differs in {item.field}{place}"
    yield _row("  asked", _shown(item.asked))
    yield _row("  stored", _shown(item.stored))
    if item.at is not None and item.asked is not None:
        yield _row("", " " * len(_shown(item.asked[: item.at])) + "^")


def _other_words(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    for label, text in sentences(found):
        yield _row(label, _shown(text))


def _shown(text: str | None) -> str:
    """One line, as wide as it looks: what a terminal would act on is escaped."""
    if text is None:
        return _MISSING
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _row(label: str, text: str) -> str:
    return f"{label:<{_TEXT}} {text}"
