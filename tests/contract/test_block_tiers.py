"""The disk tier keeps the contract of places for blocks, plain and sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.block_tiers import MODEL, A, BlockTierContract, Opens, keep, path, state_of
from thinkonce.clock import Clock
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
