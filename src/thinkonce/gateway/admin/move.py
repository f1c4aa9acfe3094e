"""Export and import over HTTP: lines out, lines in (see `insight.moving`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import parse_qs

from thinkonce.engine.http import Call, HttpError
from thinkonce.errors import RequestError
from thinkonce.gateway.admin.desk import Desk
from thinkonce.gateway.admin.look import chosen
from thinkonce.gateway.admin.whose import named
from thinkonce.insight.moving import ForeignSecret, Importer, Into, export_lines, read_opening
from thinkonce.web.lines import lines_of

__all__ = ("export", "import_")

PIECE = 256 * 1024  # bytes sent at a time, but for longer lines
TELL_EVERY = 500  # lines
# A line holds its answer in base64, the request, and the rest.
ROOM_FOR_LINE = 2**20


async def export(desk: Desk, call: Call) -> None:
    """GET export?tag=&namespace=&model=&tenant=&after=: entries that live, in order of keys."""
    selector, after = chosen(call)
    lines = export_lines(desk.shelf, selector, after)
    piece = await asyncio.to_thread(_piece, lines)  # before the head: it may fail
    await desk.begin_lines(call)
    while piece:
        await call.send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = await asyncio.to_thread(_piece, lines)
    await desk.end_lines(call)
    members = call.query.decode("latin-1").split("&")
    which = "&".join(member for member in members if member.partition("=")[2])
    desk.audit(call, f"exported: {which!r:.200}" if which else "exported: all entries")


async def import_(desk: Desk, call: Call) -> None:
    """POST import: JSON lines back for what was not taken and for progress, then sums."""
    into, of = _into(desk, call)
    limit = 2 * desk.settings.cache.max_entry_bytes + ROOM_FOR_LINE
    lines = lines_of(call, limit)
    first = await anext(lines, None)
    opening = (first and first[1]) or b""
    importer = await asyncio.to_thread(_begin, desk, opening, into, of)
    try:
        await desk.begin_lines(call)
        async for number, line in lines:
            await _tell(desk, call, await asyncio.to_thread(_take, importer, number, line, limit))
            if number % TELL_EVERY == 0:
                await desk.send_line(call, {"line": number, **importer.told()})
        await _tell(desk, call, await asyncio.to_thread(importer.settle))
        await desk.send_line(call, {"done": True, **importer.told()})
    finally:  # an import that was broken off has changed something too
        counts = ", ".join(f"{count} {name}" for name, count in importer.counts.items())
        whose = f", into tenant {into('chat/completions')}" if into else ""
        desk.audit(call, f"import: {counts}{whose}")
    await desk.end_lines(call)


def _into(desk: Desk, call: Call) -> tuple[Into | None, list[str]]:
    """The tenant that entries of an endpoint shall belong to, None: whoever had them; and the

    tenants whose entries are meant.
    """
    query = parse_qs(call.query.decode("latin-1"), keep_blank_values=True)
    if unknown := sorted(query.keys() - {"into_tenant", "from_tenant"}):
        raise RequestError(unknown[0], query[unknown[0]][0], "into_tenant, from_tenant")
    into = query.get("into_tenant", [""])[0]
    if into:
        call.head[b"x-thinkonce-tenant"] = into.encode("latin-1", "replace")
    given = named(desk, call)
    of = query.get("from_tenant", [])
    return None if given is None else lambda endpoint: given.of(desk, endpoint), of


def _begin(desk: Desk, first: bytes, into: Into | None, of: list[str]) -> Importer:
    limit = desk.settings.cache.max_entry_bytes
    try:
        return Importer(desk.shelf, read_opening(first), into, limit, of)
    except ForeignSecret as error:
        accepts = "into_tenant, x-thinkonce-group or x-thinkonce-client-authorization"
        raise HttpError(409, f"{error} ({accepts})", code="foreign_secret") from error


def _take(importer: Importer, number: int, line: bytes | None, limit: int) -> list[tuple[int, str]]:
    if line is None:
        importer.counts["failed"] += 1
        return [(number, f"the line is longer than {limit} bytes")]
    why = importer.take(number, line)
    lost = importer.settle() if importer.is_full() else []
    return [(number, why), *lost] if why else lost


def _piece(lines: Iterator[bytes]) -> bytes:
    """b"" at the end."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= PIECE:
            break
    return b"".join(parts)


async def _tell(desk: Desk, call: Call, wrong: list[tuple[int, str]]) -> None:
    for number, why in wrong:
        await desk.send_line(call, {"line": number, "error": why})
