"""Pairs of questions of which somebody found out that one's answer is none to the other.

    a hit in other words ──► its pair is noted ──► feedback: wrong ──┐
                                                audit: wrong ────────┴► never served again

A pair is a partition and the plain forms of both questions, in either order and without the marks
at their ends: who asks the same with three dots behind it has the same pair. Kept in the ledger by
tenant and namespace, where every process finds it at its next hit; of each group the ledger keeps
those written last. What people say has a group of its own, so that audits, of which there are many,
cannot push it out.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

from thinkonce.errors import TierError
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.meaning.text.lexical import plain_form
from thinkonce.tiers.tier import Ledger

__all__ = ("PAIR_BYTES", "By", "Refuted", "pair_of")

T = TypeVar("T")

log = logging.getLogger("thinkonce.semantic")

PAIR_BYTES = 16
MOST_HELD = 20_000  # pairs, in this process; of all tenants
MOST_ENTRIES = 4096  # whose last hits in other words are remembered
MOST_ASKED = 8  # pairs of one such entry

_ENDS = " .,;:!?…、。，；：！？"


class By(StrEnum):
    """Who found out."""

    SAID = "said"  # feedback
    AUDITED = "audited"  # the model's own answer


def pair_of(partition: bytes, one: str, other: str) -> bytes:
    """PAIR_BYTES bytes, the same whichever question was there first."""
    said = sorted((_said(one), _said(other)))
    mark = blake2b(partition, digest_size=PAIR_BYTES)
    for text in said:
        data = text.encode("utf-8", "surrogatepass")
        mark.update(len(data).to_bytes(8, "little") + data)
    return mark.digest()


@lru_cache(maxsize=4096)
def _said(text: str) -> str:
    return plain_form(text).rstrip(_ENDS) or text


class Refuted:
    """Thread-safe. `ledger` None: forgotten with the process."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger
        self._held: OrderedDict[tuple[str, bytes], None] = OrderedDict()  # by group and pair
        self._unsaved: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._served: OrderedDict[bytes, OrderedDict[bytes, None]] = OrderedDict()
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def knows(self, tenant: str, namespace: str, pair: bytes) -> bool:
        """Blocks for the store, some 50 µs. What cannot be read may be refuted: True."""
        groups = [_group(by, tenant, namespace) for by in By]
        with self._lock:
            if any((group, pair) in self._held for group in groups):
                return True
        if self._ledger is None:
            return False
        try:
            return any(self._ledger.read(group, pair) for group in groups)
        except TierError as error:
            log.info("semantic: which pairs are refuted cannot be read: %s", error)
            return True

    def add(self, tenant: str, namespace: str, pair: bytes, by: By) -> None:
        """Blocks for the store. What it does not take is tried again with the next one."""
        place = (_group(by, tenant, namespace), pair)
        with self._lock:
            _remember(self._held, place, MOST_HELD)
            if self._ledger is not None:
                _remember(self._unsaved, place, MOST_HELD)
            unsaved = list(self._unsaved)
        if self._ledger is None:
            return
        for group, name in unsaved:
            self._save(self._ledger, group, name)

    def served(self, entry: bytes, pair: bytes) -> None:
        """`entry` answered a question in other words."""
        with self._lock:
            pairs = self._served.setdefault(entry, OrderedDict())
            self._served.move_to_end(entry)
            _remember(pairs, pair, MOST_ASKED)
            if len(self._served) > MOST_ENTRIES:
                self._served.popitem(last=False)

    def lately(self, entry: bytes) -> list[bytes]:
        """The pairs in which this process served `entry` last."""
        with self._lock:
            return list(self._served.get(entry, ()))

    def _save(self, ledger: Ledger, group: str, pair: bytes) -> None:
        try:
            ledger.update(group, {pair}, lambda _: {pair: b"\x01"})
        except TierError as error:
            log.info("semantic: a refuted pair waits for the store: %s", error)
            return
        with self._lock:
            self._unsaved.pop((group, pair), None)

    def _in_child(self) -> None:
        free_after_fork(self._lock)
        self._unsaved.clear()  # the parent's to write


def _remember(held: OrderedDict[T, None], what: T, most: int) -> None:
    held[what] = None
    held.move_to_end(what)
    if len(held) > most:
        held.popitem(last=False)


def _group(by: By, tenant: str, namespace: str) -> str:
    return f"refuted {by} {tenant} {namespace}"
