"""The partitions of one cache, in memory as far as they are asked for and as there is room.

    space(partition)   known? ──► read on what other processes wrote
                       else   ──► the newest rows now, older ones in the background
    a thread of its own, while there is work: older rows, rows of graphs, vectors still to be made,
    and what is gone since

The store's rows are the truth; everything here is made of them, within a bound in bytes, and read
again when it is needed again. A cache in memory has no rows: there puts alone feed it. Nothing here
raises: a store that cannot be read leaves things as they are.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence

from thinkonce.errors import TierError
from thinkonce.host.fork import on_fork
from thinkonce.likeness import Hint
from thinkonce.meaning.background import Background
from thinkonce.meaning.embedders.embedder import Embedder
from thinkonce.meaning.index.renewal import Renewal
from thinkonce.meaning.index.space import Space
from thinkonce.selector import Selector
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.tier import Key, Question, Questions, StoreTier

__all__ = ("MAX_BYTES", "Spaces")

log = logging.getLogger("thinkonce.semantic")

# Partition, row, how many rows at most.
Read = Callable[[bytes, int, int], list[Question]]

MAX_BYTES = 256 * 2**20
AT_ONCE = 500  # rows read while somebody waits: 2 ms
PAGE = 500  # rows read in the background at a time
ROOM_LEFT = 0.8  # of the bound that one partition is read into; it will grow
SHRINKING = 0.2  # of a partition, where no store has its rows or members share it
MOST_READ = 20  # times what has room: how far back rows of a shared partition are looked for
STALE_FROM = 1000  # rows that came since what is gone was swept out, at least
LATELY = 1000  # puts whose rows may not be in the store yet: it commits within a second
LOCALS_FROM = 10_000  # keys remembered before those that memory no longer has are forgotten
DIGEST_BYTES = 32


class Spaces:
    """Thread-safe; a forked child begins anew. `failures` counts reads of the store that failed.

    `embedder` None: for wordings only. `max_bytes` bounds all partitions together.
    """

    def __init__(
        self,
        memory: MemoryTier,
        store: StoreTier | None,
        embedder: Embedder | None,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.embedder, self.max_bytes = embedder, max_bytes
        self.failures = 0
        self._memory = memory
        self._questions: Questions | None = None if store is None else store.questions
        self._spaces: OrderedDict[bytes, Space] = OrderedDict()
        self._bytes = 0
        self._lately: deque[tuple[bytes, Hint]] = deque(maxlen=LATELY)
        self._locals: dict[bytes, Hashable] = {}
        self._locals_most = LOCALS_FROM
        self._lock = threading.Lock()
        self._background = Background("thinkonce-questions", self._work)
        self._renewal = None if embedder is None else Renewal(embedder, self._text_of, store)
        self._store = store
        self._dimensions = 0 if embedder is None else embedder.dimensions
        self._emptied = False  # by a fork or for other dimensions, and not filled again
        on_fork(self._in_child)

    # -- what a matcher asks for -------------------------------------------------------------

    def space(self, partition: bytes) -> Space:
        """That of `partition`, as far as it could be read. Takes 20 us, and some ms at first."""
        if self.embedder is not None and self.embedder.dimensions != self._dimensions:
            self._begin_anew(self.embedder.dimensions)
        if self._emptied:
            self._fill_again()
        with self._lock:
            space = self._spaces.get(partition)
            if space is not None:
                self._spaces.move_to_end(partition)
        if space is None:
            space = self._new(partition)
            if space.complete and space.is_empty:
                return space  # asking fills no memory; what is stored there later is read then
            space = self._admitted(space)
        self._read_on(space)
        self._keep_in_shape(space)
        return space

    def key_of(self, digest: bytes) -> Key:
        """The key of a stored entry, as this process's memory has it where it put the entry."""
        local = self._locals.get(digest)
        return Key(digest if local is None else local, digest)

    def add(self, key: Key, hint: Hint) -> None:
        """What this process just put; found from now on. Takes 20 us."""
        digest = key.digest
        if key.local != digest:
            self._remember(digest, key.local)
        with self._lock:
            space = self._spaces.get(hint.partition)
        if self._questions is not None:
            self._lately.append((digest, hint))
        elif space is None:
            space = self._admitted(self._new(hint.partition))
        if space is not None:
            space.add(digest, hint, awaited=self._questions is not None)
            self._keep_in_shape(space)

    def forget(self, partition: bytes, digest: bytes, fingerprint: bytes = b"") -> None:
        """The entry is gone: it was looked for under `key_of` and not found, or has no question.

        `fingerprint`: by which `Space.alike` gave it.
        """
        if self._locals.get(digest) not in self._memory.map:  # else it is another partition's
            self._locals.pop(digest, None)
        with self._lock:
            space = self._spaces.get(partition)
        if space is not None:
            space.forget(digest, fingerprint)

    def __len__(self) -> int:
        """Partitions in memory."""
        return len(self._spaces)

    @property
    def nbytes(self) -> int:
        return self._bytes

    def settle(self, timeout: float) -> bool:
        """Wait until the background has nothing to do; False if `timeout` seconds passed first."""
        return self._background.settle(timeout)

    def close(self) -> None:
        """End the thread. What is here stays. Idempotent."""
        self._background.close()

    # -- one partition -----------------------------------------------------------------------

    def _new(self, partition: bytes) -> Space:
        embedder = self.embedder
        space = (
            Space(partition, "", 0)
            if embedder is None
            else Space(partition, embedder.name, self._dimensions)
        )
        space.epoch = self._memory.purges.epoch[0]
        space.complete = self._questions is None
        self._read_back(space, AT_ONCE)
        for digest, hint in list(self._lately):
            if hint.partition == partition and digest not in space:  # not written yet
                space.add(digest, hint)
        return space

    def _admitted(self, space: Space) -> Space:
        """`space`, or the one another thread was first to make."""
        with self._lock:
            if space.dimensions != self._dimensions:
                return space  # made before they were known: not kept
            kept = self._spaces.setdefault(space.partition, space)
            self._spaces.move_to_end(space.partition)
            return kept

    def _read_back(self, space: Space, limit: int) -> None:
        """Rows before those that were read last; sets `complete` behind the last of all."""
        questions = self._questions
        if questions is None or space.complete:
            return
        rows = self._rows(questions.older, space.partition, space.oldest, limit)
        if rows is not None:
            space.take(rows, forwards=False)
            space.complete = len(rows) < limit

    def _read_on(self, space: Space) -> None:
        """What any process wrote since."""
        questions = self._questions
        if questions is None:
            return
        if rows := self._rows(questions.newer, space.partition, space.newest, AT_ONCE):
            space.take(rows, forwards=True)

    def _rows(self, read: Read, partition: bytes, row: int, limit: int) -> list[Question] | None:
        """None where the store fails, which is counted."""
        try:
            return read(partition, row, limit)
        except TierError as error:
            self._failed(error)
            return None

    def _failed(self, error: TierError) -> None:
        self.failures += 1
        log.debug("questions are not read: %s", error)

    # -- room and order ----------------------------------------------------------------------

    def _keep_in_shape(self, space: Space) -> None:
        self._hear_of_purges(space)
        self._count(space)
        if self._has_work(space):
            self._background.do(space.partition)

    def _has_work(self, space: Space) -> bool:
        may_renew = self._renewal is not None and self._renewal.may(space)
        return (
            not space.complete
            or space.is_to_be_moved
            or may_renew
            or _is_stale(space)
            or space.nbytes > self.max_bytes
        )

    def _count(self, space: Space) -> None:
        """Count its bytes anew, and let those go that were not asked for the longest."""
        size = space.nbytes
        with self._lock:
            if self._spaces.get(space.partition) is not space:
                return
            self._bytes += size - space.counted
            space.counted = size
            while self._bytes > self.max_bytes and len(self._spaces) > 1:
                _, oldest = self._spaces.popitem(last=False)
                self._bytes -= oldest.counted

    def _hear_of_purges(self, space: Space) -> None:
        """A purge of single keys is carried out here; any other lets what is gone be swept out."""
        purges = self._memory.purges
        epoch = purges.epoch[0]
        if epoch == space.epoch:
            return
        try:
            since = purges.since(space.epoch)
        except TierError as error:
            self._failed(error)
            return
        space.epoch = epoch
        for purge in since or ():
            key = purge.selector.key
            if len(key) == DIGEST_BYTES and purge.selector == Selector(key=key):
                space.forget(key)
            else:
                since = None
        if since is None:
            space.added = max(space.added, STALE_FROM, len(space)) + 1

    def _remember(self, digest: bytes, local: Hashable) -> None:
        with self._lock:
            self._locals[digest] = local
            if len(self._locals) > self._locals_most:
                held = self._memory.map
                self._locals = {name: key for name, key in self._locals.items() if key in held}
                self._locals_most = max(LOCALS_FROM, 2 * len(self._locals))

    # -- in the background -------------------------------------------------------------------

    def _work(self, partition: bytes) -> bool:
        """A bounded piece of it; True if there is more to do."""
        with self._lock:
            space = self._spaces.get(partition)
        if space is None:
            return False
        failures = self.failures
        self._some_work(space)
        self._count(space)
        return self.failures == failures and self._has_work(space)

    def _some_work(self, space: Space) -> None:
        if space.nbytes > self.max_bytes:
            self._make_smaller(space)
        elif not space.complete:
            self._read_back(space, PAGE)
            if space.nbytes > self.max_bytes * ROOM_LEFT:
                self._read_enough(space)
        elif _is_stale(space):
            self._sweep(space)
        elif space.is_to_be_moved:
            space.move()
        elif self._renewal is not None:
            self._renewal.some(space)

    def _read_enough(self, space: Space) -> None:
        """What does not fit is older than all that does; of members, who has most has less."""
        if space.is_shared and space.read < MOST_READ * len(space):
            space.shrink(PAGE / max(len(space), PAGE))
        else:
            space.complete = True

    def _make_smaller(self, space: Space) -> None:
        if (self._questions is None or space.is_shared) and len(space):
            space.shrink(SHRINKING)
            return
        with self._lock:  # read again, the newest first, when it is asked for
            if self._spaces.get(space.partition) is space:
                del self._spaces[space.partition]
                self._bytes -= space.counted

    def _sweep(self, space: Space) -> None:
        questions = self._questions
        if questions is None:
            held = self._memory.map
            space.sweep(lambda digest: self._locals.get(digest, digest) in held)
            return
        try:
            space.sweep(questions.digests(space.partition).__contains__)
        except TierError as error:
            self._failed(error)

    def _text_of(self, digests: Sequence[bytes]) -> list[str | None]:
        """Of entries, from memory or the store; None for those that are gone."""
        texts: list[str | None] = []
        for digest in digests:
            key = self.key_of(digest)
            entry = self._memory.map.get(key.local)
            if entry is None and self._store is not None:
                entry = self._store.peek(key)
            texts.append(None if entry is None or entry.hint is None else entry.hint.text)
        return texts

    # -- forks and late embedders ------------------------------------------------------------

    def _begin_anew(self, dimensions: int) -> None:
        """The embedder has only now told how long its vectors are."""
        with self._lock:
            if dimensions != self._dimensions:
                self._dimensions = dimensions
                self._spaces, self._bytes = OrderedDict(), 0
                self._emptied = self._questions is None

    def _in_child(self) -> None:
        """Locks may be held by threads that are not here, so everything is made anew."""
        self._lock = threading.Lock()
        self._spaces, self._bytes = OrderedDict(), 0
        self._emptied = self._questions is None

    def _fill_again(self) -> None:
        """Where no store has rows, from the hints that memory has; when it is first asked for."""
        self._emptied = False
        for entry in list(self._memory.map.values()):
            if entry.hint is not None:
                self.add(Key(entry.key, entry.digest), entry.hint)


def _is_stale(space: Space) -> bool:
    """Whether so much came since the last sweep that as much may be gone."""
    return space.added > max(STALE_FROM, len(space) // 2)
