"""The file of an export while it is written: begun, broken off, gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from thinkonce.cli.gateway_view import GatewayError
from thinkonce.errors import ConfigError, CorruptEntry, RequestError
from thinkonce.insight.carried import read_line
from thinkonce.insight.moving import end_in, read_opening

__all__ = ("write",)

TELL_EVERY = 100


@dataclass(slots=True)
class _Begun:
    """What an earlier attempt wrote: whole lines up to byte `end`, the last one's key `after`."""

    end: int = 0
    entries: int = 0
    after: bytes = b""
    secret: str = ""
    tenant: str | None = None


def write(
    part: Path,
    source: Callable[[bytes], Iterator[bytes]],
    report: Callable[[str, float | None], None],
    tenant: str | None = None,
) -> dict[str, int]:
    """Counts of entries written (in all attempts) and left out (in this one).

    `tenant`: only its entries are meant, as `source` knows. Raises ConfigError for a file that
    cannot be written or was begun from another store or for another tenant.
    """
    begun = _begun(part)
    lines = source(begun.after)
    first = next(lines)
    opening = read_opening(first)
    if begun.secret not in ("", opening.secret):
        accepts = "no such file: it was begun from another store; remove it to begin anew"
        raise ConfigError("FILE", str(part), accepts)
    if begun.secret and begun.tenant != tenant:
        accepts = "no such file: it was begun for another tenant; remove it to begin anew"
        raise ConfigError("FILE", str(part), accepts)
    total = max(opening.held.values(), default=0)
    with _opened(part) as out:
        out.truncate(begun.end)
        out.seek(begun.end)
        if not begun.end:
            out.write(first)
        entries, end = begun.entries, None
        for line in lines:
            end = end_in(line)
            if end is None:
                out.write(line)
                entries += 1
            if entries % TELL_EVERY == 0:
                report(f"{entries} entries", min(1.0, entries / max(total, 1)))
        if end is None:
            raise GatewayError(f"the export broke off; the same command goes on with {part}")
        if not entries + end.expired + end.not_movable and total and tenant is None:
            raise GatewayError(
                f"none of {total} entries can be read: [store] secret is not the one they were "
                "written under"
            )
        end.entries = entries
        out.write(msgspec.json.encode(end) + b"\n")
    return {"entries": entries, "expired": end.expired, "not_movable": end.not_movable}


def _begun(part: Path) -> _Begun:
    begun = _Begun()
    if not part.exists():
        return begun
    with part.open("rb") as opened:
        for line in opened:
            if not line.endswith(b"\n"):
                break
            try:
                if begun.secret:
                    begun.after = bytes.fromhex(read_line(line).key)
                    begun.entries += 1
                else:
                    opening = read_opening(line)
                    begun.secret, begun.tenant = opening.secret, opening.tenant
            except (CorruptEntry, RequestError):  # half a line, or the last one of all
                break
            begun.end += len(line)
    return begun if begun.entries else _Begun()


def _opened(part: Path) -> BinaryIO:
    """For this user alone: it holds what people asked."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        accepts = f"a path that this user may write ({error.strerror})"
        raise ConfigError("FILE", str(part), accepts) from None
    return os.fdopen(descriptor, "r+b")
