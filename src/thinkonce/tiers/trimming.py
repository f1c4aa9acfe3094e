"""How a store stays within its bytes: a bounded piece of work after each write.

What counts is the pages in use, hence what the file takes once free pages were given back. A
small part of the bound is left for places between rows that the next rows will take.
"""

from __future__ import annotations

from dataclasses import dataclass

import apsw

from thinkonce.outcome import Reason
from thinkonce.tiers.rows import Rows

__all__ = ("Trimmed", "give_back_pages", "trim", "used_bytes")

BATCH = 200  # entries removed in one transaction: about 2 ms
SPARE_BYTES = 4 * 2**20
SMALL_PART = 16
SPARE_PAGES = 256  # free pages kept for the next writes (4 MiB), beside a quarter of the file
GIVE_BACK = 256  # pages given back to the file system at a time


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What one piece of work removed, and whether there is more to do."""

    removed: dict[str, int]
    more: bool


def trim(database: apsw.Connection, rows: Rows, now: float, max_bytes: int) -> Trimmed:
    """Remove up to BATCH entries that are gone, then as many that hold more than `max_bytes`."""
    gone = rows.expire(now, BATCH)
    spare = min(max_bytes // SMALL_PART, SPARE_BYTES)
    bound = max_bytes - spare
    excess = _taken(database, rows) - bound
    if excess <= 0:
        return Trimmed({Reason.EXPIRED: gone}, gone == BATCH)
    expired, freed = rows.evict_expired(excess, now, BATCH)
    weakest = rows.evict_weakest(excess - freed, BATCH, spare) if freed < excess else 0
    removed: dict[str, int] = {Reason.EXPIRED: gone + expired, Reason.EVICTED: weakest}
    # Pages are free only once nearly all of their rows went, so these may not have been enough.
    over = expired + weakest > 0 and _taken(database, rows) > bound
    return Trimmed(removed, gone == BATCH or over)


def _taken(database: apsw.Connection, rows: Rows) -> int:
    return used_bytes(database) - rows.free_within()


def used_bytes(database: apsw.Connection) -> int:
    page_size: int = database.pragma("page_size")
    pages: int = database.pragma("page_count") - database.pragma("freelist_count")
    return pages * page_size


def give_back_pages(database: apsw.Connection) -> bool:
    """Shorten the file a little if much of it is free; True if there is more to give back."""
    free: int = database.pragma("freelist_count")
    pages: int = database.pragma("page_count")
    surplus = free - SPARE_PAGES
    if surplus <= 0 or free * 4 < pages:
        return False
    database.execute(f"PRAGMA incremental_vacuum({min(surplus, GIVE_BACK)})").fetchall()
    return surplus > GIVE_BACK
