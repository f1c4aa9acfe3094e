"""Answers made ready for hits, kept as long as they fit: a bound beside the memory tier's own.

An entry of the memory tier is what was stored. What a hit joins its body from is made of it at the
first hit, is a few times larger, and can be made again at any time: so it is kept apart, the
latest used, within `max_bytes` of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from thinkonce.engine.marks import Ready, make_ready
from thinkonce.engine.plates import Plate
from thinkonce.entry import Entry
from thinkonce.insight.prices import Prices
from thinkonce.protocols.dialect import Asked, Dialect
from thinkonce.settings import Settings

__all__ = ("LEAST", "Parts", "memory_of", "part_of", "share_of")

MIB = 1024 * 1024
# Part of the memory tier's bound that is spent on top of it, for each of two: these, and the memo.
SHARE = 8
LEAST, MOST = 8 * MIB, 64 * MIB
# Bytes a ready answer takes besides payload and templates: headers, objects around them, a slot.
OVERHEAD = 4096


@dataclass(slots=True)
class Kept:
    """`payload` tells whether it is made of this very entry; `made`: bytes of templates counted.

    `plates`: by whether a stream is asked for, and with usage.
    """

    payload: Any
    ready: Ready
    made: int
    size: int
    plates: dict[tuple[bool, bool], Plate] = field(default_factory=dict)

    def was_used(self) -> bool:
        """Whether one of its plates has printed since this was asked last."""
        used = False
        for plate in self.plates.values():
            used, plate.used = used or plate.used, False
        return used


class Parts:
    """Belongs to one event loop. Bounded in bytes; what was not used for longest goes first.

    What a plate prints is noted on the plate alone, so what it is of gets another turn then.
    """

    def __init__(self, prices: Prices, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._prices = prices
        self._kept: dict[bytes, Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def ready(self, entry: Entry, dialect: Dialect) -> Ready:
        """Raises CorruptEntry when the stored bytes are no reply."""
        kept = self._kept.get(entry.digest)
        if kept is not None and kept.payload is entry.payload:
            return kept.ready
        return self._keep(entry, make_ready(entry, dialect, self._prices)).ready

    def serving(self, entry: Entry, dialect: Dialect, asked: Asked) -> Ready | None:
        """`entry` in the shape asked for; None if it cannot take it. Raises CorruptEntry."""
        kept = self._kept.pop(entry.digest, None)
        if kept is not None and kept.payload is entry.payload:
            self._kept[entry.digest] = kept  # now the latest
        else:
            if kept is not None:
                self.bytes -= kept.size
            kept = self._keep(entry, make_ready(entry, dialect, self._prices))
        prepared = kept.ready.prepared
        serves = prepared.serves(asked)
        if prepared.size != kept.made:
            self._recount(kept, prepared.size)
        return kept.ready if serves else None

    def plate(
        self, entry: Entry, dialect: Dialect, asked: Asked, make: Callable[[Ready], Plate]
    ) -> Plate | None:
        """For plain hits on `entry` in the shape asked for; None if it cannot take it.

        Kept with what it is of, so it may be gone at once. Raises CorruptEntry.
        """
        ready = self.serving(entry, dialect, asked)
        if ready is None:
            return None
        shape = asked.stream, asked.include_usage
        kept = self._kept.get(entry.digest)
        plate = None if kept is None else kept.plates.get(shape)
        if plate is None or plate.entry is not entry:
            plate = make(ready)
            if kept is not None:
                kept.plates[shape] = plate
        return plate

    def _keep(self, entry: Entry, ready: Ready) -> Kept:
        old = self._kept.pop(entry.digest, None)
        if old is not None:
            self.bytes -= old.size
        size = OVERHEAD + len(entry.payload) + len(entry.request)
        kept = self._kept[entry.digest] = Kept(entry.payload, ready, 0, size)
        self.bytes += size
        self._make_room()
        return kept

    def _recount(self, kept: Kept, made: int) -> None:
        if self._kept.get(kept.ready.digest) is not kept:
            return  # too large to be kept at all
        more = made - kept.made
        kept.made, kept.size = made, kept.size + more
        self.bytes += more
        self._make_room()

    def _make_room(self) -> None:
        while self.bytes > self.max_bytes:
            oldest = next(iter(self._kept))
            kept = self._kept.pop(oldest)
            if kept.was_used():
                self._kept[oldest] = kept
            else:
                self.bytes -= kept.size


def share_of(settings: Settings, *, least: int = 0) -> int:
    """What may be spent beside the memory tier, by each worker."""
    max_bytes = settings.cache.max_bytes
    spent = MOST if max_bytes is None else max(least, min(max_bytes // SHARE, MOST))
    return spent // settings.gateway.workers


def memory_of(settings: Settings) -> tuple[int | None, int | None]:
    """Entries and bytes that each worker may hold in memory."""
    cache, workers = settings.cache, settings.gateway.workers
    return part_of(cache.max_size, workers), part_of(cache.max_bytes, workers)


def part_of(bound: int | None, workers: int) -> int | None:
    """What one of so many workers may hold of a bound for all of them."""
    return bound if bound is None or bound < 1 else max(1, bound // workers)
