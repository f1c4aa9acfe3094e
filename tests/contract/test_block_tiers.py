"""The disk tier keeps the contract of places for blocks, plain and sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.block_tiers import (
    FIVE,
    HOUR,
    LONG,
    MODEL,
    A,
    BlockTierContract,
    Opens,
    keep,
    path,
    state_of,
)
from thinkonce.clock import Clock
from thinkonce.kv.disk import erase
from thinkonce.kv.disk.holdings import LOOK_AGAIN
from thinkonce.kv.disk.record import Plain
from thinkonce.kv.disk.sealed import Sealed
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.tiers.cipher import Cipher

SECRET = b"s" * 32
FORMS = {"plain": Plain(), "sealed": Sealed(Cipher([b"k" * 32]), SECRET)}


class TestDisk(BlockTierContract):
    @pytest.fixture(params=FORMS)
    def opens(self, request: pytest.FixtureRequest) -> Iterator[Opens]:
        with ExitStack() as stack:

            def opens(folder: Path, max_bytes: int, clock: Clock) -> DiskTier:
                form = FORMS[request.param]
                tier = DiskTier(folder, MODEL, max_bytes, secret=SECRET, form=form, clock=clock)
                stack.callback(tier.close)
                return tier

            yield opens

    def test_no_byte_of_what_was_purged_stays_in_the_folder(self) -> None:
        tier = self.opened()
        gone, stays = path(3, 0, A), path(3)
        keep(tier, gone[:2], A)
        keep(tier, stays)
        keep(tier, gone[2:], A)
        before = self.bytes_of(gone[1])
        taken = tier.purge(PurgeRule(tags=("x",)))
        assert (taken.blocks, taken.bytes_left) == (3, 0)
        assert [self.bytes_of(block) for block in gone] == [0, 0, 0]
        assert [self.bytes_of(block) for block in stays] == [before] * 3

    def test_where_a_file_system_makes_no_holes_zeros_are_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(erase, "_fallocate", lambda: None)
        self.test_no_byte_of_what_was_purged_stays_in_the_folder()

    def test_what_another_process_wrote_it_gives_up_when_it_looks(self) -> None:
        one, other = self.opened(), self.opened()
        keep(other, path(2, 0, A), A)
        assert one.known(path(2, 0, A)) == 2
        taken = one.purge(PurgeRule(tags=("x",)))
        assert (taken.blocks, taken.bytes_left) == (2, taken.bytes), "it has not looked yet"
        assert other.known(path(1, 7)) == 0
        self.clock.advance(LOOK_AGAIN)
        assert other.known(path(1, 8)) == other.known(path(2, 0, A)) == 0
        assert other.flush(LONG)
        assert self.bytes_of(path(1, 0, A)[0]) == 0

    def test_a_longer_life_that_another_process_gave_counts(self) -> None:
        one, other = self.opened(), self.opened()
        keep(other, path(1), terms=FIVE)
        assert one.known(path(1)) == 1
        one.used(path(1), HOUR)
        assert one.flush(LONG)
        self.clock.advance(LOOK_AGAIN)
        assert other.known(path(1, 8)) == 0, "it looks"
        other.close()
        one.close()
        self.clock.advance(3000)
        assert self.opened().known(path(1)) == 1

    def test_a_row_tells_nothing_of_its_owner(self) -> None:
        owners = [A, A.__class__("tenant-secret-name", namespace="spaces", tags=("a-tag",))]
        tier = self.opened()
        for owner in owners:
            keep(tier, path(1, 0, owner), owner)
        raw = b"".join(file.read_bytes() for file in self.folder.rglob("*") if file.is_file())
        for word in (b"key a", b"tenant-secret-name", b"spaces", b"a-tag"):
            assert word not in raw

    def bytes_of(self, block: object) -> int:
        """How many times a piece of its state is in the files."""
        piece = state_of(block)[:32]  # type: ignore[arg-type]
        return sum(file.read_bytes().count(piece) for file in self.folder.rglob("*.blocks"))
