"""What the event loops of one transport keep beside its cache: one bound for all of them.

    transport ─┬─ loop A: 3/4 of the bound ─┬─ https://api.openai.com/v1/
               ├─ loop B: 3/4 of the rest   └─ https://api.mistral.ai/v1/
               └─ ...

Ready answers and requests that came before belong to one loop each, so that a hit takes no lock.
Nearly every transport serves one loop: it gets most. Loops that follow one another, as by
`asyncio.run`, get it in turn.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from thinkonce.engine.asking import Asking
from thinkonce.engine.endpoints import Beside
from thinkonce.engine.memo import Known, Memo
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.web.exchange import Header

__all__ = ("Shares", "at_base")

T = TypeVar("T")

# Of what is left; a power of two below one, so that sums are exact.
KEPT_FOR_OTHERS = 0.25


class Shares:
    """Shares of one; those that are lent at a time come to less than one. Thread-safe."""

    def __init__(self) -> None:
        self._left = 1.0
        self._lock = threading.Lock()
        # Filled while garbage is collected, be it in the middle of `lend`: so by no lock.
        self._returned: deque[float] = deque()
        on_fork(self._in_child)

    def lend(self, make: Callable[[float], T]) -> T:
        """What `make` makes of a share, which comes back when that is gone."""
        with self._lock:
            while self._returned:
                self._left += self._returned.popleft()
            kept = self._left * KEPT_FOR_OTHERS
            share, self._left = self._left - kept, kept
        made = make(share)
        weakref.finalize(made, self._returned.append, share).atexit = False
        return made

    def _in_child(self) -> None:
        free_after_fork(self._lock)


def at_base(beside: Beside, base: str) -> Beside:
    """For the endpoints at one base URL, of what the endpoints at all of them keep."""
    place = base.encode("latin-1")
    memos = {name: _MemoAtBase(memo, place) for name, memo in beside.memos.items()}
    return Beside(beside.parts, memos)


class _MemoAtBase(Memo):
    """The requests to one base URL, in a memo of those to all: a base URL is part of the query."""

    def __init__(self, whole: Memo, base: bytes) -> None:
        self._whole, self._place = whole, base + b"?"

    def known(self, query: bytes, headers: Sequence[Header]) -> Known:
        return self._whole.known(self._place + query, headers)

    def put(self, known: Known, body: bytes, asking: Asking) -> None:
        self._whole.put(known, body, asking)

    def __len__(self) -> int:
        return len(self._whole)
