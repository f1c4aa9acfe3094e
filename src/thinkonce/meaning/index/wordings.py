"""Which entries were asked in the same plain words: by fingerprint, the newest of each member.

One slot a member, so that whoever asks the same again and again pushes nobody else's out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ("MOST_ALIKE", "Wordings")

MOST_ALIKE = 4  # entries of one fingerprint; where no group shares them, there is but one
SLOT_BYTES = 150


class _Slot(NamedTuple):
    digest: bytes
    member: bytes


class Wordings:
    """Of one partition. Not thread-safe: whoever holds it takes turns."""

    __slots__ = ("_count", "_slots")

    def __init__(self) -> None:
        self._slots: dict[bytes, tuple[_Slot, ...]] = {}
        self._count = 0

    @property
    def nbytes(self) -> int:
        return SLOT_BYTES * self._count

    def alike(self, fingerprint: bytes) -> list[bytes]:
        """Digests, the newest first."""
        return [slot.digest for slot in self._slots.get(fingerprint, ())]

    def add(self, fingerprint: bytes, digest: bytes, member: bytes, *, newer: bool) -> None:
        """`newer` than what is held, or older: then it replaces nothing."""
        if not fingerprint:
            return
        held = self._slots.get(fingerprint, ())
        others = tuple(one for one in held if one.digest != digest and one.member != member)
        if newer:
            self._set(fingerprint, (_Slot(digest, member), *others)[:MOST_ALIKE])
        elif len(others) == len(held) < MOST_ALIKE:
            self._set(fingerprint, (*held, _Slot(digest, member)))

    def drop(self, fingerprint: bytes, digest: bytes) -> None:
        held = self._slots.get(fingerprint, ())
        self._set(fingerprint, tuple(one for one in held if one.digest != digest))

    def keep(self, is_alive: Callable[[bytes], bool]) -> None:
        """Those alone of which it is so."""
        for fingerprint, held in list(self._slots.items()):
            alive = tuple(one for one in held if is_alive(one.digest))
            if len(alive) < len(held):
                self._set(fingerprint, alive)

    def shrink(self, count: int) -> None:
        """Forget the first `count` fingerprints."""
        for fingerprint in list(self._slots)[:count]:
            self._set(fingerprint, ())

    def __len__(self) -> int:
        return len(self._slots)

    def _set(self, fingerprint: bytes, slots: tuple[_Slot, ...]) -> None:
        self._count += len(slots) - len(self._slots.get(fingerprint, ()))
        if slots:
            self._slots[fingerprint] = slots
        else:
            self._slots.pop(fingerprint, None)
