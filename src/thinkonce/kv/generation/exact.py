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
from dataclasses import dataclass, replace
from typing import Any

import torch

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.generation.blob import bytes_of, state_of
from thinkonce.kv.generation.decode import decoded, forward
from thinkonce.kv.generation.generator import Prefilled, Read, Sampling, Steps, Token
from thinkonce.kv.generation.rates import Rates
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.slabs import Slabs
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.causes import Cause, Explained
from thinkonce.kv.prefix.index import Hold, PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import Purges
from thinkonce.kv.prefix.terms import USUAL, Terms
from thinkonce.kv.prefix.tier import BlockTier

__all__ = ("ExactGenerator", "Reading", "ReadingStats")

_logger = logging.getLogger("thinkonce.kv")


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt that has been read: the fp32 logits after it, and what of it was known."""

    logits: torch.Tensor
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class ReadingStats:
    """Since the start: prompts begun, their tokens, and those of them that were loaded.

    `disk_tokens`: of the loaded ones, those that were not in memory. `not_kept` counts blocks
    that could not be stored because memory ran out, `slower` those that were on disk and were
    computed, because that is sooner done here.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    disk_tokens: int = 0
    not_kept: int = 0
    slower: int = 0


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
        clock: Clock = SYSTEM,
    ) -> None:
        self._network, self._end_ids = network, end_ids
        self.chunk_tokens, self.fingerprint, self._kept = chunk_tokens, fingerprint, kept
        self._below, self._clock, self.rates = below, clock, Rates()
        self._purges = purges or Purges()
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
                yield Prefilled(len(prompt), reading.cached_tokens)
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

    def known(self, prompt: Sequence[int], owner: Owner) -> Callable[[], int]:
        """What tells how many tokens of the prompt are in memory now; from any thread."""
        kept, size = self._kept, self.chunk_tokens
        if kept is None:
            return lambda: 0
        usable = (len(prompt) - 1) // size * size
        named = self._purges.era_of(owner)
        blocks = list(blocks_of(prompt[:usable], size, self.fingerprint, named))
        return lambda: kept.known(blocks) * size

    def explain(
        self, prompt: Sequence[int], owner: Owner = NOBODY, terms: Terms = USUAL
    ) -> Explained:
        """What of the prompt would be loaded now, and why not more; from any thread."""
        if self._kept is None or not terms.reads:
            return Explained(len(prompt), 0, 0, "bypass")
        size, owner = self.chunk_tokens, self._purges.era_of(owner)
        most = (len(prompt) - 1) // size
        blocks = list(blocks_of(prompt[: most * size], size, self.fingerprint, owner))
        memory = self._kept.known(blocks)
        below = self._below.known(blocks[memory:]) if self._below is not None else 0
        cause: Cause = "tail_not_stored" if most else "too_short"
        ago = None
        if below and self.rates.load_is_slower:
            below, cause = 0, "slower_than_recompute"
        elif memory + below < most:
            end = (memory + below + 1) * size
            cause, ago = self._gone(prompt[:end], blocks[memory + below], owner)
        return Explained(len(prompt), memory * size, below * size, cause, ago)

    def _gone(
        self, beginning: Sequence[int], block: Block, owner: Owner
    ) -> tuple[Cause, float | None]:
        """What took `block`, the last one of `beginning`, and how many seconds ago."""
        ghosts = self._kept.ghosts if self._kept is not None else None
        if ghosts is None:
            return "never_seen", None
        if found := ghosts.find(block.id):
            return found
        if before := ghosts.before_purge(owner):
            *_, last = blocks_of(beginning, self.chunk_tokens, self.fingerprint, before)
            if found := ghosts.find(last.id):
                return found
        return "never_seen", None

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
    ) -> Generator[Read, None, Reading | None]:
        """A step a forward pass; what is known is loaded before the first."""
        if self._kept is None or not (terms.reads or terms.keeps):
            return (yield from self._read(slab, prompt, cancelled, [], None))
        owner = self._purges.era_of(owner)
        blocks = list(blocks_of(prompt, self.chunk_tokens, self.fingerprint, owner))
        # The last token is always computed, together with what is in a piece with it.
        most = (len(prompt) - 1) // self.chunk_tokens if terms.reads else 0
        try:
            with self._kept.hold(blocks[:most], owner, terms) as hold:
                try:
                    return (yield from self._read(slab, prompt, cancelled, blocks, hold, most))
                finally:
                    self._offer(hold, owner)
        finally:
            if self._is_purged(owner):
                self._kept.purge(owner.__eq__)

    def _is_purged(self, owner: Owner) -> bool:
        """Whether that happened since `owner` was asked for: then nothing of it is found again."""
        return self._purges.era_of(owner) != owner

    def _read(
        self,
        slab: Slab,
        prompt: Sequence[int],
        cancelled: Callable[[], bool],
        blocks: Sequence[Block],
        hold: Hold[torch.Tensor] | None,
        most: int = 0,
    ) -> Generator[Read, None, Reading | None]:
        """`most`: so many blocks may be loaded."""
        self._begin(slab, prompt)
        cached = self._load(slab, blocks[:most], hold) if hold is not None else 0
        logits = None
        for start in range(cached, len(prompt), self.chunk_tokens):
            if cancelled():
                return None
            piece = prompt[start : start + self.chunk_tokens]
            began = self._clock.monotonic()
            logits = self._forward(slab, piece, start)
            if len(piece) == self.chunk_tokens:  # a short tail costs several times as much a token
                self.rates.prefill.add(len(piece), self._clock.monotonic() - began)
            place = start // self.chunk_tokens
            if hold is not None and place < len(blocks):
                self._keep(slab, hold, blocks[place], place)
            yield Read(len(piece))
        assert logits is not None, "a prompt has a token, and its last piece is never loaded"
        return Reading(logits, cached)

    def _begin(self, slab: Slab, prompt: Sequence[int]) -> None:
        self._count(prompts=1, prompt_tokens=len(prompt))
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(prompt))

    def _load(self, slab: Slab, blocks: Sequence[Block], hold: Hold[torch.Tensor]) -> int:
        """Bring into the slab what is known of `blocks`, a prompt's beginning; how many tokens."""
        with torch.inference_mode():
            for node in hold.nodes:
                slab.load(node.state)
        in_memory = len(hold.nodes)
        found = in_memory + self._load_below(slab, blocks[in_memory:], hold)
        below = (found - in_memory) * self.chunk_tokens
        self._count(cached_tokens=found * self.chunk_tokens, disk_tokens=below)
        return found * self.chunk_tokens

    def _load_below(self, slab: Slab, blocks: Sequence[Block], hold: Hold[torch.Tensor]) -> int:
        """Load from the tier below what follows; how many blocks. They are in memory then too."""
        known = self._below.known(blocks) if self._below is not None else 0
        if known and not self.rates.load_is_sooner():
            self._count(slower=known)
            return 0
        first = len(hold.nodes)
        for count, block in enumerate(blocks[:known]):
            began = self._clock.monotonic()
            state = self._stored(block)
            if state is None:
                return count
            with torch.inference_mode():
                slab.load(state)
            self.rates.load.add(self.chunk_tokens, self._clock.monotonic() - began)
            _hold(hold, block, state, first + count)
        return known

    def _stored(self, block: Block) -> torch.Tensor | None:
        assert self._below is not None
        data = self._below.load(block)
        state = None if data is None else state_of(data, self.slab.shape)
        # What has another length was not written by this model, whatever its name says.
        return state if state is not None and state.shape[3] == self.chunk_tokens else None

    def _offer(self, hold: Hold[torch.Tensor], owner: Owner) -> None:
        """What is in memory of this prompt shall be below too, unless it is to expire: blocks
        below know no life.
        """
        if self._below is None or hold.terms.life is not None or self._is_purged(owner):
            return
        for node in hold.nodes:
            self._below.offer(node.block, bytes_of(node.state))
        self._below.used([node.block for node in hold.nodes])

    def _forward(self, slab: Slab, tokens: Sequence[int], position: int) -> torch.Tensor:
        with torch.inference_mode():
            slab.reserve(position + len(tokens))
        return forward(self._network, tokens, position, slab.cache)

    def _keep(self, slab: Slab, hold: Hold[torch.Tensor], block: Block, place: int) -> None:
        """Store one chunk's keys and values; memory that is not there costs the answer nothing."""
        below = self._below if hold.terms.life is None else None
        if below is None and place != len(hold.nodes):
            return
        start = place * self.chunk_tokens
        try:
            with torch.inference_mode():
                state = slab.copy(start, start + self.chunk_tokens)
        except (MemoryError, RuntimeError) as failed:  # torch has both for memory that ran out
            _logger.warning("attention state is not kept: %s", failed)
            self._count(not_kept=1)
            return
        if not _hold(hold, block, state, place) and below is not None:
            below.offer(block, bytes_of(state))

    def _count(self, **more: int) -> None:
        was = self.stats
        self.stats = replace(was, **{name: getattr(was, name) + by for name, by in more.items()})


def _hold(hold: Hold[torch.Tensor], block: Block, state: torch.Tensor, place: int) -> bool:
    """Keep a prompt's block number `place`: without all before it, it could never be found."""
    return place == len(hold.nodes) and hold.extend(block, state, state.nbytes)
