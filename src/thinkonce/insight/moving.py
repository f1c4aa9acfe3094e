"""Entries on their way from one store to another: what an export says, what an import takes.

    {"thinkonce_export": 1, "secret": "fingerprint", "held": {...}, ...}    first
    an entry a line, in order of keys (see `carried`)
    {"end": true, "entries": n, "expired": n, "not_movable": n}             last

A file without its last line is cut off; an import takes what there is and says so. Importing the
same file twice changes nothing: what is there already, or newer, stays. Entries of several tenants
never become one's unless each of these was named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from thinkonce.entry import Entry
from thinkonce.errors import CorruptEntry, RequestError, ThinkOnceError, TierError
from thinkonce.insight.carried import Carried, carried, entry_from, line_of, read_line
from thinkonce.insight.carried_hint import hint_for
from thinkonce.likeness import Hint
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf
from thinkonce.tiers.tier import Key

__all__ = (
    "COUNTS",
    "FORMAT",
    "End",
    "ForeignSecret",
    "Importer",
    "Into",
    "Opening",
    "end_in",
    "export_lines",
    "read_opening",
)

FORMAT = 1
PAGE = 25  # entries read at a time: each may take a megabyte
BATCH_ENTRIES, BATCH_BYTES = 200, 8 * 2**20  # between two waits for the store
FLUSH_SECONDS = 30.0
# What can become of a line. `left_out`: it belongs to a tenant that was not named.
COUNTS = ("imported", "present", "expired", "left_out", "failed")


Into = Callable[[str], str]


class ForeignSecret(ThinkOnceError):
    """The file's keys and tenants were made under another secret, so they mean nothing here."""


class Opening(msgspec.Struct, kw_only=True):
    """The first line. `held`: entries by tier when the export began. `tenant`: only its entries."""

    thinkonce_export: int
    secret: str
    made_at: float
    held: dict[str, int] = {}
    tenant: str | None = None


class End(msgspec.Struct, kw_only=True):
    """The last line: what the file holds, and what was left out."""

    end: bool
    entries: int = 0
    expired: int = 0
    not_movable: int = 0


def end_in(line: bytes) -> End | None:
    """The last line of an export; None for any other."""
    if not line.startswith(b'{"end":'):
        return None
    try:
        return msgspec.json.decode(line, type=End)
    except msgspec.MsgspecError:
        return None


def export_lines(shelf: Shelf, selector: Selector, after: bytes = b"") -> Iterator[bytes]:
    """All of an export, each line with its newline. Raises TierError."""
    now = shelf.clock.wall()
    held = {name: stats.entries for name, stats in shelf.tier_stats().items()}
    opening = Opening(
        thinkonce_export=FORMAT,
        secret=shelf.fingerprint,
        made_at=now,
        held=held,
        tenant=selector.tenant,
    )
    yield msgspec.json.encode(opening) + b"\n"
    end = End(end=True)
    while page := shelf.entries(selector, PAGE, after):
        after = page[-1].digest
        for entry in page:
            line, name = _exported(shelf, entry, now)
            setattr(end, name, getattr(end, name) + 1)
            if line:
                yield line + b"\n"
    yield msgspec.json.encode(end) + b"\n"


def _whole_hint(shelf: Shelf, entry: Entry) -> Hint | None:
    """The store keeps beside the entries what questions are compared by."""
    hint = entry.hint
    if hint is None or hint.vector or shelf.store is None:
        return hint
    kept = shelf.store.questions.of(entry.digest)
    if kept is None:
        return hint
    parts = (kept.embedder, kept.vector, kept.fingerprint)
    return Hint(hint.partition, hint.text, *parts, hint.member)


def _exported(shelf: Shelf, entry: Entry, now: float) -> tuple[bytes, str]:
    if entry.expires_at <= now:
        return b"", "expired"
    try:
        return line_of(carried(entry, _whole_hint(shelf, entry))), "entries"
    except TypeError:  # a value that is copied, or in memory only
        return b"", "not_movable"


def read_opening(line: bytes) -> Opening:
    """Raises RequestError for a file that `export` did not write, or a later release did."""
    try:
        opening = msgspec.json.decode(line, type=Opening)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        accepts = "the first line of a file that `export` wrote"
        raise RequestError("line 1", line[:80].decode(errors="replace"), accepts) from error
    if opening.thinkonce_export != FORMAT:
        accepts = f"format {FORMAT}; a newer release reads newer ones"
        raise RequestError("thinkonce_export", opening.thinkonce_export, accepts)
    return opening


@dataclass(slots=True)
class _Batch:
    keys: list[tuple[int, Key]] = field(default_factory=list)
    bytes: int = 0


class Importer:
    """Takes the lines of one export. Blocks on the store's disk, so it belongs in a thread.

    `into`: by endpoint, the tenant whose entries they become (one key in two headers is two
    tenants); None: whoever had them, which takes the same secret. `of`: the tenants of the file
    whose entries are taken, none: all, and with `into` those of the first one met alone. Larger
    answers than `max_bytes` are refused.
    """

    def __init__(
        self,
        shelf: Shelf,
        opening: Opening,
        into: Into | None,
        max_bytes: int,
        of: Collection[str] = (),
    ) -> None:
        if into is None and opening.secret != shelf.fingerprint:
            raise ForeignSecret(
                f"secret: the file was written under the one with fingerprint {opening.secret}, "
                f"and here it is {shelf.fingerprint}: its tenants mean nobody here. Name the "
                "tenant that the entries shall belong to; their keys are then made again"
            )
        self._shelf, self._into, self._max_bytes = shelf, into, max_bytes
        self._of, self._met = frozenset(of), ""
        self._batch = _Batch()
        self.counts = dict.fromkeys(COUNTS, 0)
        self.ended = False

    def take(self, number: int, line: bytes) -> str:
        """ "" or why line `number` (from 1) was not taken. Raises nothing for a bad line."""
        if end_in(line) is not None:
            self.ended = True
            return ""
        try:
            self.counts[self._take(number, line)] += 1
        except CorruptEntry as error:  # of the line; our own tiers drop what is damaged
            self.counts["failed"] += 1
            return f"failed while {error.doing}"
        except (RequestError, TierError) as error:
            self.counts["failed"] += 1
            return str(error)
        return ""

    def is_full(self) -> bool:
        """Whether `settle` should be called before more is taken."""
        return len(self._batch.keys) >= BATCH_ENTRIES or self._batch.bytes >= BATCH_BYTES

    def settle(self) -> list[tuple[int, str]]:
        """Wait until what was taken is durable; the lines that the store did not keep, and why."""
        batch, self._batch = self._batch, _Batch()
        store = self._shelf.store
        if store is None:
            return []
        store.flush(FLUSH_SECONDS)
        lost = [number for number, key in batch.keys if store.get(key) is None]
        self.counts["imported"] -= len(lost)
        self.counts["failed"] += len(lost)
        return [(number, "the store did not write it in time") for number in lost]

    def told(self) -> dict[str, Any]:
        return {**self.counts, "complete": self.ended}

    def _take(self, number: int, line: bytes) -> str:
        item = read_line(line)
        if not self._is_wanted(item.meta.tenant):
            return "left_out"
        if item.expires_at is not None and item.expires_at <= self._shelf.clock.wall():
            return "expired"
        if len(item.payload) > self._max_bytes:
            accepts = f"up to {self._max_bytes} bytes ([cache] max_entry_bytes)"
            raise RequestError("payload", f"{len(item.payload)} bytes", accepts)
        key = self._key_of(item)
        if self._has(key, item.created_at):
            return "present"
        tenant = None if self._into is None else self._into(item.meta.scope)
        hint = hint_for(item, self._shelf.keyer, tenant)
        self._put(key, entry_from(item, key.digest, hint, tenant))
        self._batch.keys.append((number, key))
        self._batch.bytes += len(item.payload)
        return "imported"

    def _is_wanted(self, tenant: str) -> bool:
        """Raises RequestError where entries of two tenants would become one's unasked."""
        if self._of or self._into is None:
            return not self._of or tenant in self._of
        self._met = self._met or tenant
        if tenant != self._met:
            accepts = f"{self._met!r} alone, as in the lines before, unless tenants are named"
            raise RequestError("tenant", tenant, accepts)
        return True

    def _key_of(self, item: Carried) -> Key:
        request, written = item.request, bytes.fromhex(item.key)
        if request is None:
            if self._into is not None or self._shelf.store is None:
                accepts = "one, since keys are made again for another tenant or a memory-only cache"
                raise RequestError("request", None, accepts)
            return Key(written, written)
        if self._into is not None:
            request = msgspec.structs.replace(request, tenant=self._into(request.endpoint))
        try:
            key = self._shelf.keyer.key_of(request.parts())
        except (ValueError, OverflowError) as error:  # a number or a text that no request holds
            raise CorruptEntry("line", f"making its key: {error}") from error
        if self._into is None and key.digest != written:
            raise CorruptEntry("line", "checking it: its key is not that of its request")
        return key

    def _has(self, key: Key, created_at: float) -> bool:
        for tier in self._shelf.setting.tiers:
            entry = tier.get(key)
            if entry is not None and entry.created_at >= created_at:
                return True
        return False

    def _put(self, key: Key, entry: Entry) -> None:
        entry.epoch = self._shelf.epoch
        memory, store = self._shelf.memory, self._shelf.store
        if store is None or key.local in memory.map:
            memory.put(key, entry)
            if key.local not in memory.map and store is None:
                raise RequestError("payload", f"{entry.size} bytes", "what memory has room for")
        if store is not None:  # memory is for what is asked, not for what was brought
            store.put(key, entry)
        elif entry.hint is not None and self._shelf.meaning is not None:
            self._shelf.meaning.spaces.add(key, entry.hint)
