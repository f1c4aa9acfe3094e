"""A plain hit on one entry in one shape, ready to be printed: only what differs is filled in.

A plain hit is an exact one of the memory tier, asked for without controls. Nearly all of its
answer is the same each time. A plate holds that in few objects: of a thousand questions asked in
turn none finds its own in the processor's caches, and each object is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import msgspec

from thinkonce.engine.marks import JSON_TYPE, STREAM_TYPE, Ready, plain_lines, plain_note
from thinkonce.entry import Entry
from thinkonce.insight.savings import Account, Repeats
from thinkonce.protocols.dialect import Asked

__all__ = ("Plain", "Plate", "no_plate")

# Header lines of a 200 that is ready to be sent, and its body in pieces: it is joined once, by
# whoever sends it.
Plain = tuple[bytes, bytes, bytes, bytes]


class Plate:
    """For one event loop. Whoever made it ready owns it; others who want it again hold it weakly.

    `entry`: of which it is, and of no other. `used`: it printed since that was last asked.
    `count`: to be called when what it printed is handed out, unless `repeats` counts it: that is
    there once it is known by which labels.
    """

    __slots__ = (
        "__weakref__", "_account", "_asked", "_fresh_id", "_lines", "_lives", "_note", "_pieces",
        "_usual", "entry", "ready", "repeats", "used",
    )  # fmt: skip

    def __init__(
        self,
        entry: Entry,
        ready: Ready,
        asked: Asked,
        account: Account,
        fresh_id: Callable[[], str] | None,
    ) -> None:
        """`ready` serves `asked`. `fresh_id` None: the body has no marks, and keeps its id."""
        template = ready.prepared.template(asked)
        assert template is not None, "whoever makes a plate asks `serves` first"
        self.entry, self.ready, self.used = entry, ready, False
        self._account = account
        self.repeats: Repeats | None = None
        self._asked = msgspec.structs.replace(asked, body={})
        self._pieces, self._usual, self._fresh_id = template.pieces, template.usual(), fresh_id
        # An entry that is put again has another instant, and still none if it had none.
        self._lives = entry.fresh_until != inf
        kind = STREAM_TYPE if asked.stream else JSON_TYPE
        self._lines = plain_lines(ready, kind, lives=self._lives)
        self._note = b"," + plain_note(ready, lives=self._lives)

    def count(self) -> None:
        ready = self.ready
        self._account.add(ready.tokens, ready.nanos, ready.micros)

    def repeated(self, told: Callable[[int], None]) -> Repeats:
        """What counts its hits from now on, if they are counted there; `told` of how many."""
        ready = self.ready
        saved = ready.tokens, ready.nanos, ready.micros
        self.repeats = Repeats(self._account, saved, told)
        return self.repeats

    @property
    def model(self) -> str:
        return self._asked.model

    def print(self, request_id: bytes, wall: float, now: float) -> Plain:
        """The answer at these seconds of the two clocks."""
        entry, fresh_id, lives = self.entry, self._fresh_id, self._lives
        age, left = wall - entry.created_at, entry.fresh_until - now
        if age < 0:
            age = 0.0
        if fresh_id is None:
            first, note, last = self.ready.prepared.render(self._asked, None), b"", b""
        else:
            note = self._note % ((age, left) if lives else age)
            new_id, created, usual = f'"{fresh_id()}"'.encode(), b"%d" % int(wall), self._usual
            if usual is None:
                first, note, last = self._pieces(new_id, created, note)
            else:
                of_id, of_created, of_run, run, first, last = usual
                run = run.replace(of_id, new_id).replace(of_created, created)
                first = first.replace(of_run, run)
        age, size = int(age), len(first) + len(note) + len(last)  # whole numbers take half the time
        if not lives:
            return self._lines % (age, request_id, size), first, note, last
        left = int(left)
        return self._lines % (age, left, left, request_id, size), first, note, last


def no_plate() -> None:
    """Stands where a plate that is gone would be asked for."""
