"""What owners and their words are called in the files: by marks that tell nothing without a secret.

A row names its owner by a mark, and rows of kind WORD say which words that owner falls under: its
tenant, its namespace, each of its tags and documents, each as a mark too. So a purge finds what it
is for by marks alone, also in files that another process wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from blake3 import blake3

from thinkonce.kv.prefix.owner import ANY_DOCUMENT, Owner
from thinkonce.kv.prefix.purges import PurgeRule

__all__ = ("MARK_BYTES", "Names", "Sort", "Word", "Words")

MARK_BYTES = 16
_MOST_REMEMBERED = 4096  # owners


class Sort(IntEnum):
    """Of a word. A tenant has two names: `Owner`'s, and the one that a gateway gave it."""

    TENANT = 0
    CALLED = 1
    NAMESPACE = 2
    TAG = 3
    DOCUMENT = 4


class Word(NamedTuple):
    sort: int
    mark: bytes


class Names:
    """Marks under one secret: equal texts of one sort have equal marks. Thread-safe."""

    def __init__(self, secret: bytes) -> None:
        self._key = blake3(secret, derive_key_context="thinkonce 2026-11-22 kv owners").digest()
        # Owners that differ in their documents alone are equal, and fall under other words.
        self._words_of = lru_cache(_MOST_REMEMBERED)(self._words)
        self._owner_of = lru_cache(_MOST_REMEMBERED)(self._owner)

    def words(self, owner: Owner) -> tuple[Word, ...]:
        """The tenant's own comes first."""
        return self._words_of(owner, owner.documents)

    def owner(self, owner: Owner) -> bytes:
        """One mark for owners that fall under the same words."""
        return self._owner_of(owner, owner.documents)

    def falls(self, rule: PurgeRule, words: Words, owner: bytes) -> bool:
        """Whether `rule` holds for that owner; for one that nobody knows any rule does."""
        known = words.of(owner)
        if not known or rule == PurgeRule():
            return True
        return all(not known.isdisjoint(any_of) for any_of in self._asked(rule))

    def unmarked(self, owner: Owner, words: set[Word]) -> tuple[Word, ...] | None:
        """Those of documents among `words`, where they lack one of the owner's; else None."""
        if self._documents(owner) <= words:
            return None
        return tuple(word for word in words if word.sort == Sort.DOCUMENT)

    def is_marked(self, words: set[Word], owner: Owner) -> bool:
        """Whether documents are among `words` that the owner is not marked with."""
        return not {w for w in words if w.sort == Sort.DOCUMENT} <= self._documents(owner)

    def _documents(self, owner: Owner) -> set[Word]:
        return {word for word in self.words(owner) if word.sort == Sort.DOCUMENT}

    def _asked(self, rule: PurgeRule) -> Iterator[set[Word]]:
        if rule.tenant is not None:
            yield {self._word(Sort.TENANT, rule.tenant), self._word(Sort.CALLED, rule.tenant)}
        if rule.namespace is not None:
            yield {self._word(Sort.NAMESPACE, rule.namespace)}
        if rule.tags:
            sorts = (Sort.TAG, Sort.DOCUMENT)
            words = {self._word(sort, tag) for tag in rule.tags for sort in sorts}
            yield {*words, self._word(Sort.DOCUMENT, *ANY_DOCUMENT)}
        if rule.document is not None:
            names = (rule.document, *ANY_DOCUMENT)
            yield {self._word(Sort.DOCUMENT, name) for name in names}

    def _words(self, owner: Owner, documents: tuple[str, ...]) -> tuple[Word, ...]:
        return (
            self._word(Sort.TENANT, owner.tenant),
            self._word(Sort.CALLED, owner.tenant.partition(" ")[2]),
            self._word(Sort.NAMESPACE, owner.namespace),
            *(self._word(Sort.TAG, tag) for tag in owner.tags),
            *(self._word(Sort.DOCUMENT, name) for name in documents),
        )

    def _owner(self, owner: Owner, documents: tuple[str, ...]) -> bytes:
        return self._mark(b"owner\0" + b"".join(word.mark for word in self.words(owner)))

    def _word(self, sort: Sort, text: str) -> Word:
        return Word(sort, self._mark(f"{sort.name}\0{text}".encode("utf-8", "surrogatepass")))

    def _mark(self, data: bytes) -> bytes:
        return blake3(data, key=self._key).digest(MARK_BYTES)


class Words:
    """Which words each owner falls under, as far as rows have said. Not thread-safe."""

    def __init__(self) -> None:
        self._of: dict[bytes, set[Word]] = {}
        self._tenants: dict[bytes, bytes] = {}

    def of(self, owner: bytes) -> set[Word]:
        return self._of.get(owner, set())

    def tenant(self, owner: bytes) -> bytes:
        """Its mark, or the owner's where that is not known."""
        return self._tenants.get(owner, owner)

    def add(self, owner: bytes, words: Iterable[Word]) -> None:
        self._of.setdefault(owner, set()).update(words)
        for word in words:
            if word.sort == Sort.TENANT:
                self._tenants[owner] = word.mark

    def keep(self, owners: set[bytes]) -> None:
        """Let go of the others."""
        self._of = {owner: words for owner, words in self._of.items() if owner in owners}
        self._tenants = {owner: mark for owner, mark in self._tenants.items() if owner in owners}
