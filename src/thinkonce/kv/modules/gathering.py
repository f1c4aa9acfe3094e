"""The leaves of one prompt or schema: found, or encoded in their scaffolds, kept, and put in place.

    leaf     known in memory or below ──────────────► its rows in the slab
             else: its scaffold, one encoding ──► kept ──► its rows in the slab

    scaffold of a member   | defaults, known | placeholders | defaults, known | member |
    computed                                 |==============|                 |========|

A second sequence holds a scaffold while it is encoded. Leaves of it that the prompt has no use for
are kept too: one encoding serves all prompts of the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from thinkonce.kv.generation.generator import Read, TooLong
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Found
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.modules.encoding import Positioned, blanked
from thinkonce.kv.modules.layout import Layout, Leaf, Path, Scaffold
from thinkonce.kv.prefix.chain import Chain, chunk_chain
from thinkonce.kv.prefix.index import Hold
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.terms import Terms

__all__ = ("Gathering", "NoRoom", "chain_of_leaf")


class NoRoom(Exception):
    """Memory has none for a second sequence, in which a scaffold is encoded."""


def chain_of_leaf(keeping: Keeping, layout: Layout, leaf: Leaf, owner: Owner) -> Chain:
    """`owner`: as it is called now."""
    context = layout.contexts[leaf]
    return chunk_chain(leaf.tokens, keeping.chunk_tokens, keeping.fingerprint, owner, context)


@dataclass(slots=True)
class _Wanted:
    """A leaf of the prompt, with the row at which it begins."""

    leaf: Leaf
    row: int
    chain: Chain
    hold: Hold[torch.Tensor]


class Gathering:
    """Used once, by one thread; a context manager: leaves stay while it is entered.

    `found`: of each leaf that was put in place, what was known. `load` and `compute` in seconds.
    """

    def __init__(
        self,
        keeping: Keeping,
        layout: Layout,
        owner: Owner,
        terms: Terms,
        cancelled: Callable[[], bool],
    ) -> None:
        self._keeping, self._layout, self._terms = keeping, layout, terms
        self._owner, self._cancelled = keeping.purges.era_of(owner), cancelled
        self._held = ExitStack()
        self.found: dict[Leaf, Found] = {}
        self.load = self.compute = 0.0

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def into(
        self, slab: Slab, rows: list[tuple[int, Leaf]]
    ) -> Generator[Read, None, dict[Leaf, Found] | None]:
        """Put these leaves into a slab that has room, each from its row on; what was known of
        them. None once cancelled. Raises NoRoom.
        """
        missing: dict[Path, list[_Wanted]] = {}
        for row, leaf in rows:
            wanted = self._wanted(leaf, row)
            if not self._loaded(slab, wanted):
                missing.setdefault(self._layout.home(leaf.module), []).append(wanted)
        for home, leaves in missing.items():
            if not (yield from self._encoded(home, slab, leaves)):
                return None
        return self.found

    def ahead(self, home: Path, aside: Slab) -> Generator[Read, None, bool | None]:
        """Encode a scaffold in that slab where not all of it is known; whether all of its leaves
        are kept then. None once cancelled.
        """
        scaffold = self._layout.scaffolds[home]
        if not scaffold.tokens:  # nothing of it is to be kept
            return True
        rows = self._prepared(home, aside)
        yield Read(0, loaded=len(scaffold.tokens) - len(rows))
        if not (yield from self._encode(scaffold, aside, rows)):
            return None
        return self._keep(scaffold, aside, [])

    def is_known(self, home: Path) -> bool:
        """Whether all leaves of a scaffold are there; then they are used, and live on."""
        leaves = self._layout.scaffolds[home].leaves
        chains = [self._chain(leaf) for _, leaf, _ in leaves]
        if not self._terms.reads:
            return False
        if any(self._keeping.found(chain).blocks < len(chain) for chain in chains):
            return False
        for chain in chains:
            with self._keeping.held(chain, len(chain), self._terms):
                pass
        return True

    # -- one leaf --------------------------------------------------------------------------------

    def _chain(self, leaf: Leaf) -> Chain:
        return chain_of_leaf(self._keeping, self._layout, leaf, self._owner)

    def _wanted(self, leaf: Leaf, row: int) -> _Wanted:
        chain = self._chain(leaf)
        most = len(chain) if self._terms.reads else 0
        hold = self._held.enter_context(self._keeping.held(chain, most, self._terms))
        return _Wanted(leaf, row, chain, hold)

    def _loaded(self, slab: Slab, wanted: _Wanted) -> bool:
        """Whether all of it is known, and lies in the slab now."""
        if not self._terms.reads:
            self.found[wanted.leaf] = Found()
            return False
        found = self._load(slab, wanted.row, wanted.chain, wanted.hold)
        is_whole = found.blocks == len(wanted.chain)
        # What is encoded anew is encoded as a whole.
        self.found[wanted.leaf] = found if is_whole else Found(0, 0, found.slower, found.failed)
        return is_whole

    def _load(self, slab: Slab, row: int, chain: Chain, hold: Hold[torch.Tensor]) -> Found:
        at = row

        def put(state: torch.Tensor) -> None:
            nonlocal at
            slab.put(state, at)
            at += state.shape[3]

        began = self._keeping.clock.monotonic()
        found = self._keeping.load(chain, hold, put)
        self.load += self._keeping.clock.monotonic() - began
        return found

    # -- a scaffold ------------------------------------------------------------------------------

    def _encoded(
        self, home: Path, slab: Slab, leaves: list[_Wanted]
    ) -> Generator[Read, None, bool]:
        scaffold = self._layout.scaffolds[home]
        aside = self._aside(len(scaffold.tokens))
        try:
            rows = self._prepared(home, aside)
            if not (yield from self._encode(scaffold, aside, rows)):
                return False
            begins = {leaf: row for row, leaf, _ in scaffold.leaves}
            with torch.inference_mode():
                for wanted in leaves:
                    row, size = begins[wanted.leaf], len(wanted.leaf.tokens)
                    slab.put(aside.tensor[:, :, :, row : row + size], wanted.row)
            self._keep(scaffold, aside, leaves)
            return True
        finally:
            self._keeping.slabs.give_back(aside)

    def _aside(self, tokens: int) -> Slab:
        try:
            slab = self._keeping.slabs.take(tokens)
        except TooLong:
            slab = None
        if slab is None:  # whoever has it may be waiting for ours
            raise NoRoom
        return slab

    def _prepared(self, home: Path, aside: Slab) -> list[int]:
        """Put there what other scaffolds have of it; the rows that are to be computed."""
        size, known = len(self._layout.scaffolds[home].tokens), set[int]()
        blanked(aside, size)
        for row, leaf in self._layout.lent(home) if self._terms.reads else ():
            if self._lent(aside, row, leaf):
                known.update(range(row, row + len(leaf.tokens)))
        return [row for row in range(size) if row not in known]

    def _lent(self, aside: Slab, row: int, leaf: Leaf) -> bool:
        """Whether all of a leaf is known, and lies there now; what is in part is computed."""
        keeping, chain = self._keeping, self._chain(leaf)
        if keeping.found(chain).blocks < len(chain):
            return False
        with keeping.held(chain, len(chain), self._terms) as hold:
            return self._load(aside, row, chain, hold).blocks == len(chain)

    def _encode(
        self, scaffold: Scaffold, aside: Slab, rows: list[int]
    ) -> Generator[Read, None, bool]:
        keeping = self._keeping
        sequence = Positioned(keeping.network, aside, scaffold.tokens, scaffold.positions)
        steps = sequence.steps(rows, self._cancelled)
        while True:
            began = keeping.clock.monotonic()
            try:
                step = next(steps)
            except StopIteration as over:
                return over.value is not None
            self.compute += keeping.clock.monotonic() - began
            yield step

    def _keep(self, scaffold: Scaffold, aside: Slab, wanted: list[_Wanted]) -> bool:
        """Whether all of it is kept."""
        if not self._terms.keeps:
            return False
        holds = {each.leaf: each.hold for each in wanted}
        is_kept = True
        for row, leaf, _ in scaffold.leaves:
            chain = self._chain(leaf)
            if (hold := holds.get(leaf)) is not None:
                is_kept &= self._keep_leaf(aside, row, hold, chain)
                continue
            with self._keeping.held(chain, len(chain), self._terms) as other:
                is_kept &= self._keep_leaf(aside, row, other, chain)
        return is_kept

    def _keep_leaf(self, aside: Slab, row: int, hold: Hold[torch.Tensor], chain: Chain) -> bool:
        at = row
        for place, block in enumerate(chain.blocks):
            if place >= len(hold.nodes) and not self._keeping.keep(aside, at, hold, chain, place):
                return False
            at += block.length
        return True
