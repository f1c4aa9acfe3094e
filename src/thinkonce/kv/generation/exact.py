"""Generation that reads each prefix once, and gives the bits that reading it anew would give.

    prompt   |  chunk 0  |  chunk 1  |  chunk 2  | tail |     chunks are cut at 0, C, 2C, ...
    known    |===========|===========|
             load         load        forward     forward      the last piece is always computed

Every piece is one forward pass over the same tokens behind the same bytes, whoever computed
those: so a warm request runs the calls that a cold one runs, less the first ones. What a tail or
an answer wrote is never kept: computed in other company, its last bits would be others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.generation.blob import bytes_of, state_of
from thinkonce.kv.generation.decode import decoded, forward
from thinkonce.kv.generation.generator import Prefilled, Preloaded, Read, Sampling, Steps, Token
from thinkonce.kv.generation.rates import Rates
from thinkonce.kv.generation.reading import Asked, Found, Reading, ReadingStats
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.slabs import Slabs
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.prefix.blocks import Block, blocks_of, first_parent, named_behind, packed
from thinkonce.kv.prefix.causes import Costs, Explained, Missing
from thinkonce.kv.prefix.index import Hold, PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import Purges
from thinkonce.kv.prefix.terms import USUAL, Terms
from thinkonce.kv.prefix.tier import BlockTier
from thinkonce.kv.prefix.why import OtherModels, Why

__all__ = ("ExactGenerator",)

_logger = logging.getLogger("thinkonce.kv")

_NO_LOGITS = torch.empty(0)  # of a prompt of which nothing was computed


class ExactGenerator:
    """A `Generator` over a model of `support.FAMILIES`.

    `kept` None reads every prompt anew, with the same bits as result; what is not there is looked
    for in `below`, where there is such a tier. `fingerprint` is that of the model and
    `chunk_tokens`. `memory` bounds what `kept` and the sequences under way take together, in
    bytes; None leaves `kept` its own bound and sequences none. Answers may take turns, each in a
    slab of its own, on one thread. The index may be shared and looked at meanwhile.
    """

    def __init__(
        self,
        network: Any,
        end_ids: frozenset[int],
        *,
        chunk_tokens: int,
        fingerprint: bytes,
        kept: PrefixIndex[torch.Tensor] | None,
        below: BlockTier | None = None,
        memory: int | None = None,
        purges: Purges | None = None,
        others: OtherModels | None = None,
        clock: Clock = SYSTEM,
        rates: Rates | None = None,
    ) -> None:
        self._network, self._end_ids = network, end_ids
        self.chunk_tokens, self.fingerprint, self._kept = chunk_tokens, fingerprint, kept
        self._below, self._clock, self.rates = below, clock, rates or Rates()
        self._purges = purges or Purges()
        # Told of each prompt that is asked: its tokens, and its full blocks.
        self.recorded: Callable[[int, Sequence[Block]], None] | None = None
        ghosts = kept.ghosts if kept is not None else None
        self._why = Why(fingerprint, chunk_tokens, ghosts, below, others)
        self.slab = Slab(shape_of(network))  # of `read`; answers borrow theirs
        self.slabs = Slabs(self.slab.shape, kept, memory)
        self.stats = ReadingStats()

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        cancelled: Callable[[], bool],
        owner: Owner = NOBODY,
        terms: Terms = USUAL,
    ) -> Steps:
        while (slab := self.slabs.take(len(prompt) + sampling.max_tokens)) is None:
            if cancelled():
                return
            yield Read(0)
        try:
            reading = yield from self._reading(slab, prompt, cancelled, owner, terms)
            if reading is not None:
                yield Prefilled(len(prompt), reading.cached_tokens, reading.explained)
                yield from self._decoded(slab, reading, len(prompt), sampling, cancelled)
        finally:
            self.slabs.give_back(slab)

    def read(
        self,
        prompt: Sequence[int],
        cancelled: Callable[[], bool],
        owner: Owner = NOBODY,
        terms: Terms = USUAL,
    ) -> Reading | None:
        """Fill `slab` with the prompt's keys and values; None where the caller left meanwhile.

        Full chunks are kept as they are computed, so a reading that is given up helps the next.
        """
        steps = self._reading(self.slab, prompt, cancelled, owner, terms)
        while True:
            try:
                next(steps)
            except StopIteration as over:
                found: Reading | None = over.value
                return found

    def preload(
        self,
        prompt: Sequence[int],
        cancelled: Callable[[], bool],
        owner: Owner = NOBODY,
        terms: Terms = USUAL,
    ) -> Generator[Read | Preloaded, None, None]:
        """Read and keep the full blocks of a prompt and nothing behind them, a forward pass a step.

        It ends at the first block that finds no room. Closed before its end and begun anew, it
        goes on where it was, as long as what it kept is there.
        """
        end = len(prompt) // self.chunk_tokens * self.chunk_tokens
        while (slab := self.slabs.take(end)) is None:
            if cancelled():
                return
            yield Read(0)
        try:
            steps = self._reading(slab, prompt[:end], cancelled, owner, terms, is_ahead=True)
            reading = yield from steps
            if reading is not None:
                yield Preloaded(end, reading.cached_tokens, reading.kept_tokens)
        finally:
            self.slabs.give_back(slab)

    def known(self, prompt: Sequence[int], owner: Owner) -> Callable[[], int]:
        """What tells how many tokens of the prompt are in memory now, or were below when this was
        asked, where they are sooner loaded than computed. From any thread; what it gives asks
        nothing of a disk.
        """
        kept, size = self._kept, self.chunk_tokens
        if kept is None:
            return lambda: 0
        usable = (len(prompt) - 1) // size * size
        named = self._purges.era_of(owner)
        blocks = list(blocks_of(prompt[:usable], size, self.fingerprint, named))
        loads = self._below is not None and not self.rates.load_is_slower
        below = self._below.known(blocks) if self._below is not None and loads else 0
        return lambda: max(kept.known(blocks), below) * size

    def explain(
        self,
        prompt: Sequence[int],
        owner: Owner = NOBODY,
        terms: Terms = USUAL,
        *,
        is_admin: bool = False,
    ) -> Explained:
        """What of the prompt would be loaded now, and why not more; from any thread.

        Loading and computing are estimated by what either has taken so far. An admin is told
        that another tenant has the text.
        """
        if self._kept is None or not terms.reads:
            return Explained(len(prompt), 0, 0, Missing("bypass"))
        began, size = self._clock.monotonic(), self.chunk_tokens
        owner = self._purges.era_of(owner)
        most = (len(prompt) - 1) // size
        blocks = list(blocks_of(prompt[: most * size], size, self.fingerprint, owner))
        memory = self._kept.known(blocks)
        below = self._below.known(blocks[memory:]) if self._below is not None else 0
        slower = bool(below) and self.rates.load_is_slower
        found = Found(memory, 0 if slower else below, slower=slower)
        asked = Asked(prompt, blocks, most, owner, terms)
        missing = self._missing(asked, found, is_admin=is_admin)
        rest = len(prompt) - found.blocks * size
        costs = Costs(
            self._clock.monotonic() - began,
            self.rates.load.a_token * found.below * size,
            self.rates.prefill.a_token * rest,
        )
        return asked.explained(found, size, missing, costs)

    def _missing(self, asked: Asked, found: Found, *, is_admin: bool = False) -> Missing:
        """Why the first block that was not loaded was not."""
        if not asked.terms.reads:
            return Missing("bypass")
        if found.blocks >= asked.most:
            return Missing("tail_not_stored" if asked.most else "too_short")
        if found.slower or found.failed:
            return Missing("slower_than_recompute" if found.slower else "load_error")
        return self._why.missing(asked.blocks, found.blocks, asked.owner, is_admin=is_admin)

    def _decoded(
        self,
        slab: Slab,
        reading: Reading,
        position: int,
        sampling: Sampling,
        cancelled: Callable[[], bool],
    ) -> Iterator[Token]:
        def step(token: int, place: int) -> torch.Tensor:
            return self._forward(slab, [token], place)

        return decoded(reading.logits, position, sampling, self._end_ids, step, cancelled)

    def _reading(
        self,
        slab: Slab,
        prompt: Sequence[int],
        cancelled: Callable[[], bool],
        owner: Owner,
        terms: Terms,
        *,
        is_ahead: bool = False,
    ) -> Generator[Read, None, Reading | None]:
        """A step a forward pass; what is known is loaded before the first."""
        if self._kept is None or not (terms.reads or terms.keeps):
            return (yield from self._read(slab, Asked(prompt, (), 0, owner, terms), cancelled))
        began, owner = self._clock.monotonic(), self._purges.era_of(owner)
        blocks = list(blocks_of(prompt, self.chunk_tokens, self.fingerprint, owner))
        # The last token is always computed, together with what is in a piece with it.
        most = len(blocks) if is_ahead else (len(prompt) - 1) // self.chunk_tokens
        asked = Asked(prompt, blocks, most if terms.reads else 0, owner, terms, is_ahead)
        if self.recorded is not None and not is_ahead:
            self.recorded(len(prompt), blocks)
        try:
            with self._kept.hold(blocks[: asked.most], owner, terms) as hold:
                lookup = self._clock.monotonic() - began
                try:
                    return (yield from self._read(slab, asked, cancelled, hold, lookup))
                finally:
                    self._offer(hold, owner)
        finally:
            if self._is_purged(owner):
                self._kept.purge(owner.__eq__)
                if self._below is not None:
                    self._below.forget([block.id for block in blocks])

    def _is_purged(self, owner: Owner) -> bool:
        """Whether that happened since `owner` was asked for: then nothing of it is found again."""
        return self._purges.era_of(owner) != owner

    def _read(
        self,
        slab: Slab,
        asked: Asked,
        cancelled: Callable[[], bool],
        hold: Hold[torch.Tensor] | None = None,
        lookup: float = 0.0,
    ) -> Generator[Read, None, Reading | None]:
        """`lookup`: seconds that finding out took what is in memory."""
        prompt, clock = asked.prompt, self._clock.monotonic
        self._begin(slab, asked)
        began = clock()
        found = self._load(slab, asked, hold) if hold is not None else Found()
        load = clock() - began
        missing = self._missing(asked, found) if asked.terms.explains else None
        cached, computed, logits = found.blocks * self.chunk_tokens, 0.0, _NO_LOGITS
        kept = cached
        if asked.is_ahead:
            yield Read(0, loaded=cached)
        for start in range(cached, len(prompt), self.chunk_tokens):
            if cancelled():
                return None
            piece = prompt[start : start + self.chunk_tokens]
            began = clock()
            logits = self._forward(slab, piece, start)
            computed += (took := clock() - began)
            if len(piece) == self.chunk_tokens:  # a short tail costs several times as much a token
                self.rates.prefill.add(len(piece), took)
            place = start // self.chunk_tokens
            if hold is not None and place < len(asked.blocks):
                is_kept = self._keep(slab, hold, asked.blocks[place], place)
                kept += len(piece) if is_kept and kept == start else 0
            yield Read(len(piece))
            if asked.is_ahead and kept <= start:
                break
        self._remember_end(asked)
        costs = Costs(lookup, load, computed)
        if missing is None:
            return Reading(logits, cached, None, kept)
        told = asked.explained(found, self.chunk_tokens, missing, costs)
        return Reading(logits, cached, told, kept)

    def _remember_end(self, asked: Asked) -> None:
        """For who asks why a longer prompt was not loaded further."""
        owner, blocks, terms = asked.owner, asked.blocks, asked.terms
        if self._kept is None or not terms.keeps or terms.life or self._is_purged(owner):
            return
        if asked.is_ahead:
            return
        parent = blocks[-1].id if blocks else first_parent(self.fingerprint, owner.tenant)
        rest = packed(asked.prompt[len(blocks) * self.chunk_tokens :])
        self._why.ended(next(named_behind(parent, [rest], owner)), owner)

    def _begin(self, slab: Slab, asked: Asked) -> None:
        if not asked.is_ahead:
            self._count(prompts=1, prompt_tokens=len(asked.prompt))
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(asked.prompt))

    def _load(self, slab: Slab, asked: Asked, hold: Hold[torch.Tensor]) -> Found:
        """Bring into the slab what is known of the prompt's beginning."""
        with torch.inference_mode():
            for node in hold.nodes:
                slab.load(node.state)
        found = self._load_below(slab, asked.blocks[: asked.most], hold)
        loaded, below = found.blocks * self.chunk_tokens, found.below * self.chunk_tokens
        if not asked.is_ahead:
            self._count(cached_tokens=loaded, disk_tokens=below)
        if self._below is not None and found.blocks > len(hold.nodes):
            # Memory had no room for the rest.
            self._below.used(asked.blocks[: found.blocks], hold.terms)
        return found

    def _load_below(self, slab: Slab, blocks: Sequence[Block], hold: Hold[torch.Tensor]) -> Found:
        """Load from the tier below what follows. It is in memory then too."""
        first = len(hold.nodes)
        known = self._below.known(blocks[first:]) if self._below is not None else 0
        if known and not self.rates.load_is_sooner():
            self._count(slower=known)
            return Found(first, slower=True)
        for count, block in enumerate(blocks[first : first + known]):
            began = self._clock.monotonic()
            state = self._stored(block)
            if state is None:
                return Found(first, count, failed=True)
            with torch.inference_mode():
                slab.load(state)
            self.rates.load.add(self.chunk_tokens, self._clock.monotonic() - began)
            _hold(hold, block, state, first + count)
        return Found(first, known)

    def _stored(self, block: Block) -> torch.Tensor | None:
        assert self._below is not None
        data = self._below.load(block)
        state = None if data is None else state_of(data, self.slab.shape)
        # What has another length was not written by this model, whatever its name says.
        return state if state is not None and state.shape[3] == self.chunk_tokens else None

    def _offer(self, hold: Hold[torch.Tensor], owner: Owner) -> None:
        """What is in memory of this prompt shall be below too, and stay there as long."""
        if self._below is None or self._is_purged(owner):
            return
        for node in hold.nodes:
            self._below.offer(node.block, bytes_of(node.state), owner, hold.terms)
        self._below.used([node.block for node in hold.nodes], hold.terms)

    def _forward(self, slab: Slab, tokens: Sequence[int], position: int) -> torch.Tensor:
        with torch.inference_mode():
            slab.reserve(position + len(tokens))
        return forward(self._network, tokens, position, slab.cache)

    def _keep(self, slab: Slab, hold: Hold[torch.Tensor], block: Block, place: int) -> bool:
        """Store one chunk's keys and values; memory that is not there costs the answer nothing."""
        if self._below is None and place != len(hold.nodes):
            return False
        start = place * self.chunk_tokens
        try:
            with torch.inference_mode():
                state = slab.copy(start, start + self.chunk_tokens)
        except (MemoryError, RuntimeError) as failed:  # torch has both for memory that ran out
            _logger.warning("attention state is not kept: %s", failed)
            self._count(not_kept=1)
            return False
        if _hold(hold, block, state, place):
            return True
        below = self._below
        return below is not None and below.offer(block, bytes_of(state), hold.owner, hold.terms)

    def _count(self, **more: int) -> None:
        was = self.stats
        self.stats = replace(was, **{name: getattr(was, name) + by for name, by in more.items()})


def _hold(hold: Hold[torch.Tensor], block: Block, state: torch.Tensor, place: int) -> bool:
    """Keep a prompt's block number `place`: without all before it, it could never be found."""
    return place == len(hold.nodes) and hold.extend(block, state, state.nbytes)
