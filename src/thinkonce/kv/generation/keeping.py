"""Blocks of one model: found in memory and below it, loaded, kept. What all readers stand on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.generation.codecs.codec import Codec, bytes_of
from thinkonce.kv.generation.codecs.raw import Raw
from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.rates import Rates
from thinkonce.kv.generation.reading import Found, Put, ReadingStats
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.slabs import Slabs
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.prefix.blocks import Block, named_behind
from thinkonce.kv.prefix.causes import Missing
from thinkonce.kv.prefix.chain import Chain
from thinkonce.kv.prefix.index import Hold, PrefixIndex
from thinkonce.kv.prefix.owner import ANY_DOCUMENT, Owner
from thinkonce.kv.prefix.public import NOTHING_PUBLIC
from thinkonce.kv.prefix.purges import Purges
from thinkonce.kv.prefix.reused import Reused
from thinkonce.kv.prefix.terms import Terms
from thinkonce.kv.prefix.tier import BlockTier

__all__ = ("Keeping",)

_logger = logging.getLogger("thinkonce.kv")


class Keeping:
    """`kept` None: nothing is found and nothing stays. `below`: the tier in which that is looked
    for which memory does not have, and to which all that is kept is offered.

    `fingerprint` is that of the model, `chunk_tokens` and `codec`, which says how states are kept
    (None: as computed). `memory` bounds what `kept` and the sequences under way take together, in
    bytes; None leaves `kept` its own bound and sequences none. Used by one thread; the index may
    be shared and looked at meanwhile.
    """

    def __init__(
        self,
        network: Any,
        *,
        chunk_tokens: int,
        fingerprint: bytes,
        kept: PrefixIndex[torch.Tensor] | None,
        below: BlockTier | None = None,
        memory: int | None = None,
        purges: Purges | None = None,
        clock: Clock = SYSTEM,
        rates: Rates | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.network, self.chunk_tokens, self.fingerprint = network, chunk_tokens, fingerprint
        self.kept, self.below, self.clock = kept, below, clock
        self.purges, self.rates = purges or Purges(), rates or Rates()
        self.shape = shape_of(network)
        self.codec = codec or Raw(self.shape)
        self.slabs = Slabs(self.shape, kept, memory)
        self.public = NOTHING_PUBLIC
        self.stats = ReadingStats()
        # Told of each prompt that is asked: its tokens, and its full blocks.
        self.recorded: Callable[[int, Sequence[Block]], None] | None = None

    def forward(self, slab: Slab, tokens: Sequence[int], position: int) -> torch.Tensor:
        """The logits after `tokens`, the first of them at `position`, behind what `slab` holds."""
        with torch.inference_mode():
            slab.reserve(slab.length + len(tokens))
        return forward(self.network, tokens, position, slab.cache)

    def count(self, **more: int) -> None:
        """Add to `stats`."""
        was = self.stats
        self.stats = replace(was, **{name: getattr(was, name) + by for name, by in more.items()})

    def count_reused(self, more: Reused) -> None:
        self.stats = replace(self.stats, reused=self.stats.reused + more)

    # -- finding ---------------------------------------------------------------------------------

    def found(self, chain: Chain, below: int | None = None) -> Found:
        """What would be loaded of it now. `below`: blocks that lay below memory when that was asked
        before; then no disk is asked. From any thread.
        """
        blocks = chain.blocks
        memory = self.kept.known(blocks) if self.kept is not None else 0
        if below is not None:
            return Found(memory, min(below, len(blocks) - memory))
        there = self.below.known(blocks[memory:]) if self.below is not None else 0
        slower = bool(there) and self.rates.load_is_slower
        return Found(memory, 0 if slower else there, slower=slower)

    def missing(self, chain: Chain, found: Found) -> Missing | None:
        """Why the first block that was not loaded was not, of a text that has a chain of its own;
        None where all was. From any thread.
        """
        if found.blocks >= len(chain):
            return None
        if found.slower or found.failed:
            return Missing("slower_than_recompute" if found.slower else "load_error")
        ghosts, blocks = self.kept.ghosts if self.kept is not None else None, chain.blocks
        if ghosts is None:
            return Missing("never_seen")
        names = [list(blocks)]
        if (before := ghosts.before_purge(chain.owners[0])) is not None:
            held = (block.tokens for block in blocks)
            names.append(list(named_behind(blocks[0].parent, held, before)))
        for block in (block for called in names for block in called[found.blocks :]):
            if (gone := ghosts.find(block.id)) is not None:
                return Missing(gone[0].cause, gone[1], gone[0].policy)
        return Missing("never_seen")

    @contextmanager
    def held(self, chain: Chain, most: int, terms: Terms) -> Iterator[Hold[torch.Tensor]]:
        """What memory knows of the first `most` blocks stays while this is entered, and so does
        what is kept meanwhile; then it is offered to the tier below. What was purged meanwhile is
        forgotten.
        """
        assert self.kept is not None
        owner = chain.owners[0] if chain.owners else Owner()
        try:
            with self.kept.hold(chain.blocks[:most], owner, terms, chain.owners) as hold:
                try:
                    yield hold
                finally:
                    self._offer(hold, chain)
        finally:
            if self.is_purged(chain):
                self._forget(chain)

    def is_purged(self, chain: Chain) -> bool:
        """Whether that happened since its owners were asked for: then nothing of it is found."""
        return any(self.purges.era_of(owner) != owner for owner in chain.each_owner)

    def load(
        self,
        chain: Chain,
        hold: Hold[torch.Tensor],
        put: Callable[[torch.Tensor], None],
    ) -> Found:
        """Give `put` the states of the chain's first blocks, as far as they are known, in order.

        What was below memory is in memory then too, where there is room.
        """
        with torch.inference_mode():
            for node in hold.nodes:
                put(self.codec.decode(node.state))
        found = self._load_below(chain, hold, put)
        if self.below is not None and found.blocks > len(hold.nodes):
            # Memory had no room for the rest.
            self.below.used(chain.blocks[: found.blocks], hold.terms)
        return found

    def _load_below(
        self,
        chain: Chain,
        hold: Hold[torch.Tensor],
        put: Callable[[torch.Tensor], None],
    ) -> Found:
        first, blocks = len(hold.nodes), chain.blocks
        known = self.below.known(blocks[first:]) if self.below is not None else 0
        if known and not self.rates.load_is_sooner():
            self.count(slower=known)
            return Found(first, slower=True)
        for count, block in enumerate(blocks[first : first + known]):
            began, place = self.clock.monotonic(), first + count
            owner = self._marked(block, chain.owners[place])
            kept = self._stored(block)
            if kept is None:
                return Found(first, count, failed=True)
            with torch.inference_mode():
                put(self.codec.decode(kept))
            self.rates.load.add(block.length, self.clock.monotonic() - began)
            _hold(hold, chain, kept, place, owner)
        return Found(first, known)

    def _marked(self, block: Block, owner: Owner) -> Owner:
        """As it is to be in memory: what others marked below stays so, though nobody here knows
        the names of those marks.
        """
        assert self.below is not None
        is_marked = self.below.is_marked(block, owner)
        return owner.with_documents(ANY_DOCUMENT) if is_marked else owner

    def _stored(self, block: Block) -> torch.Tensor | None:
        assert self.below is not None
        data = self.below.load(block)
        return None if data is None else self.codec.kept_of(data, block.length)

    # -- keeping ---------------------------------------------------------------------------------

    def keep(
        self, slab: Slab, start: int, hold: Hold[torch.Tensor], chain: Chain, place: int
    ) -> Put:
        """Store block number `place` of a chain, whose tokens begin at `start` in the slab; memory
        that is not there costs the answer nothing.
        """
        below, block, owner = self.below, chain.blocks[place], chain.owners[place]
        if below is None and place != len(hold.nodes):
            return Put.NOWHERE
        try:
            with torch.inference_mode():
                kept = self.codec.encode(slab.copy(start, start + block.length))
        except (MemoryError, RuntimeError) as failed:  # torch has both for memory that ran out
            _logger.warning("attention state is not kept: %s", failed)
            self.count(not_kept=1)
            return Put.NOWHERE
        is_below = below is not None and below.known([block]) > 0
        if _hold(hold, chain, kept, place, owner):
            # Another request may have kept it meanwhile, or this one did not look for it.
            return Put.KNOWN if is_below or hold.nodes[-1].state is not kept else Put.NEW
        if below is None or not below.offer(block, bytes_of(kept), owner, hold.terms):
            return Put.NOWHERE
        return Put.KNOWN if is_below else Put.NEW

    def _offer(self, hold: Hold[torch.Tensor], chain: Chain) -> None:
        """What is in memory of this chain shall be below too, and stay there as long."""
        if self.below is None or self.is_purged(chain):
            return
        for node in hold.nodes:
            self.below.offer(node.block, bytes_of(node.state), node.owner, hold.terms)
        self.below.used([node.block for node in hold.nodes], hold.terms)
        # Looked at last: a purge comes to memory first, and then takes what was offered.
        if gone := [node.id for node in hold.nodes if node.doomed]:
            self.below.forget(gone)

    def _forget(self, chain: Chain) -> None:
        assert self.kept is not None
        for owner in chain.each_owner:
            if self.purges.era_of(owner) != owner:
                self.kept.purge(owner.covers)
        if self.below is not None:
            self.below.forget([block.id for block in chain.blocks])


def _hold(
    hold: Hold[torch.Tensor], chain: Chain, kept: torch.Tensor, place: int, owner: Owner
) -> bool:
    """Keep a chain's block number `place`: without all before it, it could never be found."""
    if place != len(hold.nodes):
        return False
    return hold.extend(chain.blocks[place], kept, kept.nbytes, owner)
