"""What a tier that outlives its process promises besides: what survives closing and reopening.

Part of `TierContract`; tiers that promise nothing beyond the process skip these tests.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers.purges import PurgeLog
from thinkonce.tiers.tier import Tier

__all__ = ("FLUSHING", "Durability", "PurgeableTier")

FLUSHING = 10.0  # seconds; far more than any tier needs


class PurgeableTier(Tier, Protocol):
    purges: PurgeLog


class Durability:
    """Its fixtures are those of `TierContract`: a fresh `tier` on a fresh `clock`."""

    def reopened(self, tier: PurgeableTier) -> PurgeableTier:
        """Persistent tiers: another tier on the same store; the test closes it."""
        raise NotImplementedError("give `reopened`")

    def spoil(self, tier: PurgeableTier, digest: bytes) -> None:
        """Persistent tiers: change one bit of what is stored under `digest`."""
        raise NotImplementedError("give `spoil`")

    def purge(self, tier: PurgeableTier, selector: Selector) -> int:
        """As a cache does it: into the log first, then to the tier."""
        purge, removed = tier.purges.append(selector)
        return removed + tier.purge(purge)

    def only_if_persistent(self, tier: PurgeableTier) -> None:
        if not tier.persistent:
            pytest.skip("this tier promises nothing beyond the process")

    def test_what_was_put_is_there_after_closing(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        for number in range(150):
            tier.put(key_of(str(number)), entry_of(clock, number))
        tier.close()
        again = self.reopened(tier)
        try:
            assert [answer_of(again.get(key_of(str(n)))) for n in range(150)] == list(range(150))
        finally:
            again.close()

    def test_a_purge_is_known_after_closing(self, tier: PurgeableTier, clock: FakeClock) -> None:
        self.only_if_persistent(tier)
        began = tier.purges.epoch[0]
        tier.put(key_of("a"), entry_of(clock))
        self.purge(tier, Selector())
        tier.close()
        again = self.reopened(tier)
        try:
            assert again.get(key_of("a")) is None
            assert again.purges.epoch[0] > began
            again.put(key_of("late"), entry_of(clock, epoch=began))
            assert again.flush(FLUSHING)
            assert again.get(key_of("late")) is None
        finally:
            again.close()

    def test_two_tiers_on_one_store_share_answers_and_purges(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        other = self.reopened(tier)
        try:
            tier.put(key_of("a"), entry_of(clock, 1))
            assert tier.flush(FLUSHING)
            assert answer_of(other.get(key_of("a"))) == 1
            tier.put(key_of("queued"), entry_of(clock, 2))
            self.purge(other, Selector())
            assert tier.get(key_of("a")) is None
            assert tier.get(key_of("queued")) is None, "a purge elsewhere takes effect at once"
            assert tier.flush(FLUSHING)
            assert other.get(key_of("queued")) is None
        finally:
            other.close()

    def test_a_changed_bit_is_a_miss_and_is_counted(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        for name in ("spoilt", "sound"):
            tier.put(key_of(name), entry_of(clock, {"name": name}))
        assert tier.flush(FLUSHING)
        self.spoil(tier, key_of("spoilt").digest)
        assert tier.get(key_of("spoilt")) is None
        assert tier.stats().errors == 1
        assert answer_of(tier.get(key_of("sound"))) == {"name": "sound"}
        tier.put(key_of("spoilt"), entry_of(clock, "new"))
        assert tier.flush(FLUSHING)
        assert answer_of(tier.get(key_of("spoilt"))) == "new"
