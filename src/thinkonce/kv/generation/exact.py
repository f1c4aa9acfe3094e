"""Reading that computes each prefix once, and gives the bits that reading it anew would give.

    prompt   |  chunk 0  |  chunk 1  |  chunk 2  | tail |     chunks are cut at 0, C, 2C, ...
    known    |===========|===========|
             load         load        forward     forward      the last piece is always computed

Every piece is one forward pass over the same tokens behind the same bytes, whoever computed
those: so a warm request runs the calls that a cold one runs, less the first ones. What a tail or
an answer wrote is never kept: computed in other company, its last bits would be others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reader import Asking, Reads
from thinkonce.kv.generation.reading import Asked, Found, Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.blocks import first_parent, named_behind, packed
from thinkonce.kv.prefix.causes import Costs, Explained, Missing
from thinkonce.kv.prefix.chain import NO_CHAIN, Chain, chain_of
from thinkonce.kv.prefix.index import Hold
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.reused import Reused
from thinkonce.kv.prefix.why import OtherModels, Why

__all__ = ("ExactReader", "exact_generator")

_NO_LOGITS = torch.empty(0)  # of a prompt of which nothing was computed


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
        memory = keeping.kept.known(chain.blocks)
        below = keeping.below.known(chain.blocks[memory:]) if keeping.below is not None else 0
        slower = bool(below) and keeping.rates.load_is_slower
        found = Found(memory, 0 if slower else below, slower=slower)
        asked = Asked(prompt, chain, most, keeping.purges.era_of(asking.owner), terms)
        missing = self._missing(asked, found, is_admin=is_admin)
        rest = len(prompt) - found.blocks * size
        costs = Costs(
            keeping.clock.monotonic() - began,
            keeping.rates.load.a_token * found.below * size,
            keeping.rates.prefill.a_token * rest,
        )
        return asked.explained(found, size, missing, costs)

    def _chain(self, prompt: Prompt, owner: Owner) -> Chain:
        keeping = self._keeping
        called, public = keeping.purges.era_of, keeping.public
        return chain_of(prompt, self._size, keeping.fingerprint, owner, called, public)

    def _missing(self, asked: Asked, found: Found, *, is_admin: bool = False) -> Missing:
        """Why the first block that was not loaded was not."""
        if not asked.terms.reads:
            return Missing("bypass")
        if found.blocks >= asked.most:
            return Missing("tail_not_stored" if asked.most else "too_short")
        if found.slower or found.failed:
            return Missing("slower_than_recompute" if found.slower else "load_error")
        chain, place = asked.chain, found.blocks
        if place < chain.public:
            return self._why.missing(chain.blocks[: chain.public], place, chain.owners[place])
        owner, public = asked.owner, chain.public
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
            asked = Asked(prompt, NO_CHAIN, 0, owner, terms, *how)
            return (yield from self._read(slab, asked, cancelled))
        began = keeping.clock.monotonic()
        chain, owner = self._chain(prompt, owner), keeping.purges.era_of(owner)
        asked = Asked(prompt, chain, most if terms.reads else 0, owner, terms, *how)
        if keeping.recorded is not None and asked.counts:
            keeping.recorded(len(prompt), chain.blocks)
        with keeping.held(chain, asked.most, terms) as hold:
            lookup = keeping.clock.monotonic() - began
            return (yield from self._read(slab, asked, cancelled, hold, lookup))

    def _read(
        self,
        slab: Slab,
        asked: Asked,
        cancelled: Callable[[], bool],
        hold: Hold[torch.Tensor] | None = None,
        lookup: float = 0.0,
    ) -> Reads:
        """`lookup`: seconds that finding out took what is in memory."""
        prompt, keeping, clock = asked.prompt, self._keeping, self._keeping.clock.monotonic
        self._begin(slab, asked)
        began = clock()
        found = self._load(slab, asked, hold) if hold is not None else Found()
        load = clock() - began
        missing = self._missing(asked, found) if asked.terms.explains else None
        cached, computed, logits = found.blocks * self._size, 0.0, _NO_LOGITS
        kept = cached
        if asked.is_ahead:
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
            if hold is not None and place < len(asked.chain):
                is_kept = keeping.keep(slab, start, hold, asked.chain, place)
                kept += len(piece) if is_kept and kept == start else 0
            yield Read(len(piece))
            if asked.is_ahead and kept <= start:
                break
        self._remember_end(asked)
        costs = Costs(lookup, load, computed)
        if missing is None:
            return Reading(logits, cached, None, kept, self._reused(found))
        told = asked.explained(found, self._size, missing, costs)
        return Reading(logits, cached, told, kept, self._reused(found))

    def _reused(self, found: Found) -> Reused:
        memory, below = found.memory * self._size, found.below * self._size
        return Reused.exactly(memory, below, is_exact=self._keeping.codec.is_exact)

    def _remember_end(self, asked: Asked) -> None:
        """For who asks why a longer prompt was not loaded further."""
        owner, blocks, terms = asked.owner, asked.chain.blocks, asked.terms
        keeping = self._keeping
        if keeping.kept is None or not terms.keeps or terms.life or not asked.counts:
            return
        if keeping.purges.era_of(owner) != owner:
            return
        parent = blocks[-1].id if blocks else first_parent(keeping.fingerprint, owner.tenant)
        rest = packed(asked.prompt[len(blocks) * self._size :])
        self._why.ended(next(named_behind(parent, [rest], owner)), owner)

    def _begin(self, slab: Slab, asked: Asked) -> None:
        if asked.counts:
            self._keeping.count(prompts=1, prompt_tokens=len(asked.prompt))
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(asked.prompt))

    def _load(self, slab: Slab, asked: Asked, hold: Hold[torch.Tensor]) -> Found:
        """Bring into the slab what is known of the prompt's beginning."""
        found = self._keeping.load(asked.chain.until(asked.most), hold, slab.load)
        if asked.counts:
            self._keeping.count_reused(self._reused(found))
        return found


def exact_generator(
    keeping: Keeping, end_ids: frozenset[int], others: OtherModels | None = None
) -> ReusingGenerator:
    """A generator of exact reading alone. `others`: the models that share the folder below."""
    return ReusingGenerator(keeping, end_ids, [ExactReader(keeping, others)])
