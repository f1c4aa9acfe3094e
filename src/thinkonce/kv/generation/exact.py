"""Reading that computes each prefix once, and gives the bits that reading it anew would give.

    prompt   |  chunk 0  |  chunk 1  |  chunk 2  | tail |     chunks are cut at 0, C, 2C, ...
    known    |===========|===========|
             load         load        forward     forward      the last piece is always computed

Every piece is one forward pass over the same tokens behind the same bytes, whoever computed
those: so a warm request runs the calls that a cold one runs, less the first ones. What a tail or
an answer wrote is never kept: computed in other company, its last bits would be others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reader import Reads
from thinkonce.kv.generation.reading import Found, Put, Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.blocks import first_parent, named_behind, packed
from thinkonce.kv.prefix.causes import Costs, Explained, Missing
from thinkonce.kv.prefix.chain import NO_CHAIN, Chain, chain_of
from thinkonce.kv.prefix.index import Hold
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.reused import Reused
from thinkonce.kv.prefix.terms import Terms
from thinkonce.kv.prefix.why import OtherModels, Why

__all__ = ("ExactReader", "exact_generator")

_NO_LOGITS = torch.empty(0)  # of a prompt of which nothing was computed


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A prompt whose state may be kept: its full blocks, of which `most` may be loaded. `owner`:
    as it is called now.

    `is_ahead`: it is read for requests that are to come. `is_part`: it is the beginning of one
    that is read on in another way. Neither is counted here.
    """

    prompt: Sequence[int]
    chain: Chain
    most: int
    owner: Owner
    terms: Terms
    is_ahead: bool = False
    is_part: bool = False

    @property
    def counts(self) -> bool:
        return not (self.is_ahead or self.is_part)

    def explained(
        self, found: Found, chunk_tokens: int, missing: Missing, costs: Costs
    ) -> Explained:
        return Explained(
            len(self.prompt),
            found.memory * chunk_tokens,
            found.below * chunk_tokens,
            missing,
            (self.most - found.blocks) * chunk_tokens,
            costs,
        )


class ExactReader:
    """A `Reader` that takes every prompt, for a model of `support.FAMILIES`."""

    def __init__(self, keeping: Keeping, others: OtherModels | None = None) -> None:
        self._keeping, self._size = keeping, keeping.chunk_tokens
        ghosts = keeping.kept.ghosts if keeping.kept is not None else None
        self._why = Why(keeping.fingerprint, self._size, ghosts, keeping.below, others)

    def takes(self, asking: Asking) -> bool:
        return True

    def read(self, slab: Slab, asking: Asking, cancelled: Callable[[], bool]) -> Reads:
        prompt = asking.prompt
        if asking.is_ahead:
            whole = len(prompt) // self._size
            asking = replace(asking, prompt=prompt.until(whole * self._size))
            return self._reading(slab, asking, whole, cancelled)
        # The last token is always computed, together with what is in a piece with it.
        return self._reading(slab, asking, (len(prompt) - 1) // self._size, cancelled)

    def beginning(self, slab: Slab, asking: Asking, cancelled: Callable[[], bool]) -> Reads:
        """The same of full blocks with which a prompt begins that is read on in another way."""
        most = len(asking.prompt) // self._size
        return self._reading(slab, asking, most, cancelled, is_part=True)

    def keepable(self, asking: Asking) -> int:
        return len(asking.prompt) // self._size * self._size

    def known(self, asking: Asking) -> Callable[[], int]:
        keeping, size = self._keeping, self._size
        kept, most = keeping.kept, (len(asking.prompt) - 1) // size
        if kept is None:
            return lambda: 0
        blocks = self._chain(asking.prompt.until(most * size), asking.owner).blocks
        loads = keeping.below is not None and not keeping.rates.load_is_slower
        below = keeping.below.known(blocks) if keeping.below is not None and loads else 0
        return lambda: max(kept.known(blocks), below) * size

    def explain(self, asking: Asking, *, is_admin: bool = False) -> Explained:
        """Loading and computing are estimated by what either has taken so far. An admin is told
        that another tenant has the text.
        """
        keeping, prompt, terms, size = self._keeping, asking.prompt, asking.terms, self._size
        if keeping.kept is None or not terms.reads:
            return Explained(len(prompt), 0, 0, Missing("bypass"))
        began, most = keeping.clock.monotonic(), (len(prompt) - 1) // size
        chain = self._chain(prompt.until(most * size), asking.owner)
        found = keeping.found(chain)
        prefix = _Prefix(prompt, chain, most, keeping.purges.era_of(asking.owner), terms)
        missing = self._missing(prefix, found, is_admin=is_admin)
        rest = len(prompt) - found.blocks * size
        costs = Costs(
            keeping.clock.monotonic() - began,
            keeping.rates.load.a_token * found.below * size,
            keeping.rates.prefill.a_token * rest,
        )
        return prefix.explained(found, size, missing, costs)

    def _chain(self, prompt: Prompt, owner: Owner) -> Chain:
        keeping = self._keeping
        called, public = keeping.purges.era_of, keeping.public
        return chain_of(prompt, self._size, keeping.fingerprint, owner, called, public)

    def _missing(self, prefix: _Prefix, found: Found, *, is_admin: bool = False) -> Missing:
        """Why the first block that was not loaded was not."""
        if not prefix.terms.reads:
            return Missing("bypass")
        if found.blocks >= prefix.most:
            return Missing("tail_not_stored" if prefix.most else "too_short")
        if found.slower or found.failed:
            return Missing("slower_than_recompute" if found.slower else "load_error")
        chain, place = prefix.chain, found.blocks
        if place < chain.public:
            return self._why.missing(chain.blocks[: chain.public], place, chain.owners[place])
        owner, public = prefix.owner, chain.public
        return self._why.missing(chain.blocks, place, owner, public=public, is_admin=is_admin)

    def _reading(
        self,
        slab: Slab,
        asking: Asking,
        most: int,
        cancelled: Callable[[], bool],
        *,
        is_part: bool = False,
    ) -> Reads:
        """What is known is loaded before the first step."""
        prompt, owner, terms = asking.prompt, asking.owner, asking.terms
        keeping, how = self._keeping, (asking.is_ahead, is_part)
        if keeping.kept is None or not (terms.reads or terms.keeps):
            prefix = _Prefix(prompt, NO_CHAIN, 0, owner, terms, *how)
            return (yield from self._read(slab, prefix, cancelled))
        began = keeping.clock.monotonic()
        chain, owner = self._chain(prompt, owner), keeping.purges.era_of(owner)
        prefix = _Prefix(prompt, chain, most if terms.reads else 0, owner, terms, *how)
        if keeping.recorded is not None and prefix.counts:
            keeping.recorded(len(prompt), chain.blocks)
        with keeping.held(chain, prefix.most, terms) as hold:
            lookup = keeping.clock.monotonic() - began
            return (yield from self._read(slab, prefix, cancelled, hold, lookup))

    def _read(
        self,
        slab: Slab,
        prefix: _Prefix,
        cancelled: Callable[[], bool],
        hold: Hold[torch.Tensor] | None = None,
        lookup: float = 0.0,
    ) -> Reads:
        """`lookup`: seconds that finding out took what is in memory."""
        prompt, keeping, clock = prefix.prompt, self._keeping, self._keeping.clock.monotonic
        self._begin(slab, prefix)
        began = clock()
        found = self._load(slab, prefix, hold) if hold is not None else Found()
        load = clock() - began
        missing = self._missing(prefix, found) if prefix.terms.explains else None
        cached, computed, logits = found.blocks * self._size, 0.0, _NO_LOGITS
        kept, written = cached, 0
        if prefix.is_ahead:
            yield Read(0, loaded=cached)
        for start in range(cached, len(prompt), self._size):
            if cancelled():
                return None
            piece = prompt[start : start + self._size]
            began = clock()
            logits = keeping.forward(slab, piece, start)
            computed += (took := clock() - began)
            if len(piece) == self._size:  # a short tail costs several times as much a token
                keeping.rates.prefill.add(len(piece), took)
            place = start // self._size
            if hold is not None and place < len(prefix.chain):
                put = keeping.keep(slab, start, hold, prefix.chain, place)
                if put and kept == start:
                    kept += len(piece)
                    written += len(piece) if put is Put.NEW else 0
            yield Read(len(piece))
            if prefix.is_ahead and kept <= start:
                break
        self._remember_end(prefix)
        told = None
        if missing is not None:
            costs = Costs(lookup, load, computed)
            told = prefix.explained(found, self._size, missing, costs)
        return Reading(logits, cached, told, kept, self._reused(found), written_tokens=written)

    def _reused(self, found: Found) -> Reused:
        memory, below = found.memory * self._size, found.below * self._size
        return Reused.exactly(memory, below, is_exact=self._keeping.codec.is_exact)

    def _remember_end(self, prefix: _Prefix) -> None:
        """For who asks why a longer prompt was not loaded further."""
        owner, blocks, terms = prefix.owner, prefix.chain.blocks, prefix.terms
        keeping = self._keeping
        if keeping.kept is None or not terms.keeps or terms.life or not prefix.counts:
            return
        if keeping.purges.era_of(owner) != owner:
            return
        parent = blocks[-1].id if blocks else first_parent(keeping.fingerprint, owner.tenant)
        rest = packed(prefix.prompt[len(blocks) * self._size :])
        self._why.ended(next(named_behind(parent, [rest], owner)), owner)

    def _begin(self, slab: Slab, prefix: _Prefix) -> None:
        if prefix.counts:
            self._keeping.count(prompts=1, prompt_tokens=len(prefix.prompt))
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(prefix.prompt))

    def _load(self, slab: Slab, prefix: _Prefix, hold: Hold[torch.Tensor]) -> Found:
        """Bring into the slab what is known of the prompt's beginning."""
        found = self._keeping.load(prefix.chain.until(prefix.most), hold, slab.load)
        if prefix.counts:
            self._keeping.count_reused(self._reused(found))
        return found


def exact_generator(
    keeping: Keeping, end_ids: frozenset[int], others: OtherModels | None = None
) -> ReusingGenerator:
    """A generator of exact reading alone. `others`: the models that share the folder below."""
    return ReusingGenerator(keeping, end_ids, [ExactReader(keeping, others)])
