"""Named counts of all processes of a host, summed over the living and the dead.

    names:  | length, text | ...                     NAMES, in order of their first use
    owners: | process      | ...                     ROWS
    rows:   | one number per name | ... | retired |  ROWS + 1

Each process writes a row of its own, so counting takes no lock between processes. The row of a
process that died is added to the last row, `retired`, when another process needs its place. A
process that finds no row writes into `retired`, under the lock: slower, but nothing is lost.
"""

from __future__ import annotations

import struct
import threading

from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.host.mapfile import COUNTERS_SIZE, HostFile
from thinkonce.host.process import Process, is_alive, this_process

__all__ = ("MAX_NAMES", "MAX_NAME_BYTES", "Counters")

MAX_NAMES, MAX_NAME_BYTES = 1024, 127
ROWS = 64
NAME_BYTES = 1 + MAX_NAME_BYTES
OWNER = struct.Struct("=4IQ")  # 1 if taken, pid, boot, space, start time
OWNERS_AT = MAX_NAMES * NAME_BYTES
ROWS_AT = OWNERS_AT + ROWS * OWNER.size
ROW_BYTES = MAX_NAMES * 8
RETIRED = ROWS
assert ROWS_AT + (ROWS + 1) * ROW_BYTES <= COUNTERS_SIZE
MODULUS = 1 << 64


class Counters:
    """Thread-safe. Counts wrap at 2**64. `lost` is how many names found no place here.

    Raises TierError when the file's lock is not to be had in time; only a name's first use in a
    process, `totals`, and processes without a row need it.
    """

    def __init__(self, host: HostFile) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._place: dict[str, int] = {}
        self._row: int | None = None  # None: not looked for yet
        self.lost = 0
        on_fork(self._in_child)

    def add(self, name: str, count: int = 1) -> None:
        """Add `count` (may be negative, for what goes up and down) to the counter `name`.

        `name` is at most 127 bytes of UTF-8. Beyond 1,024 names nothing is counted, but `lost`.
        """
        with self._lock:
            place = self._place.get(name)
            if place is None:
                place = self._first_use(name)
            if place < 0:
                self.lost += 1
            elif self._row == RETIRED:
                with self._host.lock:
                    self._bump(RETIRED, place, count)
            else:
                assert self._row is not None
                self._bump(self._row, place, count)

    def totals(self, *, of_the_living: bool = False) -> dict[str, int]:
        """Every name and its sum: over all processes that ever counted, or those that still run.

        The latter is for what goes up and down, like calls under way.
        """
        with self._host.lock:
            names = self._names()
            owners = [self._owner(row) for row in range(ROWS)]
            taken = [row for row, owner in enumerate(owners) if owner is not None]
            if of_the_living:
                taken = [row for row in taken if (o := owners[row]) is not None and is_alive(o)]
            else:
                taken.append(RETIRED)
            rows = [self._numbers(row)[: len(names)].tolist() for row in taken]
        sums = [sum(column) % MODULUS for column in zip(*rows, strict=True)] or [0] * len(names)
        return dict(zip(names, (signed(number) for number in sums), strict=True))

    def close(self) -> None:
        """Give the row back; what it holds goes into `retired`. Idempotent."""
        with self._lock:
            if self._row is not None and self._row != RETIRED:
                with self._host.lock:
                    self._retire(self._row)
            self._row = None
            self._place.clear()

    # -- under both locks ----------------------------------------------------------------

    def _first_use(self, name: str) -> int:
        encoded = name.encode()
        if len(encoded) > MAX_NAME_BYTES:
            raise ValueError(f"counter {name!r} has {len(encoded)} bytes; {MAX_NAME_BYTES} fit")
        with self._host.lock:
            if self._row is None:
                self._row = self._take_row()
            names = self._names()
            if name in names:
                place = names.index(name)
            elif len(names) < MAX_NAMES:
                place = len(names)
                at = place * NAME_BYTES
                self._host.counters[at + 1 : at + 1 + len(encoded)] = encoded
                self._host.counters[at] = len(encoded)  # last: a name counts once it is whole
            else:
                place = -1
        self._place[name] = place
        return place

    def _take_row(self) -> int:
        owners = [self._owner(row) for row in range(ROWS)]
        if None in owners:
            row = owners.index(None)
        else:
            dead = (row for row, owner in enumerate(owners) if owner and not is_alive(owner))
            row = next(dead, RETIRED)
        if row != RETIRED:
            self._retire(row)
            me = this_process()
            fields = (1, me.pid, me.boot, me.space, me.started)
            OWNER.pack_into(self._host.counters, OWNERS_AT + row * OWNER.size, *fields)
        return row

    def _retire(self, row: int) -> None:
        """Move the numbers of `row` to the last row, and free it."""
        numbers, retired = self._numbers(row), self._numbers(RETIRED)
        for place in range(len(self._names())):
            if numbers[place]:
                retired[place] = (retired[place] + numbers[place]) % MODULUS
                numbers[place] = 0
        OWNER.pack_into(self._host.counters, OWNERS_AT + row * OWNER.size, 0, 0, 0, 0, 0)

    def _names(self) -> list[str]:
        names, region = [], self._host.counters
        for at in range(0, OWNERS_AT, NAME_BYTES):
            if not (length := region[at]):
                break
            text = bytes(region[at + 1 : at + 1 + length])
            names.append(text.decode(errors="replace"))
        return names

    def _owner(self, row: int) -> Process | None:
        fields = OWNER.unpack_from(self._host.counters, OWNERS_AT + row * OWNER.size)
        return Process(*fields[1:]) if fields[0] else None

    def _numbers(self, row: int) -> memoryview:
        at = ROWS_AT + row * ROW_BYTES
        return self._host.counters[at : at + ROW_BYTES].cast("Q")

    def _bump(self, row: int, place: int, count: int) -> None:
        numbers = self._numbers(row)
        numbers[place] = (numbers[place] + count) % MODULUS

    def _in_child(self) -> None:
        """After a fork: the row is the parent's."""
        free_after_fork(self._lock)
        self._row = None
        self._place = {}


def signed(number: int) -> int:
    """A sum of ups and downs may be below zero; no count reaches 2**63."""
    return number - MODULUS if number >= MODULUS // 2 else number
