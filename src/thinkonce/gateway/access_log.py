"""One line a request, written in batches: a line of `logging` costs more than a hit."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

import msgspec

from thinkonce.web.log_lines import Probes

__all__ = ("AccessLog", "Told")

FLUSH_SECONDS = 0.1
FLUSH_LINES = 500
# Of a tenant, which is a keyed hash: enough to tell apart, too little to try out.
TENANT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Told:
    """What a line says only where it has names for it. `model` as a label; "" for unknown.

    `client`: the name of a known client, from the configuration.
    """

    endpoint: str = ""
    model: str = ""
    tenant: str = ""
    match: str = ""
    tier: str = ""
    tokens_saved: int = 0
    client: str = ""


class AccessLog:
    """Belongs to one event loop. Lines hold no prompt, no answer and no credential.

    time request-id method path status outcome reason milliseconds [not-stored=why]

    The time is RFC 3339 in UTC: 2026-01-31T23:59:59.999Z. `wall` gives seconds since the epoch.
    `as_json`: the same with names, and what `Told` has besides. `every_probe`: probes that are
    answered as they were the last time have a line too.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        *,
        enabled: bool = True,
        as_json: bool = False,
        every_probe: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.enabled, self.as_json, self.every_probe = enabled, as_json, every_probe
        self._probes = Probes()
        self._out, self._wall = out, wall
        self._second, self._written_second = -1, ""  # formatted once a second
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self,
        ids: str,
        what: str,
        status: int,
        outcome: str,
        reason: str,
        seconds: float,
        not_stored: str = "",
        told: Told | None = None,
    ) -> None:
        """`what`: method and path, printable. Of `told` lines of text have the match alone."""
        if not (self._probes.is_news(what, status) or self.every_probe):
            return
        if self.as_json:
            method, _, path = what.partition(" ")
            milliseconds = round(seconds * 1000, 1)
            facts = (ids, method, path, status, outcome, reason, milliseconds, not_stored)
            line = _json_line(self._now(), facts, told or Told())
        else:
            line = (
                f"{self._now()} {ids} {what} {status} {outcome or '-'} {reason or '-'} "
                f"{seconds * 1000:.1f}ms{f' not-stored={not_stored}' if not_stored else ''}"
                f"{f' match={told.match}' if told is not None and told.match else ''}\n"
            )
        self._lines.append(line)
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def _now(self) -> str:
        second, milliseconds = divmod(int(self._wall() * 1000), 1000)
        if second != self._second:
            self._second = second
            self._written_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._written_second}.{milliseconds:03d}Z"

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            out = self._out or sys.stderr
            try:
                out.write("".join(lines))
                out.flush()
            except BlockingIOError:
                pass  # it is full just now: these are lost, later ones are written
            except (OSError, ValueError):  # nobody reads it any more: no reason to fail
                self.enabled = False


_NAMES = ("request_id", "method", "path", "status", "outcome", "reason", "ms", "not_stored")
_encode = msgspec.json.Encoder().encode


def _json_line(at: str, facts: tuple[str | int | float, ...], told: Told) -> str:
    """Without what is not known. JSON escapes control characters, so a line stays one line."""
    line = {"time": at, "level": "info", "logger": "thinkonce.access"}
    known = dict(zip(_NAMES, facts, strict=True)) | {
        "endpoint": told.endpoint,
        "model": told.model,
        "tenant": told.tenant[:TENANT_DIGITS],
        "client": told.client,
        "match": told.match,
        "tier": told.tier,
        "tokens_saved": told.tokens_saved,
    }
    kept = {name: value for name, value in known.items() if value not in ("", "-")}
    return _encode(line | kept).decode() + "\n"
