"""Tiers that fail or wait when a test says so, around any real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from thinkonce.entry import Entry
from thinkonce.errors import TierError
from thinkonce.selector import Purge, Selector
from thinkonce.tiers.tier import Key, Tier, TierStats

__all__ = ("FlakyTier", "SlowTier")


class _Around:
    """Passes every call on, after `before` had its say."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.name, self.persistent = tier.name, tier.persistent

    def before(self, call: str) -> None:
        raise NotImplementedError

    def get(self, key: Key) -> Entry | None:
        self.before("get")
        return self.tier.get(key)

    def peek(self, key: Key) -> Entry | None:
        self.before("peek")
        return self.tier.peek(key)

    def lacks(self, key: Key) -> bool:
        return False  # so that it is asked

    def put(self, key: Key, entry: Entry) -> None:
        self.before("put")
        self.tier.put(key, entry)

    def delete(self, key: Key) -> bool:
        self.before("delete")
        return self.tier.delete(key)

    def doom(self, key: Key) -> None:
        self.before("doom")
        self.tier.doom(key)

    def purge(self, purge: Purge) -> int:
        self.before("purge")
        return self.tier.purge(purge)

    def entries(self, selector: Selector, limit: int, after: bytes = b"") -> Iterator[Entry]:
        self.before("entries")
        return self.tier.entries(selector, limit, after)

    def stats(self) -> TierStats:
        return self.tier.stats()

    def flush(self, timeout: float) -> bool:
        self.before("flush")
        return self.tier.flush(timeout)

    def close(self) -> None:
        self.tier.close()


class FlakyTier(_Around):
    """Raises TierError from the calls named in `broken`, or from the next few of any kind."""

    def __init__(self, tier: Tier, *broken: str) -> None:
        super().__init__(tier)
        self.broken = set(broken)
        self.failures = 0
        self._next = 0
        self._lock = threading.Lock()

    def fail_next(self, times: int) -> None:
        with self._lock:
            self._next = times

    def before(self, call: str) -> None:
        with self._lock:
            if self._next > 0:
                self._next -= 1
            elif call not in self.broken:
                return
            self.failures += 1
        raise TierError(self.name, f"{call}: a test asked for it")


class SlowTier(_Around):
    """While `hold` is in force, the calls named in `slow` wait until `release`.

    `waiting` tells how many do; `wait_for(n)` returns once n are, so that no test has to sleep.
    """

    PATIENCE_SECONDS = 30.0  # a test that forgets to release fails instead of hanging

    def __init__(self, tier: Tier, *slow: str) -> None:
        super().__init__(tier)
        self.slow = set(slow) or {"get", "put"}
        self.waiting = 0
        self._held = False
        self._changed = threading.Condition()

    def hold(self) -> None:
        with self._changed:
            self._held = True

    def release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_for(self, waiting: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.waiting >= waiting, self.PATIENCE_SECONDS):
                raise AssertionError(f"{self.waiting} calls wait, not {waiting}")

    def before(self, call: str) -> None:
        if call not in self.slow:
            return
        with self._changed:
            self.waiting += 1
            self._changed.notify_all()
            released = self._changed.wait_for(lambda: not self._held, self.PATIENCE_SECONDS)
            self.waiting -= 1
        if not released:
            raise AssertionError(f"a {call} was never released")
