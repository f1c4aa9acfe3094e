"""Changing: purge, limits, removing one entry, saying that one is wrong."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from thinkonce.engine.http import Call, HttpError
from thinkonce.errors import ConfigError, RequestError
from thinkonce.gateway.admin.desk import Desk
from thinkonce.gateway.admin.engines import EnginePurge, purge_engines
from thinkonce.selector import Selector
from thinkonce.tiers.tier import Key
from thinkonce.units import parse_bytes, parse_seconds

__all__ = ("Feedback", "Limits", "Purge", "Reset", "feedback", "limits", "purge", "remove", "reset")


MOST_TAGS = 10_000  # of a purge: SQLite takes no more than 32,766 in one statement


class Purge(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST purge. `older_than`: seconds, or a text such as 90s, 1h."""

    tags: list[str] = []
    namespace: str | None = None
    model: str | None = None
    key: str | None = None
    older_than: float | str | None = None
    expired: bool = False
    all: bool = False


class Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST limits: the bounds of the memory tier and of the store."""

    max_size: int | None = None
    max_bytes: int | str | None = None
    store_max_bytes: int | str | None = None


class Feedback(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST entries/{key}/feedback. `question`: what was asked, where a hit in other
    words answered it."""

    wrong: bool
    question: str | None = None


class Reset(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST audits/reset: whose audits begin anew. `tenant` as `stats` shows it."""

    namespace: str | None = None
    tenant: str | None = None
    all: bool = False


async def purge(desk: Desk, call: Call) -> None:
    wanted = await desk.body(call, Purge)
    if wanted == Purge():
        raise HttpError(
            400,
            "purge: nothing named; give tags, namespace, model, key, older_than, expired, "
            'or {"all": true}',
        )
    if len(wanted.tags) > MOST_TAGS:
        raise RequestError("tags", f"{len(wanted.tags)} tags", f"up to {MOST_TAGS} at a time")
    now = desk.shelf.clock.wall()
    older = wanted.older_than
    selector = Selector(
        tags=tuple(wanted.tags),
        namespace=wanted.namespace,
        model=wanted.model,
        key=b"" if wanted.key is None else await desk.digest(wanted.key),
        older_than=None if older is None else now - _seconds("older_than", older),
        expired_before=now if wanted.expired else None,
    )
    gone = await asyncio.to_thread(desk.shelf.purge, selector)
    desk.audit(call, f"purged {gone} entries: {_said(wanted)}")
    engines = await _purge_engines(desk, wanted)
    await desk.send(call, {"purged": gone} | ({"engines": engines} if engines else {}))


async def _purge_engines(desk: Desk, wanted: Purge) -> dict[str, EnginePurge]:
    """Attention state too, where what is named can be told of it; what each engine did, by its
    address. Raises HttpError 502.
    """
    fields = msgspec.structs.asdict(wanted)
    said = {name: value for name, value in fields.items() if value != getattr(Purge(), name)}
    if not said.keys() <= {"tags", "namespace", "model", "all"}:
        return {}
    # With `all`, whatever else is named narrows it here too.
    told = {name: value for name, value in said.items() if name != "all"} or {"all": True}
    done = await purge_engines(desk.settings, told)
    failed = [f"{url}: {each.failed}" for url, each in done.items() if each.failed]
    if failed:
        what = "; ".join(failed)
        raise HttpError(
            502,
            f"purged here; attention state was not purged by {what}",
            code="engine_not_purged",
        )
    return done


async def limits(desk: Desk, call: Call) -> None:
    wanted = await desk.body(call, Limits)
    try:
        await desk.team.resize(
            {
                "max_size": wanted.max_size,
                "max_bytes": _bytes("max_bytes", wanted.max_bytes),
                "store_max_bytes": _bytes("store_max_bytes", wanted.store_max_bytes),
            }
        )
    except ConfigError as error:
        raise RequestError(error.setting, error.got, error.accepts) from error
    desk.audit(call, f"limits set: {_said(wanted)}")
    await desk.send(call, desk.team.bounds())


async def remove(desk: Desk, call: Call, name: str) -> None:
    digest = await desk.digest(name)
    gone = int(await asyncio.to_thread(desk.shelf.discard, Key(digest, digest)))
    if not gone:
        raise HttpError(404, f"key: there is no entry {digest.hex()}", code="not_found")
    desk.audit(call, f"removed {digest.hex()}")
    await desk.send(call, {"purged": gone})


async def feedback(desk: Desk, call: Call, name: str) -> None:
    """A wrong answer goes at once, in every process, and hits in other words learn from it.

    Where it is wrong for another question than its own it stays, and never answers that one again.
    """
    said = await desk.body(call, Feedback)
    found = await desk.found(name)
    meaning, learned, goes = desk.shelf.meaning, False, said.wrong
    if said.wrong and meaning is not None:
        learned, stays = await asyncio.to_thread(meaning.wrong, found, said.question)
        goes = not stays
    if goes:
        await asyncio.to_thread(desk.shelf.discard, Key(found.digest, found.digest))
    key, verdict = found.digest.hex(), "wrong" if said.wrong else "right"
    desk.metrics.counted.feedback[verdict] += 1
    desk.audit(call, f"feedback on {key}: {verdict}{', removed' if goes else ''}")
    await desk.send(call, {"key": key, "removed": goes, "learned": learned})


def _seconds(name: str, value: float | str) -> float:
    try:
        return parse_seconds(value, name)
    except ConfigError as error:
        raise RequestError(name, value, error.accepts) from error


def _bytes(name: str, value: int | str | None) -> int | None:
    return None if value is None else parse_bytes(value, name)


def _said(wanted: msgspec.Struct) -> str:
    fields = msgspec.structs.asdict(wanted)
    return ", ".join(f"{name}={value!r}" for name, value in fields.items() if value) or "nothing"


async def reset(desk: Desk, call: Call) -> None:
    """Hits in other words that alarms switched off are served and audited as at the beginning."""
    wanted = await desk.body(call, Reset)
    if wanted == Reset():
        raise HttpError(400, 'audits: nothing named; give namespace, tenant, or {"all": true}')
    meaning, count = desk.shelf.meaning, 0
    if meaning is not None:
        again = partial(meaning.audits.reset, wanted.namespace, tenant=wanted.tenant)
        count = await asyncio.to_thread(again)
    desk.audit(call, f"reset {count} accounts of audits: {_said(wanted)}")
    await desk.send(call, {"reset": count})
