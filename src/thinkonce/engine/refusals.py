"""Why answers were not stored, by key: a bounded memory that `explain` and `preload` ask."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from thinkonce.flights.singleflight import Fate, Landing
from thinkonce.outcome import Reason
from thinkonce.steps import Made

__all__ = ("Refusal", "Refusals")


@dataclass(frozen=True, slots=True)
class Refusal:
    """`at`: wall clock, seconds. `detail`: an upstream's error in one line, "" for none."""

    reason: Reason
    at: float
    detail: str = ""


class Refusals:
    """The most recent `capacity` keys. Belongs to one event loop; others may read."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._known: OrderedDict[bytes, Refusal] = OrderedDict()

    def landed(self, digest: bytes, landing: Landing, at: float) -> None:
        """Take note of how a call for the key ended: what was stored is refused no more."""
        refusal = _refusal(landing, at)
        if refusal is None:
            self._known.pop(digest, None)
            return
        self._known[digest] = refusal
        self._known.move_to_end(digest)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def of(self, digest: bytes) -> Refusal | None:
        """None where the last answer was stored, or nothing is known."""
        return self._known.get(digest)

    def __len__(self) -> int:
        return len(self._known)


def _refusal(landing: Landing, at: float) -> Refusal | None:
    if landing.fate is Fate.FAILED:
        return Refusal(Reason.ERROR, at, f"{landing.error!s:.200}")
    made = landing.value
    if isinstance(made, Made) and made.refused is not None:
        return Refusal(made.refused, at)
    return None
