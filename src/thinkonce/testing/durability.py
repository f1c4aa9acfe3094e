"""What a tier that outlives its process promises besides: what survives closing and reopening.

Part of `TierContract`; tiers that promise nothing beyond the process skip these tests.
"""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from thinkonce.entry import Meta
from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, hint_of, key_of
from thinkonce.tiers.purges import PurgeLog
from thinkonce.tiers.tier import Question, Tier

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

    def asked(self, tier: Any, partition: str = "p") -> list[Question]:
        """The rows of the questions of a partition."""
        found: list[Question] = tier.questions.newer(hint_of("", partition).partition, 0, 1000)
        return found

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

    def test_questions_lie_by_partition_in_the_order_they_were_written(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        for number in range(6):
            hint = hint_of(f"question {number}", "even" if number % 2 == 0 else "odd")
            tier.put(key_of(str(number)), entry_of(clock, hint=hint))
            tier.put(key_of(f"plain {number}"), entry_of(clock))
            assert tier.flush(FLUSHING)
        rows = self.asked(tier, "even")
        assert [row.digest for row in rows] == [key_of(name).digest for name in "024"]
        assert [row.row for row in rows] == sorted({row.row for row in rows})
        assert rows[0][2:] == ("e", b"vector", b"print of question ", b"")
        assert self.asked(tier, "neither") == []

    def test_questions_are_read_on_from_where_one_was_in_both_directions(
        self, tier: Any, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        for number in range(9):
            tier.put(key_of(str(number)), entry_of(clock, hint=hint_of(f"question {number}")))
        assert tier.flush(FLUSHING)
        rows, partition = self.asked(tier), hint_of("").partition
        assert tier.questions.newer(partition, rows[3].row, 2) == rows[4:6]
        assert tier.questions.older(partition, rows[3].row, 2) == [rows[2], rows[1]]
        assert tier.questions.digests(partition) == {row.digest for row in rows}
        assert tier.questions.of(rows[3].digest)[1:] == rows[3][1:]
        assert tier.questions.of(key_of("unknown").digest) is None

    @pytest.mark.parametrize(
        "selector",
        [Selector(), Selector(tags=("red",)), Selector(key=key_of("a").digest)],
        ids=["all", "tag", "key"],
    )
    def test_a_question_goes_with_its_entry(
        self, tier: PurgeableTier, clock: FakeClock, selector: Selector
    ) -> None:
        self.only_if_persistent(tier)
        meta = Meta(tags=("red",))
        tier.put(key_of("a"), entry_of(clock, meta=meta, hint=hint_of("purged")))
        tier.put(key_of("b"), entry_of(clock, hint=hint_of("deleted", "q")))
        assert tier.flush(FLUSHING)
        assert len(self.asked(tier) + self.asked(tier, "q")) == 2
        assert tier.delete(key_of("b"))
        assert self.asked(tier, "q") == []
        self.purge(tier, selector)
        assert self.asked(tier) == []

    def test_an_entry_written_again_has_one_question_with_a_new_number(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        tier.put(key_of("a"), entry_of(clock, hint=hint_of("asked")))
        tier.put(key_of("b"), entry_of(clock, hint=hint_of("other")))
        assert tier.flush(FLUSHING)
        last = self.asked(tier)[-1].row
        tier.put(key_of("a"), entry_of(clock, hint=hint_of("asked", vector=b"another")))
        assert tier.flush(FLUSHING)
        other, again = self.asked(tier)
        assert other.digest == key_of("b").digest
        assert again.vector == b"another"
        assert again.row > last, "whoever had read all of them reads it"

    def test_a_vector_made_anew_is_read_by_others_and_of_what_is_gone_nothing_is_kept(
        self, tier: Any, clock: FakeClock
    ) -> None:
        self.only_if_persistent(tier)
        for name in "ab":
            hint = hint_of(name, embedder="", vector=b"", member=b"of " + name.encode())
            tier.put(key_of(name), entry_of(clock, hint=hint))
        assert tier.flush(FLUSHING)
        other = self.reopened(tier)
        try:
            seen = self.asked(other)[-1].row
            assert tier.delete(key_of("b"))
            made = [(key_of(name).digest, name.encode()) for name in "ab"]
            assert tier.questions.renew("new", made) == 1
            (row,) = self.asked(other)
            assert row[1:] == (key_of("a").digest, "new", b"a", b"print of a", b"of a")
            assert row.row > seen
        finally:
            other.close()
