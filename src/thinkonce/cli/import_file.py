"""The lines of an export on their way into a gateway or a store's file.

Both give rows: {"line": n, "error": why}, and sums after each piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from thinkonce.cli.gateway_view import GatewayError, GatewayView
from thinkonce.cli.line_file import pieces
from thinkonce.cli.whose import WHOSE
from thinkonce.engine.tenants import Tenants
from thinkonce.errors import MISSING, ConfigError
from thinkonce.insight.moving import COUNTS, ForeignSecret, Importer, Into, read_opening
from thinkonce.protocols.registry import facts_of
from thinkonce.request.headers import take_headers
from thinkonce.settings import Settings
from thinkonce.shelf import Shelf

__all__ = ("check_one_tenant", "into_gateway", "into_store", "tenant_named")

# Sent at a time, then the answer is read: small enough that neither side waits for the other.
MOST_LINES, MOST_BYTES = 500, 8 * 2**20

Rows = Iterator[dict[str, Any]]
SHOWN_TENANTS = 10


class _Owner(msgspec.Struct):
    tenant: str = ""


class _Owned(msgspec.Struct):
    meta: _Owner


_owned = msgspec.json.Decoder(_Owned).decode


def check_one_tenant(file: Path) -> None:
    """Raises ConfigError where `file` holds entries of several tenants, with their counts."""
    found: Counter[str] = Counter()
    with file.open("rb") as lines:
        for line in lines:
            try:
                found[_owned(line).meta.tenant] += 1
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue  # the first line, the last, or one that the import will name
    if len(found) < 2:
        return
    shown = ", ".join(f"{name!r} ({count})" for name, count in found.most_common(SHOWN_TENANTS))
    more = f" and {len(found) - SHOWN_TENANTS} more" if len(found) > SHOWN_TENANTS else ""
    accepts = f"whose entries are meant, of {len(found)} tenants in {file}: {shown}{more}"
    raise ConfigError("--from-tenant", MISSING, accepts)


def into_gateway(view: GatewayView, file: Path, headers: dict[str, str], of: Sequence[str]) -> Rows:
    """Raises GatewayError; ConfigError where it must be said whose entries they shall be."""
    opening, path = b"", "/cache/import"
    if of:
        path += "?" + urlencode([("from_tenant", tenant) for tenant in of])
    sums: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    for first, lines in pieces(file, MOST_LINES, MOST_BYTES):
        opening = opening or lines[0]
        body = b"".join(lines if first == 1 else [opening, *lines])
        shift = 0 if first == 1 else first - 2  # the opening goes before each piece
        ended = False
        for raw in view.lines("POST", path, body, headers):
            row = msgspec.json.decode(raw, type=dict[str, Any])
            if "error" in row:
                yield {**row, "line": row["line"] + shift}
            elif "done" in row:
                ended = True
                sums = {name: sums[name] + row[name] for name in COUNTS}
                yield {**sums, "complete": row["complete"]}
        if not ended:
            raise GatewayError(f"{view.place} broke off its answer after line {first - 1}")


def into_store(
    shelf: Shelf, settings: Settings, file: Path, headers: dict[str, str], of: Sequence[str]
) -> Rows:
    """Raises ConfigError as `into_gateway`, RequestError for a file that is no export."""
    into = tenant_named(shelf, settings, headers)
    importer: Importer | None = None
    for first, lines in pieces(file, MOST_LINES, MOST_BYTES):
        for number, line in enumerate(lines, start=first):
            if importer is None:
                importer = _begin(shelf, line, into, settings.cache.max_entry_bytes, of)
            elif line.strip():
                if why := importer.take(number, line.rstrip(b"\n")):
                    yield {"line": number, "error": why}
                yield from _lost(importer) if importer.is_full() else ()
        assert importer is not None
        yield from _lost(importer)
        yield importer.told()
    if importer is None:
        read_opening(b"")


def _lost(importer: Importer) -> Rows:
    return ({"line": number, "error": why} for number, why in importer.settle())


def _begin(
    shelf: Shelf, line: bytes, into: Into | None, max_bytes: int, of: Sequence[str]
) -> Importer:
    try:
        return Importer(shelf, read_opening(line), into, max_bytes, of)
    except ForeignSecret as error:
        raise ConfigError("the tenant of the entries", MISSING, f"{WHOSE} ({error})") from None


def tenant_named(shelf: Shelf, settings: Settings, headers: dict[str, str]) -> Into | None:
    """Whom `headers` name, by endpoint, as the gateway reads them; None: nobody."""
    tenants = Tenants(shelf.keyer, settings.groups, settings.clients)
    if (tenant := headers.get("x-thinkonce-tenant")) is not None:
        named = tenants.checked(tenant)
        return lambda _: named
    if (group := headers.get("x-thinkonce-group")) is not None:
        named = tenants.of_group(group)
        return lambda _: named
    key = headers.get("x-thinkonce-client-api-key")
    if key is None:
        return None
    openai = [(name, value) for name, value in headers.items() if name.startswith("openai-")]

    def of(endpoint: str) -> str:
        name = facts_of(endpoint).key_header
        own = (name.decode(), f"Bearer {key}" if name == b"authorization" else key)
        sent = [(name.encode(), value.encode("latin-1")) for name, value in (own, *openai)]
        return tenants.of(take_headers(sent).credential)

    return of
