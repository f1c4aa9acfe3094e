"""Whether one stored answer is given to suspiciously many different questions.

A good answer is asked for in a handful of ways. One that serves a large part of a namespace's hits
in other words, to ever new questions, was planted, or matches whatever comes.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque

import msgspec

from thinkonce.host.fork import free_after_fork, on_fork

__all__ = ("Crowded", "Diversity")

WINDOW = 1000  # hits that are looked back on, per namespace
LEAST_HITS = 50  # fewer say nothing about shares
LEAST_QUESTIONS = 10  # different ones, to one entry
SHARE = 0.2  # of the window's hits
MOST_NAMESPACES = 256  # clients may name them; who was not heard of for longest is forgotten


class Crowded(msgspec.Struct, frozen=True):
    """One entry that answers `questions` different ones, `share` of the hits looked back on."""

    namespace: str
    digest: bytes
    questions: int
    share: float


class _Recent:
    """The last hits of one namespace: which entry, which question."""

    def __init__(self) -> None:
        self.hits: deque[tuple[bytes, int]] = deque()
        self.by_entry: dict[bytes, Counter[int]] = {}
        self.told: set[bytes] = set()

    def add(self, digest: bytes, question: int) -> None:
        self.hits.append((digest, question))
        self.by_entry.setdefault(digest, Counter())[question] += 1
        if len(self.hits) > WINDOW:
            self._forget(*self.hits.popleft())

    def _forget(self, digest: bytes, question: int) -> None:
        questions = self.by_entry[digest]
        questions[question] -= 1
        if not questions[question]:
            del questions[question]
        if not questions:
            del self.by_entry[digest]
            self.told.discard(digest)

    def share(self, digest: bytes) -> float:
        return self.by_entry[digest].total() / len(self.hits)


class Diversity:
    """Of hits in other words. Thread-safe; a few microseconds a hit."""

    def __init__(self) -> None:
        self._recent: OrderedDict[str, _Recent] = OrderedDict()
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def served(self, namespace: str, digest: bytes, question: str) -> Crowded | None:
        """Note a hit. The first time that its entry is crowded, says so."""
        with self._lock:
            recent = self._of(namespace)
            recent.add(digest, hash(question))
            if digest in recent.told or len(recent.hits) < LEAST_HITS:
                return None
            questions, share = len(recent.by_entry[digest]), recent.share(digest)
            if questions < LEAST_QUESTIONS or share <= SHARE:
                return None
            recent.told.add(digest)
            return Crowded(namespace, digest, questions, share)

    def crowded(self) -> list[Crowded]:
        """Entries that were told of and still are in the window, the most crowded first."""
        with self._lock:
            found = [
                Crowded(name, digest, len(recent.by_entry[digest]), recent.share(digest))
                for name, recent in self._recent.items()
                for digest in recent.told
            ]
        return sorted(found, key=lambda each: -each.share)

    def spread(self, namespace: str) -> float | None:
        """Different entries per hit in the window, 0 to 1; None before the first hit."""
        with self._lock:
            recent = self._recent.get(namespace)
            return len(recent.by_entry) / len(recent.hits) if recent else None

    def _of(self, namespace: str) -> _Recent:
        recent = self._recent.get(namespace)
        if recent is None:
            recent = self._recent[namespace] = _Recent()
            if len(self._recent) > MOST_NAMESPACES:
                self._recent.popitem(last=False)
        self._recent.move_to_end(namespace)
        return recent

    def _in_child(self) -> None:
        free_after_fork(self._lock)
