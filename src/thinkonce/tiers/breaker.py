"""A tier that keeps failing is left alone for a while, so that it costs no more than a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from thinkonce.circuit import Circuit
from thinkonce.clock import Clock
from thinkonce.entry import Entry
from thinkonce.errors import CorruptEntry, TierError
from thinkonce.selector import Purge, Selector
from thinkonce.tiers.tier import Key, Ledger, Questions, StoreTier, Sums, Tier, TierStats

__all__ = ("Breaker", "StoreBreaker")

T = TypeVar("T", bound=Tier)
S = TypeVar("S", bound=StoreTier)


class Breaker(Generic[T]):
    """Any tier behind two circuits, one for reading and one for writing.

    While a circuit is open its calls raise TierError at once. Deletions and purges always go
    through: one that could not be done must be heard of.
    """

    def __init__(self, tier: T, clock: Clock) -> None:
        self.tier = tier
        self.name, self.persistent = tier.name, tier.persistent
        self.reading = Circuit(f"tier {tier.name!r} (reading)", clock)
        self.writing = Circuit(f"tier {tier.name!r} (writing)", clock)

    def get(self, key: Key) -> Entry | None:
        return self._read(self.tier.get, key)

    def peek(self, key: Key) -> Entry | None:
        return self._read(self.tier.peek, key)

    def lacks(self, key: Key) -> bool:
        return self.reading.is_well and self.tier.lacks(key)

    def _read(self, read: Callable[[Key], Entry | None], key: Key) -> Entry | None:
        if not self.reading.allows():
            raise TierError(self.name, "being switched off after failures")
        try:
            entry = read(key)
        except TierError as error:
            _note(self.reading, error)
            raise
        self.reading.succeeded()
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        if not self.writing.allows():
            raise TierError(self.name, "being switched off after failures")
        try:
            self.tier.put(key, entry)
        except TierError as error:
            _note(self.writing, error)
            raise
        self.writing.succeeded()

    def delete(self, key: Key) -> bool:
        return self.tier.delete(key)

    def doom(self, key: Key) -> None:
        self.tier.doom(key)

    def purge(self, purge: Purge) -> int:
        return self.tier.purge(purge)

    def entries(self, selector: Selector, limit: int, after: bytes = b"") -> Iterator[Entry]:
        return self.tier.entries(selector, limit, after)

    def stats(self) -> TierStats:
        return self.tier.stats()

    def flush(self, timeout: float) -> bool:
        return self.tier.flush(timeout)

    def close(self) -> None:
        self.tier.close()


class StoreBreaker(Breaker[S]):
    """Any store; what is no read or write of an entry goes through."""

    @property
    def savings(self) -> Sums:
        return self.tier.savings

    @property
    def questions(self) -> Questions:
        return self.tier.questions

    @property
    def ledger(self) -> Ledger:
        return self.tier.ledger

    @property
    def max_bytes(self) -> int:
        return self.tier.max_bytes

    def resize(self, max_bytes: int) -> None:
        self.tier.resize(max_bytes)

    def bytes_of(self, tenant: str) -> int:
        return self.tier.bytes_of(tenant)

    def counted(self) -> TierStats:
        return self.tier.counted()


def _note(circuit: Circuit, error: TierError) -> None:
    if isinstance(error, CorruptEntry):  # one bad row; the tier itself answered
        circuit.succeeded()
    else:
        circuit.failed(error)
