"""A plain hit on one entry in one shape, ready to be printed: only what differs is filled in.

A plain hit is an exact one of the memory tier, asked for without controls. Nearly all of its
answer is the same each time. A plate holds that in few objects: of a thousand questions asked in
turn none finds its own in the processor's caches, and each object is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import msgspec

from thinkonce.engine.counting import Labels
from thinkonce.engine.marks import JSON_TYPE, STREAM_TYPE, Ready, plain_lines, plain_note
from thinkonce.entry import Entry
from thinkonce.insight.savings import Account
from thinkonce.protocols.dialect import Asked

__all__ = ("Plain", "Plate", "no_plate")

Plain = tuple[bytes, bytes]  # header lines and body of a 200 that is ready to be sent


class Plate:
    """For one event loop. Whoever made it ready owns it; others who want it again hold it weakly.

    `entry`: of which it is, and of no other. `used`: it printed since that was last asked.
    `count`: to be called when what it printed is handed out.
    `labels`: what its hits are counted by, once they are known.
    """

    __slots__ = (
        "__weakref__", "_asked", "_fill", "_fresh_id", "_lines", "_lives", "_note", "count",
        "entry", "labels", "ready", "used",
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
        self.count = partial(account.add, ready.tokens, ready.nanos, ready.micros)
        self.labels: Labels | None = None
        self._asked = msgspec.structs.replace(asked, body={})
        self._fill, self._fresh_id = template.fill, fresh_id
        # An entry that is put again has another instant, and still none if it had none.
        self._lives = entry.fresh_until != inf
        kind = STREAM_TYPE if asked.stream else JSON_TYPE
        self._lines = plain_lines(ready, kind, lives=self._lives)
        self._note = b"," + plain_note(ready, lives=self._lives)

    def print(self, request_id: bytes, wall: float, now: float) -> Plain:
        """The answer at these seconds of the two clocks."""
        entry, fresh_id = self.entry, self._fresh_id
        age, left = wall - entry.created_at, entry.fresh_until - now
        if age < 0:
            age = 0.0
        if fresh_id is None:
            body = self.ready.prepared.render(self._asked, None)
        else:
            note = self._note % ((age, left) if self._lives else (age,))
            body = self._fill(f'"{fresh_id()}"'.encode(), b"%d" % int(wall), note)
        age = int(age)  # it writes whole numbers in half the time
        if not self._lives:
            return self._lines % (age, request_id, len(body)), body
        left = int(left)
        return self._lines % (age, left, left, request_id, len(body)), body


def no_plate() -> None:
    """Stands where a plate that is gone would be asked for."""
