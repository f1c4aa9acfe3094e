"""What is written into a store and taken out of it, inside a transaction of the caller.

Eviction follows the cost policy of the memory tier (`eviction.cost`), without its ghost:

    score = L + (uses - 1/2) * weight * (cost / bytes) ** 0.6

L is the highest score evicted so far, shared by all processes, so that what was once popular ages
without anybody touching it. Uses are counted by reads that reached the store and written in
batches. Entries past their expiry go before live ones; pinned ones have an infinite score.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import apsw

from thinkonce.entry import PRIORITY_WEIGHT, Entry, Meta
from thinkonce.eviction.cost import ALPHA, FIRST_USE, density
from thinkonce.selector import Purge, Selector
from thinkonce.tiers.aliases import PLAIN, Aliases
from thinkonce.tiers.questions import put_question, seal_question_again
from thinkonce.tiers.schema import get_number, set_number

__all__ = ("Rows", "condition", "marks_for")

ROW_OVERHEAD = 250  # bytes of index entries and the small row; measured over 20,000 rows
TAG_OVERHEAD = 12  # bytes of a tag in its table, and again in the index, besides its text
PINNED_SHARE = 0.5
MOST_HOLES = 400  # places of evicted rows kept for new ones: two batches

PUT_ANSWER = """
INSERT INTO answers(id, digest, value) VALUES(?, ?, ?)
ON CONFLICT(digest) DO UPDATE SET value = excluded.value RETURNING id
"""
PUT_ENTRY = f"""
INSERT INTO entries VALUES(?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9 + ?8 * {FIRST_USE})
ON CONFLICT(id) DO UPDATE SET
    facet = ?2, epoch = ?3, bytes = ?4, created = ?5, expires = ?6, gone = ?7, density = ?8,
    score = ?9 + ?8 * (uses - 1 + {FIRST_USE})
"""
PUT_AGAIN = "UPDATE entries SET facet = ?1, bytes = bytes + ?2 WHERE id = ?3"
FACET = ("tenant", "namespace", "model", "scope")
FIND_FACET = "SELECT id FROM facets WHERE tenant=? AND namespace=? AND model=? AND scope=?"
PUT_FACET = "INSERT INTO facets(tenant, namespace, model, scope) VALUES(?, ?, ?, ?) RETURNING id"
HOLES = "SELECT id FROM holes"
USED = f"""
UPDATE entries SET
    uses = uses + ?1, score = max(score, ?2 + (uses + ?1 - 1 + {FIRST_USE}) * density)
WHERE id = (SELECT id FROM answers WHERE digest = ?3)
"""
# Entries leave in the order of `gone`, and those past their expiry lie first in it.
EXPIRED_FIRST = """
SELECT id, bytes FROM (
    SELECT id, bytes, expires FROM entries WHERE gone < 9e999 ORDER BY gone LIMIT ?2
) WHERE expires <= ?1
"""
WEAKEST = "SELECT id, bytes, score FROM entries ORDER BY score LIMIT ?"
ORPHANS = """
DELETE FROM facets WHERE id IN (
    SELECT id FROM facets
    WHERE NOT EXISTS (SELECT 1 FROM entries WHERE facet = facets.id) LIMIT ?
)
"""


class Rows:
    """The rows of one transaction. Make a new one for each: others write in between."""

    def __init__(self, database: apsw.Connection, aliases: Aliases = PLAIN) -> None:
        self._database, self._aliases = database, aliases
        self._facets: dict[tuple[str, str, str, str], int] = {}
        self._floor = get_number(database, "score_floor")
        self._holes: list[int] = [number for (number,) in database.execute(HOLES)]
        self._pinned_bytes = -1.0  # not counted yet

    # -- writing -----------------------------------------------------------------------

    def put(self, digest: bytes, entry: Entry, value: bytes, max_bytes: int) -> None:
        execute, meta = self._database.execute, entry.meta
        number = self._put_answer(digest, value)
        tags = self._tags(meta)
        size = len(value) + ROW_OVERHEAD + _bytes_of(tags)
        if entry.hint is not None:
            size += entry.hint.size
        weight = PRIORITY_WEIGHT[meta.priority]
        worth = weight * density(entry.cost, size, ALPHA)
        if meta.priority == "pinned" and self._may_pin(size, max_bytes):
            worth = inf
        execute(
            PUT_ENTRY,
            (
                number,
                self._facet(meta),
                entry.epoch,
                size,
                entry.created_at,
                entry.expires_at,
                entry.gone_at,
                worth,
                self._floor,
            ),
        )
        self._put_tags(number, tags)
        if entry.hint is not None:
            put_question(self._database, number, digest, entry.hint, self._aliases)

    def put_again(self, number: int, meta: Meta, value: bytes, grown: int) -> None:
        """Write the same entry in another form, `grown` bytes longer; its uses and score stay."""
        execute = self._database.execute
        execute("UPDATE answers SET value = ? WHERE id = ?", (value, number))
        execute(PUT_AGAIN, (self._facet(meta), grown, number))
        self._put_tags(number, self._tags(meta))
        seal_question_again(self._database, number, self._aliases)

    def _tags(self, meta: Meta) -> list[str]:
        return [self._aliases.written("tag", tag) for tag in dict.fromkeys(meta.tags)]

    def _put_tags(self, number: int, tags: list[str]) -> None:
        execute = self._database.execute
        execute("DELETE FROM tags WHERE id=?", (number,))
        for tag in tags:
            execute("INSERT INTO tags VALUES(?, ?)", (tag, number))

    def _put_answer(self, digest: bytes, value: bytes) -> int:
        hole = self._holes.pop() if self._holes else None
        number: int = self._database.execute(PUT_ANSWER, (hole, digest, value)).get
        if number == hole:
            self._database.execute("DELETE FROM holes WHERE id=?", (hole,))
        elif hole is not None:
            self._holes.append(hole)
        return number

    def used(self, digest: bytes, times: int) -> None:
        self._database.execute(USED, (times, self._floor, digest))

    def _facet(self, meta: Meta) -> int:
        names = (meta.tenant, meta.namespace, meta.model, meta.scope)
        number = self._facets.get(names)
        if number is None:
            written = self._aliases.written
            facet = tuple(written(kind, name) for kind, name in zip(FACET, names, strict=True))
            number = self._database.execute(FIND_FACET, facet).get
            if number is None:
                number = self._database.execute(PUT_FACET, facet).get
            self._facets[names] = number
        return number

    def _may_pin(self, size: int, max_bytes: int) -> bool:
        if self._pinned_bytes < 0:
            pinned = "SELECT total(bytes) FROM entries WHERE score = 9e999"
            self._pinned_bytes = self._database.execute(pinned).get
        if self._pinned_bytes + size > max_bytes * PINNED_SHARE:
            return False
        self._pinned_bytes += size
        return True

    # -- removing ----------------------------------------------------------------------

    def remove(self, chosen: str, values: tuple[object, ...] = ()) -> int:
        """Remove the entries whose ids the query `chosen` gives; return how many."""
        execute = self._database.execute
        execute("DELETE FROM temp.doomed")
        execute(f"INSERT INTO temp.doomed {chosen}", values)
        if not self._database.changes():
            return 0
        for table in ("tags", "questions", "answers", "entries"):
            execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM temp.doomed)")
        return self._database.changes()

    def purge(self, purge: Purge) -> int:
        """Remove what `purge` concerns."""
        execute = self._database.execute
        if purge.selector == Selector() and not self._newer_than(purge.epoch):
            count: int = execute("SELECT count(*) FROM entries").get
            for table in ("tags", "questions", "answers", "entries", "facets", "holes"):
                execute(f"DELETE FROM {table}")  # without a WHERE, pages are freed unread
            self._facets.clear()
            return count
        where, values = condition(purge.selector, self._aliases)
        chosen = f"SELECT e.id FROM entries e WHERE e.epoch < ? AND {where}"
        return self.remove(chosen, (purge.epoch, *values))

    def purge_one(self, purge: Purge, digest: bytes) -> int:
        """Remove the entry under `digest` if `purge` concerns it."""
        where, values = condition(purge.selector, self._aliases)
        chosen = (
            "SELECT e.id FROM entries e WHERE e.id = (SELECT id FROM answers WHERE digest = ?) "
            f"AND e.epoch < ? AND {where}"
        )
        return self.remove(chosen, (digest, purge.epoch, *values))

    def _newer_than(self, epoch: int) -> bool:
        newer = "SELECT EXISTS(SELECT 1 FROM entries WHERE epoch >= ?)"
        return bool(self._database.execute(newer, (epoch,)).get)

    def expire(self, now: float, limit: int) -> int:
        """Remove up to `limit` entries past the end of their life."""
        gone = "SELECT id FROM entries WHERE gone < 9e999 AND gone <= ? ORDER BY gone LIMIT ?"
        return self.remove(gone, (now, limit))

    def evict_expired(self, excess: int, now: float, limit: int) -> tuple[int, int]:
        """Remove entries past their expiry until `excess` bytes went; how many, and bytes."""
        rows: list[Any] = self._database.execute(EXPIRED_FIRST, (now, limit)).fetchall()
        return self._remove_first(rows, excess)

    def evict_weakest(self, excess: int, limit: int, spare: int) -> int:
        """Remove the entries of least score until `excess` bytes went; how many.

        Places of up to `spare` bytes are kept for the next rows.
        """
        rows: list[Any] = self._database.execute(WEAKEST, (limit,)).fetchall()
        count, _ = self._remove_first([(number, size) for number, size, _ in rows], excess)
        scores = [score for _, _, score in rows[:count] if score < inf]
        if scores and scores[-1] > self._floor:
            self._floor = scores[-1]
            set_number(self._database, "score_floor", self._floor)
        self._keep_holes([(number, size) for number, size, _ in rows[:count]], spare)
        return count

    def free_within(self) -> int:
        """Bytes in used pages that the next rows will take."""
        return int(self._database.execute("SELECT total(bytes) FROM holes").get)

    def _keep_holes(self, removed: list[tuple[int, int]], spare: int) -> None:
        """Let the next new rows take these places: rows added at the end would leave them empty,
        because SQLite frees a page only when nearly all of its rows went."""
        spare -= self.free_within()
        for number, size in removed[: MOST_HOLES - len(self._holes)]:
            spare -= size
            if spare < 0:
                return
            self._database.execute("INSERT INTO holes VALUES(?, ?)", (number, size))
            self._holes.append(number)

    def forget_facets(self, limit: int) -> None:
        """Remove combinations of tenant, namespace, model and scope that no entry has."""
        self._database.execute(ORPHANS, (limit,))
        self._facets.clear()

    def _remove_first(self, rows: list[tuple[int, int]], excess: int) -> tuple[int, int]:
        chosen: list[int] = []
        freed = 0
        for number, size in rows:
            if freed >= excess:
                break
            chosen.append(number)
            freed += size
        if chosen:
            self.remove(f"VALUES {','.join(f'({number})' for number in chosen)}")
        return len(chosen), freed


def _bytes_of(tags: list[str]) -> int:
    """Of their rows: a tag lies in its table and again in the index by id, which ends in it."""
    return sum(2 * (len(tag.encode()) + TAG_OVERHEAD) for tag in tags)


def condition(selector: Selector, aliases: Aliases = PLAIN) -> tuple[str, list[object]]:
    """`selector` as SQL over `entries e`, and the values it takes."""
    parts, values = ["1"], list[object]()
    facet = {
        kind: aliases.sought(kind, name)
        for kind in FACET
        if (name := getattr(selector, kind)) is not None
    }
    if facet:
        same = " AND ".join(f"{kind} IN ({marks_for(names)})" for kind, names in facet.items())
        parts.append(f"e.facet IN (SELECT id FROM facets WHERE {same})")
        for names in facet.values():
            values += names
    if selector.tags:
        tags = [mark for tag in selector.tags for mark in aliases.sought("tag", tag)]
        parts.append(f"e.id IN (SELECT id FROM tags WHERE tag IN ({marks_for(tags)}))")
        values += tags
    if selector.key:
        parts.append("e.id IN (SELECT id FROM answers WHERE digest BETWEEN ? AND ?)")
        values += (selector.key, selector.key.ljust(64, b"\xff"))  # digests have 32 bytes
    if selector.older_than is not None:
        parts.append("e.created < ?")
        values.append(selector.older_than)
    if selector.expired_before is not None:
        parts.append("e.expires < ?")
        values.append(selector.expired_before)
    return " AND ".join(parts), values


def marks_for(values: Sequence[object]) -> str:
    """As many question marks, for an SQL list."""
    return ",".join("?" * len(values))
