"""What every tier promises, as tests. Subclass `TierContract`, say how to make one, run pytest.

    class TestMine(TierContract):
        @pytest.fixture
        def tier(self, clock):
            tier = MyTier(clock=clock.clock)
            yield tier
            tier.close()

A persistent tier also gives the back doors `reopened` and `spoil`, which reach behind its back.
A tier must have `purges`, the log its writes are checked against.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import inf

import pytest

from thinkonce.entry import Form, Meta
from thinkonce.likeness import Hint
from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.durability import FLUSHING, Durability, PurgeableTier
from thinkonce.testing.entries import answer_of, brief, entry_of, key_of, run_together
from thinkonce.values import Kept, keep, keep_stream

__all__ = ("TierContract", "answer_of", "entry_of", "key_of")

STORED = (
    "form", "meta", "digest", "payload_size", "cost", "seconds", "tokens", "created_at",
    "expires_at", "gone_at", "stale_while_revalidate", "stale_if_error", "epoch",
)  # fmt: skip


class Opaque:
    """Something that can only be copied."""


class TierContract(Durability):
    """Each test gets a fresh, empty `tier` on a fresh `clock`."""

    # -- what a subclass gives -----------------------------------------------------------

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def tier(self, clock: FakeClock) -> Iterator[PurgeableTier]:
        raise NotImplementedError("give a fixture `tier`")

    # -- put and get -----------------------------------------------------------------------

    def test_an_unknown_key_is_nothing(self, tier: PurgeableTier) -> None:
        assert tier.get(key_of("a")) is None

    @pytest.mark.parametrize("flushed", [False, True], ids=["at once", "after a flush"])
    def test_an_entry_is_found_as_it_was_put(
        self, tier: PurgeableTier, clock: FakeClock, flushed: bool
    ) -> None:
        meta = Meta("f", "tenant", "v1", "模型", ("faq", "标签"), "high", "label", "pool")
        put = entry_of(clock, {"a": [1, (2,)]}, ttl=60, retention=30, meta=meta)
        tier.put(key_of("a"), put)
        assert not flushed or tier.flush(FLUSHING)
        found = tier.get(key_of("a"))
        assert answer_of(found) == {"a": [1, (2,)]}
        assert {name: getattr(found, name) for name in STORED} == {
            **{name: getattr(put, name) for name in STORED},
            "digest": key_of("a").digest,
        }

    def test_a_found_entry_knows_its_key_and_its_life_in_this_process(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, ttl=60, retention=30))
        clock.jump_wall(-5.0)
        found = tier.get(key_of("a"))
        assert found is not None
        assert found.key == "a"
        assert 60 <= found.fresh_until - clock.monotonic() <= 65
        assert 90 <= found.forget_at - clock.monotonic() <= 95

    @pytest.mark.parametrize("text", ["限额是多少", "nul \0 and half \ud83d", "", "x" * 400])
    @pytest.mark.parametrize("flushed", [False, True], ids=["at once", "after a flush"])
    def test_an_entry_knows_which_question_it_answers(
        self, tier: PurgeableTier, clock: FakeClock, flushed: bool, text: str
    ) -> None:
        put = Hint(bytes(range(32)), text)
        tier.put(key_of("a"), entry_of(clock, hint=put))
        tier.put(key_of("b"), entry_of(clock))
        assert not flushed or tier.flush(FLUSHING)
        found, other = tier.get(key_of("a")), tier.get(key_of("b"))
        assert found is not None
        assert other is not None
        assert found.hint == put
        assert other.hint is None

    @pytest.mark.parametrize(
        "kept",
        [
            keep(None),
            keep(""),
            keep(("a", 1, (b"b", None))),
            keep({"n": 2**70, "t": (1,), 3: "int key"}),
            keep("x" * 1_000_000),
            keep_stream(["a", {"b": [1]}]),
            Kept(Form.REPLY, b"\x00raw\xff", None, 5),
        ],
        ids=["None", "empty", "tuple", "dict", "1 MB", "stream", "reply"],
    )
    def test_every_form_of_answer_comes_back(
        self, tier: PurgeableTier, clock: FakeClock, kept: Kept
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, kept=kept))
        queued = answer_of(tier.get(key_of("a")))
        assert tier.flush(FLUSHING)
        stored = answer_of(tier.get(key_of("a")))
        wanted = kept.payload if kept.thaw is None else kept.thaw(kept.payload)
        assert queued == stored == wanted
        assert type(stored) is type(wanted)

    def test_no_caller_can_change_what_the_next_one_gets(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, {"a": [1]}))
        answer_of(tier.get(key_of("a")))["a"].append("poison")
        assert answer_of(tier.get(key_of("a"))) == {"a": [1]}

    def test_the_last_put_wins(self, tier: PurgeableTier, clock: FakeClock) -> None:
        for number in range(3):
            tier.put(key_of("a"), entry_of(clock, number))
            assert answer_of(tier.get(key_of("a"))) == number
        assert tier.flush(FLUSHING)
        assert answer_of(tier.get(key_of("a"))) == 2
        assert tier.stats().entries == 1

    def test_a_value_that_can_only_be_copied_is_for_memory(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        entry = entry_of(clock, Opaque())
        if tier.persistent:
            with pytest.raises(TypeError, match="Opaque"):
                tier.put(key_of("a"), entry)
        else:
            tier.put(key_of("a"), entry)
            assert isinstance(answer_of(tier.get(key_of("a"))), Opaque)

    # -- time ------------------------------------------------------------------------------

    def test_an_expired_entry_is_there_until_it_is_gone(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, ttl=60, retention=30))
        clock.advance(60)
        assert tier.get(key_of("a")) is not None, "freshness is the business of the flow"
        clock.advance(29.9)
        assert tier.get(key_of("a")) is not None
        clock.advance(0.1)
        assert tier.get(key_of("a")) is None, "an entry is dead at its end, not after it"

    def test_a_wall_clock_set_back_brings_nothing_back(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, ttl=60))
        assert tier.flush(FLUSHING)
        clock.advance(61)
        assert tier.get(key_of("a")) is None
        clock.jump_wall(-3600)
        assert tier.get(key_of("a")) is None
        assert tier.flush(FLUSHING)
        assert tier.get(key_of("a")) is None

    def test_what_is_gone_is_not_listed(self, tier: PurgeableTier, clock: FakeClock) -> None:
        tier.put(key_of("a"), entry_of(clock, ttl=60))
        tier.put(key_of("b"), entry_of(clock))
        clock.advance(61)
        assert [entry.digest for entry in tier.entries(Selector(), 10)] == [key_of("b").digest]

    # -- delete ------------------------------------------------------------------------------

    @pytest.mark.parametrize("flushed", [False, True], ids=["still queued", "stored"])
    def test_a_peek_sees_what_a_get_would(
        self, tier: PurgeableTier, clock: FakeClock, flushed: bool
    ) -> None:
        assert tier.peek(key_of("a")) is None
        tier.put(key_of("a"), entry_of(clock, "seen", ttl=10))
        assert not flushed or tier.flush(FLUSHING)
        assert answer_of(tier.peek(key_of("a"))) == "seen"
        clock.advance(10)
        assert tier.peek(key_of("a")) is None

    @pytest.mark.parametrize("flushed", [False, True], ids=["still queued", "stored"])
    def test_delete_removes_one_entry_for_good(
        self, tier: PurgeableTier, clock: FakeClock, flushed: bool
    ) -> None:
        tier.put(key_of("a"), entry_of(clock))
        tier.put(key_of("b"), entry_of(clock))
        assert not flushed or tier.flush(FLUSHING)
        assert tier.delete(key_of("a")) is True
        assert tier.get(key_of("a")) is None
        assert tier.flush(FLUSHING)
        assert tier.get(key_of("a")) is None, "a queued write must not undo it"
        assert tier.get(key_of("b")) is not None
        assert tier.delete(key_of("a")) is False

    @pytest.mark.parametrize("flushed", [False, True], ids=["still queued", "stored"])
    def test_what_is_doomed_is_gone_at_once_until_it_is_put_again(
        self, tier: PurgeableTier, clock: FakeClock, flushed: bool
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, "old"))
        assert not flushed or tier.flush(FLUSHING)
        tier.doom(key_of("a"))
        assert tier.get(key_of("a")) is None
        tier.put(key_of("b"), entry_of(clock))
        assert tier.flush(FLUSHING)
        assert tier.get(key_of("a")) is None, "a queued write must not undo it"
        tier.doom(key_of("a"))
        tier.put(key_of("a"), entry_of(clock, "new"))
        assert tier.flush(FLUSHING)
        assert answer_of(tier.get(key_of("a"))) == "new"

    # -- purges ------------------------------------------------------------------------------

    @pytest.mark.parametrize("flushed", [False, True], ids=["still queued", "stored"])
    @pytest.mark.parametrize(
        ("selector", "left"),
        [
            (Selector(tags=("red",)), "bcd"),
            (Selector(tags=("red", "blue")), "cd"),
            (Selector(namespace="v2"), "abd"),
            (Selector(namespace=""), "c"),
            (Selector(model="m2"), "abc"),
            (Selector(scope="other"), "abcd"),
            (Selector(tenant="t2"), "acd"),
            (Selector(tenant="t2", tags=("red",)), "abcd"),
            (Selector(key=key_of("a").digest), "bcd"),
            (Selector(key=key_of("a").digest[:6]), "bcd"),
            (Selector(older_than=1_700_000_005.0), "bcd"),
            (Selector(expired_before=1_700_000_100.0), "abc"),
            (Selector(), ""),
        ],
        ids=lambda value: value if isinstance(value, str) else brief(value),
    )
    def test_a_purge_removes_exactly_what_it_means(
        self, tier: PurgeableTier, clock: FakeClock, selector: Selector, left: str, flushed: bool
    ) -> None:
        metas = {
            "a": Meta("f", "t1", tags=("red", "x")),
            "b": Meta("f", "t2", tags=("blue", "red-ish", "%")),
            "c": Meta("f", "t1", "v2"),
            "d": Meta("f", "t1", model="m2"),
        }
        for name, meta in metas.items():
            ttl = 50.0 if name == "d" else inf
            tier.put(key_of(name), entry_of(clock, name, meta=meta, ttl=ttl, retention=900))
            clock.advance(10)
        assert not flushed or tier.flush(FLUSHING)
        assert self.purge(tier, selector) == 4 - len(left)
        assert "".join(name for name in "abcd" if tier.get(key_of(name))) == left
        assert tier.flush(FLUSHING)
        assert "".join(name for name in "abcd" if tier.get(key_of(name))) == left
        assert tier.stats().entries == len(left)

    def test_a_write_that_began_before_a_purge_does_not_undo_it(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        began = tier.purges.epoch[0]
        self.purge(tier, Selector(namespace="v1"))
        tier.put(key_of("late"), entry_of(clock, meta=Meta(namespace="v1"), epoch=began))
        tier.put(key_of("other"), entry_of(clock, meta=Meta(namespace="v2"), epoch=began))
        now = tier.purges.epoch[0]
        tier.put(key_of("new"), entry_of(clock, meta=Meta(namespace="v1"), epoch=now))
        for _ in range(2):
            assert tier.get(key_of("late")) is None
            assert tier.get(key_of("other")) is not None, "the purge did not mean it"
            assert tier.get(key_of("new")) is not None, "its request began after the purge"
            assert tier.flush(FLUSHING)

    def test_a_purge_of_a_replacement_does_not_bring_back_what_it_replaced(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, "old", meta=Meta(namespace="v1")))
        assert tier.flush(FLUSHING)
        tier.put(key_of("a"), entry_of(clock, "new", meta=Meta(namespace="v2")))
        assert self.purge(tier, Selector(namespace="v2")) == 1
        assert tier.get(key_of("a")) is None
        assert tier.flush(FLUSHING)
        assert tier.get(key_of("a")) is None

    def test_a_purge_counts_an_entry_as_it_is_now(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, "old", meta=Meta(namespace="v1")))
        assert tier.flush(FLUSHING)
        tier.put(key_of("a"), entry_of(clock, "new", meta=Meta(namespace="v2")))
        assert self.purge(tier, Selector(namespace="v1")) == 0
        assert answer_of(tier.get(key_of("a"))) == "new"

    def test_a_purge_spares_what_was_asked_for_after_it(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        purge, _ = tier.purges.append(Selector())
        tier.put(key_of("a"), entry_of(clock, epoch=purge.epoch))
        assert tier.flush(FLUSHING)
        assert tier.purge(purge) == 0
        assert tier.get(key_of("a")) is not None

    # -- listing -----------------------------------------------------------------------------

    def test_entries_come_in_order_of_digest_page_by_page(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        names = [f"entry {number}" for number in range(25)]
        for name in names:
            tier.put(key_of(name), entry_of(clock, name))
        listed: list[bytes] = []
        while page := list(tier.entries(Selector(), 10, listed[-1] if listed else b"")):
            assert len(page) <= 10
            listed += [entry.digest for entry in page]
        assert listed == sorted(key_of(name).digest for name in names)

    def test_a_listing_holds_what_the_selector_means(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        tier.put(key_of("a"), entry_of(clock, "a", meta=Meta(tags=("red",))))
        tier.put(key_of("b"), entry_of(clock, "b", meta=Meta(namespace="v2")))
        assert [answer_of(e) for e in tier.entries(Selector(tags=("red",)), 10)] == ["a"]
        assert [answer_of(e) for e in tier.entries(Selector(namespace="v2"), 10)] == ["b"]
        assert list(tier.entries(Selector(namespace="v3"), 10)) == []
        assert list(tier.entries(Selector(), 0)) == []

    def test_stats_count_entries_and_bytes(self, tier: PurgeableTier, clock: FakeClock) -> None:
        for number in range(5):
            tier.put(key_of(str(number)), entry_of(clock, "x" * 1000))
        assert tier.flush(FLUSHING)
        stats = tier.stats()
        assert stats.entries == 5
        assert stats.bytes >= 5000
        assert stats.dropped_writes == stats.errors == 0

    # -- threads -----------------------------------------------------------------------------

    def test_threads_see_whole_entries_under_the_right_key(
        self, tier: PurgeableTier, clock: FakeClock
    ) -> None:
        names = [f"key {number}" for number in range(10)]
        wrong: list[object] = []

        def work(worker: int) -> None:
            for step in range(60):
                name = names[(worker + step) % len(names)]
                if step % 7 == 6:
                    tier.delete(key_of(name))
                tier.put(key_of(name), entry_of(clock, {"name": name, "pad": "x" * step * 20}))
                found = tier.get(key_of(names[step % len(names)]))
                if found is not None and answer_of(found)["name"] != names[step % len(names)]:
                    wrong.append(found)

        run_together([partial(work, worker) for worker in range(6)])
        assert wrong == []
        assert tier.flush(FLUSHING)
        assert tier.stats().entries <= len(names)

    # -- the end, and after --------------------------------------------------------------------

    def test_closing_twice_is_harmless(self, tier: PurgeableTier, clock: FakeClock) -> None:
        tier.put(key_of("a"), entry_of(clock))
        tier.close()
        tier.close()
