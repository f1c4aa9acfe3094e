"""Where the answers of one cache lie, as one thing: probed, purged, listed, counted, bounded.

The library's `Cache` and the gateway each hold one; what differs is who asks, not what is held.
"""

from __future__ import annotations

import heapq
import logging
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from thinkonce.backing import Backing, open_backing
from thinkonce.clock import SYSTEM, Clock
from thinkonce.entry import LEFT, Entry
from thinkonce.errors import ConfigError, TierError
from thinkonce.freshness import Rules
from thinkonce.request.key import Keyer
from thinkonce.request.secret import fingerprint
from thinkonce.selector import ALL_DIGITS, MOST_ALIKE, Purge, Selector, beginning_with, only_one
from thinkonce.steps import Setting
from thinkonce.tiers.keyring import NO_KEYS, Keyring
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.purges import concerned
from thinkonce.tiers.tier import Key, Tier, TierStats
from thinkonce.words import words_of

if TYPE_CHECKING:
    from thinkonce.meaning.matching import Meaning
    from thinkonce.settings.semantic import Namespace, Semantic

__all__ = ("Shelf", "open_shelf")

log = logging.getLogger("thinkonce")

# Later than every epoch: a purge that has no number yet concerns all there is.
UNNUMBERED = sys.maxsize
NOWHERE_ELSE: Mapping[str, Namespace] = MappingProxyType({})


class Shelf:
    """Thread-safe. What a store's disk may delay (`purge`, `discard`, `entries`, `stats`,
    `flush`, `close`) belongs in a thread where an event loop runs.
    """

    def __init__(
        self,
        backing: Backing,
        memory: MemoryTier,
        rules: Rules,
        clock: Clock = SYSTEM,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.backing, self.memory, self.store = backing, memory, backing.tier
        self.flights, self.clock = backing.flights, clock
        self.keyer = Keyer(backing.secret)
        self.fingerprint = fingerprint(backing.secret)  # tells nothing of the secret
        # Whether other processes may purge: then a probe compares epochs.
        self.shared = self.store is not None
        # Told the tier's name and the error where a failure is nobody's who asks.
        self.tier_failed: Callable[[str, Exception], None] = _log_failure
        self.meaning: Meaning | None = None  # what finds answers to questions in other words
        self.setting = Setting(
            tiers=(memory,) if self.store is None else (memory, self.store),
            rules=rules,
            clock=clock,
            chance=chance,
            why_gone=memory.why_gone,
            purged=self.is_purged,
            purges=memory.purges,
        )

    @property
    def epoch(self) -> int:
        """The purge epoch now; what a request begins under."""
        return int(self.memory.purges.epoch[0])

    def compare(
        self,
        options: Semantic,
        namespaces: Mapping[str, Namespace] = NOWHERE_ELSE,
        data: Path | None = None,
    ) -> None:
        """Let questions in other words be answered; from now on under `options`, if they are.

        Takes seconds the first time: models are loaded. `data` is the data folder. Raises
        ConfigError for an embedder, a verifier or a judge that cannot be had.
        """
        if self.meaning is not None:
            self.meaning.rulebook.adopt(options, namespaces)
            return
        # Not at the top: what it stands on (numpy, and models) is an extra.
        try:
            from thinkonce.meaning.opening import open_meaning
        except ModuleNotFoundError as missing:
            accepts = f"it once {missing.name} is there; thinkonce[semantic] brings it"
            raise ConfigError("semantic", True, accepts) from missing

        self.meaning = open_meaning(
            options,
            namespaces,
            tiers=lambda: self.setting.tiers,
            memory=self.memory,
            store=self.store,
            words=words_of,
            data=data,
            clock=self.clock,
            chance=self.setting.chance,
        )

    # -- looking -------------------------------------------------------------------------

    def probe(self, local: object, now: float | None = None) -> Entry | None:
        """A memory hit that the flow has decided already; None sends the caller to the flow.

        `now`: by the monotonic clock, where the caller has looked at it.
        """
        memory = self.memory
        entry = memory.map.get(local)
        if (
            entry is None
            or (self.clock.monotonic() if now is None else now) >= entry.inline_until
            or (self.shared and memory.purges.epoch[0] != memory.applied)
        ):
            return None
        memory.note(entry)
        return entry

    def probe_again(self, entry: Entry, now: float) -> bool:
        """Whether `probe` would give this very entry, which it gave before: without a look-up."""
        memory = self.memory
        if (
            now >= entry.inline_until
            or entry.tally is LEFT
            or (self.shared and memory.purges.epoch[0] != memory.applied)
        ):
            return False
        note = memory.note
        note(entry)
        return True

    def is_purged(self, entry: Entry) -> bool:
        """Whether a purge since the request for `entry` began means it; if unknown, it does."""
        try:
            return concerned(entry, self.memory.purges.since(entry.epoch))
        except TierError as error:
            self.tier_failed(error.tier, error)
            return True

    def entries(self, selector: Selector, limit: int, after: bytes = b"") -> list[Entry]:
        """Of all tiers, in order of their keys, each once, beginning behind `after`."""
        rows = [tier.entries(selector, limit, after) for tier in self.setting.tiers]
        found: dict[bytes, Entry] = {}
        for entry in heapq.merge(*rows, key=lambda entry: entry.digest):
            if len(found) == limit and entry.digest not in found:
                break
            found.setdefault(entry.digest, entry)
        return list(found.values())

    def digest_of(self, digits: str) -> bytes | None:
        """The one key that begins with `digits`; None if no entry has such a one.

        Raises RequestError if several do.
        """
        if len(digits) == ALL_DIGITS:
            return bytes.fromhex(digits)
        alike = beginning_with(digits)
        listed = (tier.entries(alike, MOST_ALIKE) for tier in self.setting.tiers)
        found = only_one(chain.from_iterable(listed), digits)
        return None if found is None else found.digest

    def tier_stats(self) -> dict[str, TierStats]:
        """By the tier's name; a tier that fails holds nothing for now."""
        return {tier.name: _stats_of(tier) for tier in self.setting.tiers}

    def tier_counts(self) -> dict[str, TierStats]:
        """As `tier_stats`, at once: what the store holds is left out."""
        counts = {self.memory.name: self.memory.stats()}
        if self.store is not None:
            counts[self.store.name] = self.store.counted()
        return counts

    def stats(self) -> dict[str, Any]:
        """All numbers of the shelf, for people and programs."""
        tiers = self.tier_stats()
        return {
            "tiers": {name: msgspec.structs.asdict(stats) for name, stats in tiers.items()},
            **self.bounds(),
            **self.identity(),
            **({} if self.meaning is None else {"semantic": self.meaning.told()}),
        }

    def identity(self) -> dict[str, int | str]:
        """The purge epoch now, and a fingerprint of the secret."""
        return {"epoch": self.epoch, "secret": self.fingerprint}

    def bounds(self) -> dict[str, int | None]:
        """In entries and bytes; None: no such bound."""
        limits = self.memory.limits
        return {
            "max_size": limits.max_entries,
            "max_bytes": limits.max_bytes,
            "store_max_bytes": None if self.store is None else self.store.max_bytes,
        }

    # -- changing ------------------------------------------------------------------------

    def purge(self, selector: Selector) -> int:
        """Remove what `selector` means, at once in every process of the host.

        Returns how many entries went, at least: most lie in two tiers and count once, so the
        greater of the tiers' numbers is told. Raises TierError where the store could not be
        purged (locked for longer than 10 s, say): then only what this process held in memory is
        gone, and the store would give it back.
        """
        # Before the store's part, which may have to wait for whoever writes to it.
        held = self.memory.purge(Purge(UNNUMBERED, selector)) if self.shared else 0
        purge, stored = self.backing.purges.append(selector)
        held += self.memory.purge(purge)
        return max(held, stored)

    def discard(self, key: Key) -> bool:
        """Remove what `key` holds, in every process of the host; False if nothing was there.

        A purge like any other, so that a call under way does not bring the answer back. Where
        only the digest is known, it stands for the local form too. Raises TierError as `purge`.
        """
        if key.local == key.digest and key.local not in self.memory.map:
            return self.purge(Selector(key=key.digest)) > 0  # memory may name it otherwise
        held = self.shared and self.memory.forget(key, Purge(UNNUMBERED, Selector()))
        purge, stored = self.backing.purges.append(Selector(key=key.digest))
        held = self.memory.forget(key, purge) or held
        return held or stored > 0

    def adopt(self, rules: Rules) -> None:
        """What begins from now on begins under `rules`; what has begun keeps its `setting`."""
        self.setting = replace(self.setting, rules=rules)
        self.flights.adopt(rules.lease)

    def resize(
        self,
        max_size: int | None = None,
        max_bytes: int | None = None,
        store_max_bytes: int | None = None,
    ) -> None:
        """Change bounds while running; what is None stays. Raises ConfigError."""
        if store_max_bytes is not None and (self.store is None or store_max_bytes < 1):
            accepts = "bytes > 0, and a store to bound"
            raise ConfigError("store_max_bytes", store_max_bytes, accepts)
        limits = self.memory.limits
        self.memory.resize(
            limits.max_entries if max_size is None else max_size,
            limits.max_bytes if max_bytes is None else max_bytes,
        )
        if self.store is not None and store_max_bytes is not None:
            self.store.resize(store_max_bytes)

    def flush(self, timeout: float) -> bool:
        """Wait until what was stored is durable; False if `timeout` seconds passed first."""
        return sum(not tier.flush(timeout) for tier in self.setting.tiers) == 0

    def close(self) -> None:
        """Finish what is queued and let the store go; memory serves on. Idempotent."""
        if self.meaning is not None:
            self.meaning.close()
            self.meaning = None
        self.setting.tiers = (self.memory,)
        if self.shared:
            self.memory.detach()
            self.setting.purges = self.memory.purges
        self.backing.close()


def open_shelf(
    url: str | None,
    rules: Rules,
    *,
    keys: Keyring = NO_KEYS,
    max_size: int | None = None,
    max_bytes: int | None,
    store_max_bytes: int,
    policy: str,
    clock: Clock = SYSTEM,
    chance: Callable[[], float] = random.random,
) -> Shelf:
    """Open what `url` names (see `backing`), with a memory tier in front of it.

    Bounds are entries and bytes. Raises ConfigError naming the setting and what would work.
    """
    backing = open_backing(url, keys, clock=clock, max_bytes=store_max_bytes, lease=rules.lease)
    try:
        memory = MemoryTier(
            max_entries=max_size,
            max_bytes=max_bytes,
            policy=policy,
            clock=clock,
            purges=backing.purges,
        )
    except BaseException:
        backing.close()
        raise
    return Shelf(backing, memory, rules, clock, chance)


def _log_failure(tier: str, error: Exception) -> None:
    log.warning("tier %s failed: %s", tier, error)


def _stats_of(tier: Tier) -> TierStats:
    try:
        return tier.stats()
    except TierError:
        return TierStats()
