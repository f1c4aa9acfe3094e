"""Why the beginning of a prompt is not known: names of blocks that are gone, and what took them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.prefix.owner import Owner

__all__ = ("MOST_GHOSTS", "Cause", "Explained", "Ghosts", "Gone", "GoneBy")

MOST_GHOSTS = 65_536
"""Blocks that are gone and remembered, and owners of those that were purged, at most."""

Key = TypeVar("Key")
Value = TypeVar("Value")
GoneBy = Literal["evicted", "expired", "purged"]
Cause = Literal[
    GoneBy, "bypass", "too_short", "tail_not_stored", "never_seen", "slower_than_recompute"
]


class Gone(NamedTuple):
    """`at`: seconds of the clock of whoever remembers it."""

    cause: GoneBy
    at: float


@dataclass(frozen=True, slots=True)
class Explained:
    """What a look-up of `prompt_tokens` would load now, and why not more.

    `ago`: seconds since the first block that is missing went, where it is known to have gone.
    """

    prompt_tokens: int
    memory_tokens: int
    disk_tokens: int
    cause: Cause
    ago: float | None = None


class Ghosts:
    """Remembers `most` blocks that are gone, by name: no token, no text. Thread-safe."""

    def __init__(self, most: int = MOST_GHOSTS, clock: Clock = SYSTEM) -> None:
        self._most, self._clock = most, clock
        self._gone: OrderedDict[bytes, Gone] = OrderedDict()
        self._eras: OrderedDict[Owner, str] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, block: bytes, owner: Owner, cause: GoneBy) -> None:
        """That block left memory just now."""
        with self._lock:
            _put(self._gone, block, Gone(cause, self._clock.monotonic()), self._most)
            if cause == "purged":
                _put(self._eras, replace(owner, era=""), owner.era, self._most)

    def find(self, block: bytes) -> tuple[GoneBy, float] | None:
        """What took a block, and how many seconds ago."""
        with self._lock:
            gone = self._gone.get(block)
        return None if gone is None else (gone.cause, self._clock.monotonic() - gone.at)

    def before_purge(self, owner: Owner) -> Owner | None:
        """What `owner` was called before the last purge that took a block of it."""
        with self._lock:
            era = self._eras.get(replace(owner, era=""))
        return None if era is None or era == owner.era else replace(owner, era=era)


def _put(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
