"""What became of keys that are no longer here: a bounded memory of reasons, without the answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from thinkonce.outcome import Reason

__all__ = ("Ghosts",)


class Ghosts:
    """Remembers by hash why a key left, for the `capacity` most recent ones.

    Hashes may collide; a wrong word in `x-cache-reason` is the worst that follows. Callers hold
    the tier's lock for `note`; `why` may be called without it.
    """

    def __init__(self, capacity: int = 8192) -> None:
        self._capacity = capacity
        self._reasons: OrderedDict[int, Reason] = OrderedDict()

    def note(self, key: Hashable, reason: Reason) -> None:
        hashed = hash(key)
        self._reasons[hashed] = reason
        self._reasons.move_to_end(hashed)
        if len(self._reasons) > self._capacity:
            self._reasons.popitem(last=False)

    def why(self, key: Hashable) -> Reason | None:
        return self._reasons.get(hash(key))

    def forget(self, key: Hashable) -> None:
        self._reasons.pop(hash(key), None)

    def clear(self) -> None:
        self._reasons.clear()
