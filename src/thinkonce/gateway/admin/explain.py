"""Explain: would this request hit, and if not, why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from thinkonce.engine.asking import Asking, Reader, version_free
from thinkonce.engine.http import Call, Head, read_body
from thinkonce.engine.refusals import Refusal
from thinkonce.errors import RequestError
from thinkonce.gateway.admin.desk import BODY_LIMIT, Desk
from thinkonce.gateway.admin.questions import parts_of
from thinkonce.gateway.admin.whose import (
    API_KEY,
    AUTHORIZATION,
    GROUP,
    OF_OPENAI,
    TENANT,
    named,
    only_tenant,
)
from thinkonce.insight.explain import look
from thinkonce.insight.explained import Explained, bypassed, explained
from thinkonce.outcome import Outcome, Reason
from thinkonce.protocols.registry import facts_of, likely
from thinkonce.request.headers import SECRETS
from thinkonce.shelf import Shelf
from thinkonce.upstream.failure import Header

__all__ = ("Asked", "asked_in", "explain", "explain_request")

_OURS = frozenset(
    {b"x-thinkonce-admin-token", TENANT, GROUP, AUTHORIZATION, API_KEY}
    | {b"content-type", b"content-encoding"}
)


class _Line(msgspec.Struct):
    """A line of a batch, or a bare request: then it has neither url nor body."""

    url: str = ""
    body: msgspec.Raw = msgspec.Raw(b"")


class Asked(msgspec.Struct, frozen=True):
    """A request to explain: where it goes, its URL's query, its body."""

    endpoint: str
    query: bytes
    raw: bytes


async def explain(desk: Desk, call: Call) -> None:
    """POST explain?endpoint=: the headers are the client's, but for our own token."""
    query = parse_qs(call.query.decode("latin-1"))
    if unknown := sorted(query.keys() - {"endpoint"}):
        raise RequestError(unknown[0], query[unknown[0]][0], "endpoint")
    raw = await read_body(call, min(BODY_LIMIT * 32, desk.settings.gateway.body_limit))
    asked = asked_in(raw, query.get("endpoint", [""])[0], call.headers)
    given, tenant = named(desk, call), ""
    headers = [pair for pair in call.headers if pair[0] not in _OURS]
    if given is not None:
        tenant = given.tenant
        headers = [pair for pair in headers if pair[0] not in OF_OPENAI]
        headers += given.credential(asked.endpoint)
    told = await asyncio.to_thread(
        explain_request, desk.readers, desk.shelf, asked, headers, tenant, desk.team.refusal
    )
    await desk.send(call, told)


def asked_in(raw: bytes, endpoint: str, headers: list[Header]) -> Asked:
    """A Batch line, or a bare body whose endpoint is named or guessed by its fields.

    Raises RequestError for JSON that is neither.
    """
    try:
        line = msgspec.json.decode(raw, type=_Line)
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        accepts = f"a JSON object: a request, or a line of a batch ({error})"
        raise RequestError("body", raw[:60].decode(errors="replace"), accepts) from error
    if line.url and bytes(line.body):
        try:
            parts = urlsplit(line.url)
        except ValueError as error:
            raise RequestError("url", line.url[:200], f"a URL or a path ({error})") from error
        query = parts.query.encode("latin-1", "replace")
        return Asked(version_free(parts.path), query, bytes(line.body))
    return Asked(version_free("/" + endpoint) or likely(fields, dict(headers)), b"", raw)


def explain_request(
    readers: Mapping[str, Reader],
    shelf: Shelf,
    asked: Asked,
    headers: list[Header],
    tenant: str = "",
    refused: Callable[[bytes], Refusal | None] | None = None,
) -> Explained:
    """Blocks on a store's disk. `tenant` "": the credential's; without one, the only there is.

    `refused` tells by a key why its last answer was not stored.

    Raises HttpError and RequestError as the request itself would, and TierError.
    """
    reader = readers.get(asked.endpoint)
    if reader is None:
        known = ", ".join(sorted(readers))
        raise RequestError("endpoint", asked.endpoint, f"one of {known}")
    names = {name for name, _ in headers}
    sent = [pair for pair in facts_of(asked.endpoint).sent if pair[0] not in names]
    head = _Head([*headers, *sent, (b"content-type", b"application/json")], asked.query)
    if not tenant and names.isdisjoint(SECRETS):
        tenant = only_tenant(shelf) or ""
    head.tenant = tenant
    asking = reader.read(head, asked.raw)
    questions = parts_of(reader, asked.endpoint, asked.query, asking)
    if not questions:
        return bypassed(str(asking.bypass or Reason.UNKEYABLE))
    told = _first_miss(shelf, questions, asking)
    told.in_other_words = _in_other_words(reader, shelf, asked.query, asking)
    refusal = None if refused is None else refused(bytes.fromhex(told.key))
    if refusal is not None:
        told.not_stored = {
            "reason": str(refusal.reason),
            "detail": refusal.detail,
            "at": refusal.at,
            "ago": shelf.clock.wall() - refusal.at,
        }
    return told


def _in_other_words(
    reader: Reader, shelf: Shelf, query: bytes, asking: Asking
) -> dict[str, Any] | None:
    """What comparing its question would come to; None where none is compared."""
    meaning, wording = shelf.meaning, reader.wording(query, asking)
    if meaning is None or wording is None:
        return None
    meta = asking.meta(reader.name, shelf.setting.rules)
    return meaning.examine(wording, meta, asking.controls.semantic).told()


def _first_miss(shelf: Shelf, questions: list[bytes], asking: Asking) -> Explained:
    """Of a batch the first input, of a sampled request the first sample, that would not be a hit;
    or the last one."""
    model, controls = asking.asked.model, asking.controls
    keys = [shelf.keyer.key_of(parts) for parts in questions]
    hits = [look(shelf, key, controls).outcome is Outcome.HIT for key in keys]
    place = hits.index(False) if False in hits else -1
    told = explained(shelf, questions[place], model, controls)
    if len(questions) > 1:
        what = "inputs" if asking.draw is None else "samples"
        told.note = f"{sum(hits)} of {len(hits)} {what} would be hits; this is number "
        told.note += str(place % len(hits) + 1)
    return told


class _Head(Head):
    """A head whose tenant may be named: without slots of its own, it can be set."""
