"""What is said in rows: that a block lies somewhere, is gone, stays longer; and whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from thinkonce.clock import Clock
from thinkonce.kv.disk.catalogue import Place
from thinkonce.kv.disk.names import Names, Word
from thinkonce.kv.disk.record import Form
from thinkonce.kv.disk.rows import Kind, Rows, checked, row_of, said_rows
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.stay import Stay

__all__ = ("Gone", "Offered", "Sayings", "place_of", "words_of", "written_at")


@dataclass(slots=True)
class Offered:
    """A block that is to be written; `stay` by the monotonic clock. `more`: words under which its
    owner falls besides, whose texts nobody here knows.
    """

    block: Block
    state: memoryview
    owner: Owner
    stay: Stay
    more: tuple[Word, ...] = ()


class Gone(NamedTuple):
    """A block that is not kept, and where it lay. `purged`: no byte of it may stay."""

    place: Place | None = None
    purged: bool = False


class Sayings:
    """Makes rows for one folder."""

    def __init__(self, names: Names, form: Form, clock: Clock) -> None:
        self._names, self._form, self._clock = names, form, clock

    def lies(self, offered: Offered, place: Place) -> Rows:
        """That it lies there."""
        block, stay, wall = offered.block, offered.stay, self._clock.wall()
        return row_of(
            self._form.name(block.id),
            self._form.name(block.parent),
            Kind.LIVE,
            owner=self._names.owner(offered.owner),
            expires=stay.expires - self._clock.monotonic() + wall,
            weight=stay.weight,
            written=wall,
            tokens=block.length,
            key=self._form.key,
            **_where(place),
        )

    def gone(self, gone: Mapping[bytes, Gone]) -> Rows:
        """That these are."""
        key, wall = self._form.key, self._clock.wall()
        purged = [name for name, was in gone.items() if was.purged]
        others = [name for name, was in gone.items() if not was.purged]
        return np.concatenate(
            [said_rows(Kind.GONE, others, key, wall), said_rows(Kind.PURGED, purged, key, wall)]
        )

    def stays(self, live: Rows) -> Rows:
        """That they stay as long as these rows say."""
        live["kind"], live["key"] = Kind.STAYS, np.void(self._form.key)
        return checked(live)


def words_of(owner: bytes, words: Iterable[Word]) -> list[Rows]:
    """Under which words that owner falls."""
    return [row_of(owner, word.mark, Kind.WORD, weight=word.sort) for word in words]


def written_at(row: np.void, place: Place) -> Rows:
    """The same row, of a record that lies there now; an array of one."""
    moved = np.array([row], row.dtype)
    for name, value in _where(place).items():
        moved[name] = value
    return checked(moved)


def place_of(writer: int, row: np.void) -> Place:
    return Place(writer, int(row["segment"]), int(row["offset"]), int(row["length"]))


def _where(place: Place) -> dict[str, float]:
    return {"segment": place.segment, "offset": place.offset, "length": place.length}
