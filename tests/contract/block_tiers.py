"""What every place for blocks must do: one suite, and the tiers that run through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from thinkonce.clock import Clock
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.terms import USUAL, Priority, Terms
from thinkonce.kv.prefix.tier import BlockTier
from thinkonce.testing import FakeClock

MODEL = b"m" * 32
STATE = 5000  # bytes of a block's state
RECORD = 8192  # what it takes with its head, on a disk
LONG = 20.0
FIVE, HOUR = Terms(life=300.0), Terms(life=3600.0)
A = Owner("key a", namespace="n", tags=("x", "y"))
B = Owner("key b", tags=("y",))


class Opens(Protocol):
    """Opens a tier on one folder as another process would; `max_bytes`: its budget."""

    def __call__(self, folder: Path, max_bytes: int, clock: Clock) -> BlockTier: ...


def path(length: int, name: int = 0, owner: Owner = NOBODY) -> list[Block]:
    """The blocks of one prompt, of 16 tokens each."""
    tokens = [name * 1000 + place for place in range(16 * length)]
    return list(blocks_of(tokens, 16, MODEL, owner))


def state_of(block: Block) -> bytes:
    return (block.id * (STATE // 16 + 1))[:STATE]


def keep(
    tier: BlockTier, blocks: Sequence[Block], owner: Owner = NOBODY, terms: Terms = USUAL
) -> None:
    for block in blocks:
        assert tier.offer(block, memoryview(state_of(block)), owner, terms)
    tier.used(blocks, terms)
    assert tier.flush(LONG)


def loaded(tier: BlockTier, blocks: Sequence[Block]) -> int:
    """How many of a path come back, each as it was."""
    for count, block in enumerate(blocks[: tier.known(blocks)]):
        state = tier.load(block)
        if state is None:
            return count
        assert state == state_of(block), "another block's state, or a damaged one"
    return tier.known(blocks)


class BlockTierContract:
    """Subclasses say how a tier is opened, with a fixture `opens`."""

    @pytest.fixture(autouse=True)
    def on(self, opens: Opens, tmp_path: Path) -> None:
        self.opens, self.folder, self.clock = opens, tmp_path / "kv", FakeClock()

    def opened(self, max_bytes: int = 2**24) -> BlockTier:
        return self.opens(self.folder, max_bytes, self.clock.clock)

    def test_what_was_offered_comes_back_as_it_was_and_nothing_else_is_found(self) -> None:
        tier, blocks = self.opened(), path(5)
        assert tier.known(blocks) == 0
        assert tier.load(blocks[0]) is None
        keep(tier, blocks[:3])
        assert tier.known(blocks) == loaded(tier, blocks) == 3
        assert tier.known(blocks[1:3]) == 2
        assert tier.known(path(5, 1)) == tier.known(path(5, 0, A)) == 0
        assert tier.stats().blocks == 3
        tier.forget([blocks[1].id])
        assert tier.known(blocks) == 1, "what lies behind a hole is of no use"

    def test_a_block_is_found_by_its_tokens_and_not_by_its_name_alone(self) -> None:
        tier, (block,) = self.opened(), path(1)
        keep(tier, [block])
        assert tier.load(Block(block.id, block.parent, b"other" + block.tokens[5:])) is None

    def test_what_is_offered_again_is_there_once(self) -> None:
        tier, blocks = self.opened(), path(3)
        for _ in range(3):
            keep(tier, blocks)
        assert (tier.stats().blocks, tier.stats().written) == (3, 3)

    def test_a_restart_finds_all_of_it(self) -> None:
        tier = self.opened()
        keep(tier, path(40))
        tier.close()
        assert loaded(self.opened(), path(40)) == 40

    def test_what_nobody_used_for_its_life_is_not_there(self) -> None:
        tier = self.opened()
        keep(tier, path(2), terms=FIVE)
        keep(tier, path(1, 1))
        self.clock.advance(299)
        assert loaded(tier, path(2)) == 2
        self.clock.advance(1)
        assert (tier.known(path(2)), tier.load(path(1)[0]), loaded(tier, path(1, 1))) == (
            0,
            None,
            1,
        )
        keep(tier, path(1, 2))
        assert (tier.stats().blocks, tier.stats().expired) == (2, 2)

    def test_a_use_begins_the_life_anew_and_the_longest_counts(self) -> None:
        tier = self.opened()
        keep(tier, path(2), terms=FIVE)
        self.clock.advance(200)
        tier.used(path(1), FIVE)
        self.clock.advance(200)
        assert tier.known(path(2)) == 1
        tier.used(path(1), HOUR)
        tier.used(path(1), FIVE)
        self.clock.advance(3599)
        assert tier.known(path(1)) == 1
        tier.used(path(1))
        self.clock.advance(1e9)
        assert tier.known(path(1)) == 1, "who says nothing lets it stay until room is needed"

    def test_a_use_brings_nothing_back_that_has_expired(self) -> None:
        tier = self.opened()
        keep(tier, path(1), terms=FIVE)
        self.clock.advance(300)
        tier.used(path(1), FIVE)
        assert tier.known(path(1)) == 0
        keep(tier, path(1), terms=FIVE)
        assert loaded(tier, path(1)) == 1

    @pytest.mark.parametrize("waits", [0, 200])
    def test_after_a_restart_a_life_is_as_long_as_it_was(self, waits: int) -> None:
        tier = self.opened()
        keep(tier, path(1), terms=FIVE)
        self.clock.advance(waits)
        tier.used(path(1), FIVE)
        tier.close()
        self.clock.advance(299)
        again = self.opened()
        assert loaded(again, path(1)) == 1
        self.clock.advance(2)
        assert again.known(path(1)) == 0
        again.close()
        assert self.opened().known(path(1)) == 0

    def test_a_wall_clock_that_is_set_back_brings_nothing_back(self) -> None:
        tier = self.opened()
        keep(tier, path(1), terms=FIVE)
        self.clock.jump_wall(-1e6)
        self.clock.advance(301)
        assert tier.known(path(1)) == 0
        keep(tier, path(1, 1), terms=FIVE)
        tier.close()
        self.clock.jump_wall(-1e6)
        again = self.opened()
        assert (again.known(path(1)), again.known(path(1, 1))) == (0, 1)
        self.clock.advance(301)
        assert again.known(path(1, 1)) == 0

    def test_the_room_of_what_expired_is_used_again(self) -> None:
        tier = self.opened(max_bytes=12 * RECORD)
        keep(tier, path(4))
        for number in range(1, 20):
            keep(tier, path(4, number), terms=FIVE)
            self.clock.advance(301)
        assert loaded(tier, path(4)) == 4
        assert tier.stats().evicted == 0

    @pytest.mark.parametrize("priority", ["low", "medium"])
    def test_the_lower_priority_goes_first_after_a_restart_too(self, priority: Priority) -> None:
        tier = self.opened(max_bytes=16 * RECORD)
        keep(tier, path(1), terms=Terms(priority="high"))
        for number in range(1, 30):
            keep(tier, path(1, number), terms=Terms(priority=priority))
            if number == 15:
                tier.close()
                tier = self.opened(max_bytes=16 * RECORD)
        assert loaded(tier, path(1)) == 1
        assert tier.stats().evicted > 0

    def test_the_highest_priority_counts_in_whatever_order_they_are_asked_for(self) -> None:
        tier = self.opened(max_bytes=16 * RECORD)
        keep(tier, path(1), terms=Terms(priority="low"))
        keep(tier, path(1), terms=Terms(priority="medium"))
        for number in range(1, 30):
            keep(tier, path(1, number), terms=Terms(priority="low"))
        assert loaded(tier, path(1)) == 1
        assert tier.stats().evicted > 0

    def test_a_tenant_raises_a_quarter_of_the_budget_and_no_more(self) -> None:
        tier = self.opened(max_bytes=16 * RECORD)
        for number in range(8):
            keep(tier, path(1, number, A), A, Terms(priority="pinned"))
        for number in range(100, 140):
            keep(tier, path(1, number, B), B)
        left = [number for number in range(8) if tier.known(path(1, number, A))]
        assert 3 <= len(left) <= 6

    @pytest.mark.parametrize(
        ("rule", "left"),
        [
            (PurgeRule(tags=("x",)), (0, 2, 2)),
            (PurgeRule(tags=("y", "z")), (0, 0, 2)),
            (PurgeRule(namespace="n"), (0, 2, 2)),
            (PurgeRule(namespace=""), (2, 0, 0)),
            (PurgeRule(tenant="b"), (2, 0, 2)),
            (PurgeRule(tenant="key b"), (2, 0, 2)),
            (PurgeRule(tenant="key b", tags=("x",)), (2, 2, 2)),
            (PurgeRule(tags=("X",)), (2, 2, 2)),
            (PurgeRule(), (0, 0, 0)),
        ],
    )
    def test_a_purge_takes_what_it_names_at_once_and_for_good(
        self, rule: PurgeRule, left: tuple[int, ...]
    ) -> None:
        tier = self.opened()
        paths = {owner: path(2, 0, owner) for owner in (A, B, NOBODY)}
        for owner, blocks in paths.items():
            keep(tier, blocks, owner)
        taken = tier.purge(rule)
        assert tuple(loaded(tier, blocks) for blocks in paths.values()) == left
        assert (taken.blocks, taken.bytes_left) == (6 - sum(left), 0)
        assert (taken.bytes > STATE * taken.blocks) == (taken.blocks > 0)
        tier.close()
        again = self.opened()
        assert tuple(loaded(again, blocks) for blocks in paths.values()) == left
        assert again.purge(rule).blocks == 0

    def test_after_a_restart_a_purge_finds_whose_blocks_are(self) -> None:
        tier = self.opened()
        keep(tier, path(2, 0, A), A)
        keep(tier, path(2, 0, B), B)
        tier.close()
        again = self.opened()
        assert again.purge(PurgeRule(tags=("x",))).blocks == 2
        assert (again.known(path(2, 0, A)), loaded(again, path(2, 0, B))) == (0, 2)

    def test_what_waits_to_be_written_is_purged_too(self) -> None:
        tier = self.opened()
        for block in path(3, 0, A):
            tier.offer(block, memoryview(state_of(block)), A)
        assert tier.purge(PurgeRule(tags=("x",))).bytes_left == 0
        assert tier.flush(LONG)
        assert tier.known(path(3, 0, A)) == 0
        tier.close()
        assert self.opened().known(path(3, 0, A)) == 0

    def test_what_is_forgotten_is_gone_for_good(self) -> None:
        tier, blocks = self.opened(), path(3)
        keep(tier, blocks)
        assert tier.forget([blocks[1].id, b"x" * 16]) == 1
        assert [tier.known([block]) for block in blocks] == [1, 0, 1]
        assert tier.flush(LONG)
        tier.close()
        again = self.opened()
        assert [again.known([block]) for block in blocks] == [1, 0, 1]
        keep(again, blocks)
        assert loaded(again, blocks) == 3
        assert again.forget() == 3
        assert again.stats().blocks == 0


__all__ = ("BlockTierContract", "Opens", "keep", "loaded", "path", "state_of")
