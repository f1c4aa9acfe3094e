"""A tier of blocks against a dict: whatever is kept, used, purged, expires or is opened again."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from math import inf
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.block_tiers import LONG, MODEL, A, B, path, state_of
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.terms import Terms
from thinkonce.testing import FakeClock

OWNERS = (A, B, NOBODY)
ALL = [(block, owner) for owner in OWNERS for name in range(2) for block in path(3, name, owner)]
owners = st.sampled_from(OWNERS)
lengths = st.integers(1, 3)
names = st.integers(0, 1)
terms = st.builds(Terms, life=st.sampled_from([None, 10.0, 100.0]))
rules = st.builds(
    PurgeRule,
    tenant=st.sampled_from([None, "key a", "b", "c"]),
    namespace=st.sampled_from([None, "n", ""]),
    tags=st.sampled_from([(), ("x",), ("y", "z")]),
)


@dataclass
class Known:
    expires: float
    owner: Owner


class BlockTierMachine(RuleBasedStateMachine):
    """`model`: what must be there, by id."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="thinkonce-"))
        self.clock = FakeClock()
        self.model: dict[bytes, Known] = {}
        self.tier = self.opened()

    def opened(self) -> DiskTier:
        return DiskTier(self.folder, MODEL, 2**24, secret=b"s" * 32, clock=self.clock.clock)

    def teardown(self) -> None:
        if hasattr(self, "tier"):
            self.tier.close()
            shutil.rmtree(self.folder)

    @rule(owner=owners, name=names, length=lengths, terms=terms, waits=st.booleans())
    def keep(self, owner: Owner, name: int, length: int, terms: Terms, waits: bool) -> None:
        for block in path(length, name, owner):
            assert self.tier.offer(block, memoryview(state_of(block)), owner, terms)
            known = self.model.setdefault(block.id, Known(-inf, owner))
            known.expires = max(known.expires, self.until(terms))
        if waits:
            assert self.tier.flush(LONG)

    @rule(owner=owners, name=names, length=lengths, terms=terms)
    def use(self, owner: Owner, name: int, length: int, terms: Terms) -> None:
        assert self.tier.flush(LONG)
        blocks = path(length, name, owner)
        self.tier.used(blocks, terms)
        for block in blocks:
            if known := self.model.get(block.id):
                known.expires = max(known.expires, self.until(terms))

    @rule(seconds=st.sampled_from([1, 9, 60, 200]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        self.model = {id: known for id, known in self.model.items() if known.expires > now}

    @rule(what=rules)
    def purge(self, what: PurgeRule) -> None:
        left = {id: known for id, known in self.model.items() if not what.holds(known.owner)}
        taken = self.tier.purge(what)
        assert taken.bytes_left == 0
        self.model = left

    @rule(owner=owners, name=names, place=st.integers(0, 2))
    def forget(self, owner: Owner, name: int, place: int) -> None:
        block = path(3, name, owner)[place]
        assert self.tier.forget([block.id]) == (block.id in self.model)
        self.model.pop(block.id, None)

    @rule()
    def open_again(self) -> None:
        self.tier.close()
        self.tier = self.opened()

    @invariant()
    def all_of_it_is_there_and_nothing_else(self) -> None:
        if not hasattr(self, "tier"):
            return
        assert self.tier.flush(LONG)
        for block, _ in ALL:
            assert self.tier.known([block]) == (block.id in self.model)
            state = self.tier.load(block)
            assert (state is not None) == (block.id in self.model)
            assert state is None or state == state_of(Block(block.id, b"", b""))

    def until(self, terms: Terms) -> float:
        return inf if terms.life is None else self.clock.monotonic() + terms.life


TestBlockTierMachine = BlockTierMachine.TestCase
TestBlockTierMachine.settings = settings(max_examples=12, stateful_step_count=15)
