"""The files of one model's blocks: our own, which are written, and the others', which are followed.

write ──► records, sync, rows, sync ──► found
remove ──► rows that say GONE or PURGED, sync ──► erase: their bytes, where it can be done
keep_to_budget ──► the expired and the oldest removed, half-empty segments written anew
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from thinkonce.clock import Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.catalogue import Catalogue, Place, live_rows
from thinkonce.kv.disk.erase import Gap, scrub
from thinkonce.kv.disk.folder import Folder, made_folder, settled
from thinkonce.kv.disk.manifest import Followed
from thinkonce.kv.disk.names import Names
from thinkonce.kv.disk.record import Form
from thinkonce.kv.disk.rows import Kind, Rows
from thinkonce.kv.disk.sayings import Gone, Offered, Sayings, place_of, words_of, written_at
from thinkonce.kv.disk.segment import SegmentReader, SegmentWriter
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.stay import Stay
from thinkonce.tiers.keyring import SETTING

__all__ = ("DEAD_SHARE", "LOOK_AGAIN", "Holdings")

_logger = logging.getLogger("thinkonce.kv")

LOOK_AGAIN = 5.0  # seconds between two looks for other processes' files
KEPT_SHARE = 0.95  # of the budget, once it was exceeded: not each write evicts
DEAD_SHARE = 0.1  # of the budget, beyond what moving records costs
_BEGINNING = 12 * 1024  # bytes of a record: its head and the tokens of the longest block
HALF = 0.5  # live share of a segment below which it is written anew


class Holdings:
    """What changes files is for one thread; `lock` guards the catalogue and what only reads.

    Blocks are called by their names in the files here. All methods raise OSError where the
    system refuses.
    """

    def __init__(
        self, root: Path, model: str, max_bytes: int, clock: Clock, names: Names, form: Form
    ) -> None:
        self._root, self._model, self.max_bytes, self._clock = root, model, max_bytes, clock
        self._names, self._form = names, form
        self._say = Sayings(names, form, clock)
        self._looked_at: float = -LOOK_AGAIN
        # Said to be gone by others, of blocks in our files; and those whose life is longer now.
        self.ordered: dict[bytes, Gone] = {}
        self.renewed: set[bytes] = set()
        self.written = self.evicted = self.expired = self.failures = 0
        self.lock = threading.Lock()
        self.open()

    def open(self) -> None:
        """Take in what was left behind; segments are begun anew, behind all that are known."""
        made_folder(self._root, "[kv] store")
        with settled(self._root):  # or it could be removed before anything says it is in use
            self.folder = Folder(made_folder(self._root / self._model, "[kv] store"))
            self.writer, self._lock_file, self.manifest = self.folder.lock_one()
        for _ in self.folder.left(self.writer, of_old=True):
            pass  # read on, and followed with the others
        self.catalogue = Catalogue(self.max_bytes, self._clock)
        self.reader = SegmentReader(self.folder)
        self._followed: dict[int, Followed] = {}
        self._looked_at = -LOOK_AGAIN
        rows = self.manifest.rows
        self.catalogue.add(self.writer, rows)
        self._check_keys()
        self._said = set(rows["id"][rows["kind"] == Kind.WORD].tolist())  # owners
        self._scrubbed: dict[int, set[Gap]] = {}  # by segment
        # What was purged may not have been erased before the process ended.
        self._unclean = bool((rows["kind"] == Kind.PURGED).any())
        numbers = [*self.folder.segments(self.writer), *rows["segment"].tolist(), 0]
        self.segments = SegmentWriter(self.folder, self.writer, int(max(numbers)) + 1)

    def _check_keys(self) -> None:
        """Raises ConfigError for a key that is wanted, before anything is changed."""
        rows = self.manifest.rows
        own = np.frombuffer(self._form.key, "<u4")[0]
        others = np.frombuffer(rows["key"].tobytes(), "<u4") != own
        self._is_mixed = bool((others & (rows["kind"] == Kind.LIVE)).any())
        if not self._is_mixed:
            return
        keys = set(self.catalogue.live(self.writer)["key"].tolist())
        if unknown := [key.hex() for key in sorted(keys) if not self._form.opens(key)]:
            self.manifest.close()
            self._lock_file.release()
            wanted = f"the key {', '.join(unknown)} behind the new one: blocks are sealed with it"
            raise ConfigError(SETTING, "***", wanted)

    def open_again(self) -> None:
        """The files went away under us: begin with what is there now, which may be nothing."""
        _logger.warning("the folder of attention state went away, and is made anew")
        with self.lock:
            self.close()
            self.open()

    def close(self) -> None:
        self.segments.give_up()
        self.reader.close()
        for followed in self._followed.values():
            followed.close()
        self.manifest.close()
        self._lock_file.release()

    # -- under the lock -------------------------------------------------------------------------

    def read(self, id: bytes, place: Place) -> tuple[Place, memoryview]:
        """And where it was found: another process may have moved it. Raises OSError."""
        try:
            return place, self.reader.read(place)
        except FileNotFoundError:
            self.follow()
            moved = self.catalogue.place(id)
            if moved is None or moved == place:
                raise
            return moved, self.reader.read(moved)

    def beginning(self, id: bytes) -> memoryview | None:
        """Of its record, as much as holds the tokens; None where it cannot be read."""
        place = self.catalogue.place(id)
        if place is None:
            return None
        try:
            return self.reader.read(place._replace(length=min(place.length, _BEGINNING)))
        except OSError:
            return None

    def follow(self) -> None:
        """Take in what other processes have written since."""
        with suppress(OSError):
            if self._looked_at + LOOK_AGAIN <= self._clock.monotonic():
                self._looked_at = self._clock.monotonic()
                for writer in self.folder.writers():
                    if writer != self.writer and writer not in self._followed:
                        self._followed[writer] = Followed(self.folder.rows(writer))
        for writer, followed in list(self._followed.items()):
            is_first = not followed.end
            try:
                is_void, rows = followed.news()
            except OSError:
                is_void, rows = True, None
                self._followed.pop(writer).close()
            if is_void:
                self.catalogue.forget_writer(writer)
            if rows is not None and len(rows):
                self.catalogue.add(writer, rows)
                self._obey(rows, is_first)

    def renew(self, name: bytes, stay: Stay) -> None:
        """A request uses a block that is there. Written to the rows some time later."""
        if name in self.catalogue and self.catalogue.lengthen(name, stay):
            self.renewed.add(name)

    def forget(self, names: Iterable[bytes], *, purged: bool = False) -> dict[bytes, Gone]:
        """Of these those that are there; they are not found from now on."""
        gone = {}
        for name in names:
            if (place := self.catalogue.place(name)) is not None:
                gone[name] = Gone(place, purged)
                self.catalogue.forget(name)
        return gone

    def _obey(self, rows: Rows, is_first: bool) -> None:
        """What another process says of blocks is so here too; of what it said before we looked
        first, what concerns blocks of ours that were not written since.
        """
        for kind in (Kind.GONE, Kind.PURGED):
            said = rows[rows["kind"] == kind]
            names: list[bytes] = said["id"].tolist()
            if is_first:
                names = self.catalogue.older(self.writer, names, said["written"].tolist())
            gone = self.forget(names, purged=kind == Kind.PURGED)
            mine = {name: was for name, was in gone.items() if self._is_mine(was.place)}
            self.ordered.update(mine)
        stays = rows[rows["kind"] == Kind.STAYS]
        changed = self.catalogue.lengthen_all(stays)
        self.renewed.update(n for n in changed if self._is_mine(self.catalogue.place(n)))

    def _is_mine(self, place: Place | None) -> bool:
        return place is not None and place.writer == self.writer

    # -- by the thread that writes --------------------------------------------------------------

    def write(self, offered: Sequence[Offered]) -> None:
        if not self.manifest.is_there():
            self.open_again()
        rows = np.concatenate([self._appended(each) for each in offered])
        self.segments.sync()
        owners = {self._names.owner(each.owner): each.owner for each in offered}
        words = [row for owner in owners.values() for row in self._introduction(owner)]
        more = [row for each in offered for row in words_of(self._mark(each), each.more)]
        self.manifest.append(np.concatenate([*words, *more, rows]))
        self._said.update(owners)
        with self.lock:
            for mark, owner in owners.items():
                self.catalogue.words.add(mark, self._names.words(owner))
            for each in offered:
                self.catalogue.words.add(self._mark(each), each.more)
            self.catalogue.add(self.writer, rows)
            for each in offered:  # its life may be longer than it was when its row was made
                self.renew(self._form.name(each.block.id), each.stay)
            self.written += len(rows)

    def remove(self, gone: Mapping[bytes, Gone]) -> None:
        """Say so in the rows, and erase what they said; of blocks in the files of processes that
        have ended too.
        """
        if not gone:
            return
        self.manifest.append(self._say.gone(gone))
        self._unclean |= any(was.purged for was in gone.values())
        with self.lock:
            self.forget(gone)  # what was written since
        for writer, manifest in self.folder.left(self.writer):
            found = {n: gone[n] for n in gone.keys() & set(manifest.rows["id"].tolist())}
            if found:
                manifest.append(self._say.gone(found))
                scrub(self.folder, writer, live_rows(writer, manifest.rows, found), {})

    def renew_rows(self) -> None:
        """Write down the lives that are longer than the rows say."""
        with self.lock:
            there = {n: place for n in self.renewed if (place := self.catalogue.place(n))}
            rows = {name: self._say.stays(self.catalogue.row(name)) for name in there}
            self.renewed.clear()
        if rows:
            self.manifest.append(np.concatenate(list(rows.values())))
        if all(self._is_mine(place) for place in there.values()):
            return
        for writer, manifest in self.folder.left(self.writer):
            its = [rows[name] for name, place in there.items() if place.writer == writer]
            if its:
                manifest.append(np.concatenate(its))

    def scrub(self) -> None:
        """After a purge: erase whatever lies in our files and is no block. What fails is tried
        again the next time.
        """
        if not self._unclean:
            return
        with self.lock:
            live = self.catalogue.live(self.writer)
        scrub(self.folder, self.writer, live, self._scrubbed)
        self._unclean = False

    def keep_to_budget(self) -> None:
        self._expire()
        with self.lock:
            over = self.catalogue.bytes - self.max_bytes
        if over > 0:
            self._remove_abandoned()
            self._evict()
        if emptied := [*self._emptied(), *self._stale()[:1]]:
            self._move_out_of(emptied)
        self.remove_empty()
        self.scrub()
        with self.lock:
            self.catalogue.compact()
            live = None
            if self.manifest.count > 4 * len(self.catalogue) + 1024:
                live = self.catalogue.live(self.writer)
        if live is not None:
            self._rewrite(live)

    def remove_empty(self) -> None:
        with self.lock:
            live = {*self.catalogue.segments(self.writer), self.segments.current}
        for number in list(self.folder.segments(self.writer)):
            if number not in live:
                self.folder.segment(self.writer, number).unlink()
                with self.lock:
                    self.reader.forget(self.writer, number)

    def _rewrite(self, live: Rows) -> None:
        """The rows that are needed, alone; unless their owners' words are most of them."""
        owners = set(live["owner"].tolist())
        known = self.catalogue.words
        words = [row for owner in owners for row in words_of(owner, known.of(owner))]
        if self.manifest.count > 2 * (len(live) + len(words)) + 1024:
            self.manifest.replace(np.concatenate([*words, live]))
            self.folder.sync()
            self._said = owners

    def _remove_abandoned(self) -> None:
        """Files of processes that have ended, if another one took no more care of them."""
        for writer, _ in self.folder.left(self.writer):
            with self.lock:
                self.catalogue.forget_writer(writer)
                if writer in self._followed:
                    self._followed.pop(writer).close()
                for number in self.folder.segments(writer):
                    self.reader.forget(writer, number)
            self.folder.remove(writer)

    def _mark(self, offered: Offered) -> bytes:
        return self._names.owner(offered.owner)

    def _appended(self, offered: Offered) -> Rows:
        parts = self._form.encoded(offered.block, offered.state)
        return self._say.lies(offered, self.segments.append(*parts))

    def _introduction(self, owner: Owner) -> list[Rows]:
        """What says under which words an owner falls, before the first row that names it."""
        mark = self._names.owner(owner)
        return [] if mark in self._said else words_of(mark, self._names.words(owner))

    def _expire(self) -> None:
        with self.lock:
            gone = self.forget(self.catalogue.expired())
            self.expired += len(gone)
        if gone:
            self.manifest.append(self._say.gone(gone))

    def _evict(self) -> None:
        with self.lock:
            size = self.catalogue.bytes - int(KEPT_SHARE * self.max_bytes)
            gone = self.forget(self.catalogue.oldest(self.writer, size) if size > 0 else [])
            self.evicted += len(gone)
        if gone:
            self.manifest.append(self._say.gone(gone))

    @property
    def is_stale(self) -> bool:
        """Whether there is more to be sealed with the first key."""
        return bool(self._stale())

    def _stale(self) -> list[int]:
        """Segments with records that another key than the first sealed."""
        if not self._is_mixed:
            return []
        with self.lock:
            found = self.catalogue.sealed_otherwise(self.writer, self._form.key)
        self._is_mixed = bool(found)
        return found

    def _emptied(self) -> list[int]:
        """Segments of which less than half is live, and that are not empty; and the emptiest of
        the others while what is dead in all of them takes more than a share of the budget.
        """
        with self.lock:
            live = self.catalogue.segments(self.writer)
        live.pop(self.segments.current, None)
        sizes = {number: self.folder.size(self.writer, number) for number in live}
        live = {number: size for number, size in live.items() if sizes[number]}
        dead = sum(sizes[number] - size for number, size in live.items())
        found = []
        for number in sorted(live, key=lambda number: live[number] / sizes[number]):
            if live[number] >= HALF * sizes[number] and dead <= DEAD_SHARE * self.max_bytes:
                break
            dead -= sizes[number] - live[number]
            found.append(number)
        return found

    def _move_out_of(self, segments: Sequence[int]) -> None:
        """Write what is live in them anew; the old records stay until the new rows are there."""
        with self.lock:
            live = self.catalogue.rows_in(self.writer, segments)
        rows = [moved for row in live for moved in self._moved(row)]
        if not rows:
            return
        self.segments.sync()
        moved = np.concatenate(rows)
        self.manifest.append(moved)
        with self.lock:
            self.catalogue.moved(self.writer, moved)

    def _moved(self, row: np.void) -> Iterator[Rows]:
        """The row of a record written anew; none for one that cannot be read."""
        record: memoryview | None
        try:
            with self.lock:
                record = self.reader.read(place_of(self.writer, row))
        except OSError:
            record = None
        is_ours = row["key"].tobytes() == self._form.key
        parts = None if record is None else (record,) if is_ours else self._form.again(record)
        if parts is None:
            with self.lock:
                self.failures += 1
                self.catalogue.forget(row["id"].tobytes())
            return
        row["key"] = np.void(self._form.key)
        yield written_at(row, self.segments.append(*parts))
