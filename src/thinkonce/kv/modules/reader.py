"""Reading prompts that are put together from a schema.

    leaves       known by names of their own, or encoded in their scaffold; put at their rows
    the rest     arguments, what follows, what is not to be kept: computed over all leaves
    then         the answer, from the position behind the last on

A leaf sees what was in front of it in its scaffold, and not what this prompt has there: so an
answer is not the one that reading everything would give. Where nothing is to be loaded, or only
what is exact, everything is computed, at the same positions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch

from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reader import Reads
from thinkonce.kv.generation.reading import Continued, Found, Reading
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.modules.auditing import Watch, read_both
from thinkonce.kv.modules.encoding import Positioned
from thinkonce.kv.modules.gathering import Gathering, NoRoom, chain_of_leaf
from thinkonce.kv.modules.layout import Leaf
from thinkonce.kv.modules.prompt import ModulePrompt, SchemaPrompt
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Cause, Costs, Explained, Missing
from thinkonce.kv.prefix.reused import NOTHING, Reused
from thinkonce.kv.reuse.meter import Audit

__all__ = ("ModuleReader",)

_logger = logging.getLogger("thinkonce.kv")
_NO_LOGITS = torch.empty(0)  # of what is only read ahead


@dataclass(frozen=True, slots=True)
class _Rows:
    """Of a prompt: leaves by the rows they begin at, and rows that are computed."""

    leaves: list[tuple[int, Leaf]]
    new: list[int]


class _Joined(NamedTuple):
    """`found`: of each leaf what was known."""

    reading: Reading
    found: Mapping[Leaf, Found]
    costs: Costs


class ModuleReader:
    """A `Reader` of `ModulePrompt` and `SchemaPrompt`. `watch`: who audits a sample of answers."""

    def __init__(self, keeping: Keeping, watch: Watch | None = None) -> None:
        self._keeping, self._watch = keeping, watch

    def takes(self, asking: Asking) -> bool:
        return isinstance(asking.prompt, ModulePrompt | SchemaPrompt)

    def read(self, slab: Slab, asking: Asking, cancelled: Callable[[], bool]) -> Reads:
        prompt = asking.prompt
        if asking.is_ahead or isinstance(prompt, SchemaPrompt):
            return self._ahead(slab, asking, cancelled)
        assert isinstance(prompt, ModulePrompt)
        self._keeping.count(prompts=1, prompt_tokens=len(prompt))
        if self._keeping.kept is None or prompt.is_exact:
            return self._whole(slab, prompt, cancelled)
        if not (asking.terms.reads or asking.terms.keeps):
            return self._whole(slab, prompt, cancelled)
        return self._gathered(slab, asking, prompt, cancelled)

    def keepable(self, asking: Asking) -> int:
        return sum(map(len, self._scaffolds(asking)))

    def known(self, asking: Asking) -> Callable[[], int]:
        prompt, keeping = asking.prompt, self._keeping
        if not isinstance(prompt, ModulePrompt) or prompt.is_exact:
            return lambda: 0
        owner = keeping.purges.era_of(asking.owner)
        leaves = [leaf for _, leaf in _rows(prompt).leaves]
        chains = [chain_of_leaf(keeping, prompt.layout, leaf, owner) for leaf in leaves]
        asked = [(chain, keeping.found(chain).below) for chain in chains]

        def now() -> int:
            each = ((chain, keeping.found(chain, below)) for chain, below in asked)
            return sum(chain.tokens for chain, found in each if found.blocks == len(chain))

        return now

    def explain(self, asking: Asking, *, is_admin: bool = False) -> Explained:
        prompt, keeping = asking.prompt, self._keeping
        if not isinstance(prompt, ModulePrompt) or not asking.terms.reads or prompt.is_exact:
            return Explained(len(prompt), 0, 0, Missing("bypass"))
        owner, layout = keeping.purges.era_of(asking.owner), prompt.layout
        found: dict[Leaf, Found] = {}
        for _, leaf in _rows(prompt).leaves:
            chain = chain_of_leaf(keeping, layout, leaf, owner)
            there = keeping.found(chain)
            found[leaf] = there if there.blocks == len(chain) else Found(slower=there.slower)
        missing = dict.fromkeys(
            layout.home(leaf.module) for leaf in found if not found[leaf].blocks
        )
        rows = len(_rows(prompt).new) + sum(len(layout.scaffolds[home].tokens) for home in missing)
        reused = self._reused(found)
        costs = Costs(
            0.0,
            keeping.rates.load.a_token * reused.on("disk"),
            keeping.rates.prefill.a_token * rows,
        )
        return self._explained(asking, found, costs)

    # -- reading ---------------------------------------------------------------------------------

    def _whole(self, slab: Slab, prompt: ModulePrompt, cancelled: Callable[[], bool]) -> Reads:
        """Everything is computed, and nothing kept."""
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(prompt))
            slab.blank(len(prompt))
        return (yield from self._rest(slab, prompt, range(len(prompt)), cancelled))

    def _gathered(
        self, slab: Slab, asking: Asking, prompt: ModulePrompt, cancelled: Callable[[], bool]
    ) -> Reads:
        try:
            joined = yield from self._joined(slab, asking, prompt, cancelled)
        except NoRoom:
            return (yield from self._whole(slab, prompt, cancelled))
        if joined is None:
            return None
        reading, found, costs = joined
        reused = self._reused(found)
        self._keeping.count_reused(reused)
        told = self._explained(asking, found, costs) if asking.terms.explains else None
        self._tell(asking, prompt, reused.total)
        return replace(reading, cached_tokens=reused.total, explained=told, reused=reused)

    def _joined(
        self, slab: Slab, asking: Asking, prompt: ModulePrompt, cancelled: Callable[[], bool]
    ) -> Generator[Read, None, _Joined | None]:
        """None once cancelled. Raises NoRoom."""
        keeping, rows = self._keeping, _rows(prompt)
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(prompt))
        with Gathering(keeping, prompt.layout, asking.owner, asking.terms, cancelled) as gathering:
            found = yield from gathering.into(slab, rows.leaves)
            if found is None:
                return None
            self._blank(slab, rows.new, len(prompt))
            began = keeping.clock.monotonic()
            reading = yield from self._rest(slab, prompt, rows.new, cancelled)
            compute = gathering.compute + keeping.clock.monotonic() - began
        if reading is None:
            return None
        return _Joined(reading, found, Costs(0.0, gathering.load, compute))

    def _tell(self, asking: Asking, prompt: ModulePrompt, saved: int) -> None:
        """Whoever measures what that was worth, where something was loaded."""
        if self._watch is None or not saved:
            return
        computed = len(_rows(prompt).new)
        try:
            self._watch.modules_used(asking, saved, computed, partial(self._both, asking, prompt))
        except Exception:  # the answer is there: what is wrong with counting it must not cost it
            _logger.exception("an answer of modules was not counted")

    def _both(
        self, asking: Asking, prompt: ModulePrompt, cancelled: Callable[[], bool]
    ) -> Generator[Read, None, Audit | None]:
        def joined(slab: Slab) -> Reads:
            found = yield from self._joined(slab, asking, prompt, cancelled)
            return None if found is None else found.reading

        def whole(slab: Slab) -> Reads:
            return self._whole(slab, prompt, cancelled)

        return read_both(self._keeping, prompt, whole, joined)

    def _rest(
        self,
        slab: Slab,
        prompt: ModulePrompt,
        rows: Sequence[int],
        cancelled: Callable[[], bool],
    ) -> Reads:
        sequence = Positioned(self._keeping.network, slab, prompt, prompt.positions)
        logits = yield from sequence.steps(rows, cancelled)
        if logits is None:
            return None
        return Reading(logits, 0, continued=Continued(prompt.end, sequence.after))

    def _blank(self, slab: Slab, new: Sequence[int], length: int) -> None:
        """What is computed later is zero until then: what lies there may be no number."""
        with torch.inference_mode():
            slab.tensor[:, :, :, torch.tensor(new, device=slab.tensor.device)] = 0
            slab.resume(length)

    # -- reading ahead ---------------------------------------------------------------------------

    def _ahead(self, slab: Slab, asking: Asking, cancelled: Callable[[], bool]) -> Reads:
        prompt = asking.prompt
        assert isinstance(prompt, ModulePrompt | SchemaPrompt)
        layout, terms = prompt.layout, asking.terms
        with Gathering(self._keeping, layout, asking.owner, terms, cancelled) as gathering:
            known = {home: gathering.is_known(home) for home in prompt.homes}
            sizes = {home: len(layout.scaffolds[home].tokens) for home in prompt.homes}
            loaded = sum(sizes[home] for home in known if known[home])
            yield Read(0, loaded=loaded)
            kept = loaded
            for home in (home for home in known if not known[home]):
                is_kept = yield from gathering.ahead(home, slab)
                if is_kept is None:
                    return None
                if not is_kept:
                    break
                kept += sizes[home]
        return Reading(_NO_LOGITS, loaded, kept_tokens=kept)

    def _scaffolds(self, asking: Asking) -> list[tuple[int, ...]]:
        prompt = asking.prompt
        if not isinstance(prompt, ModulePrompt | SchemaPrompt):
            return []
        return [prompt.layout.scaffolds[home].tokens for home in prompt.homes]

    # -- what is told ----------------------------------------------------------------------------

    def _reused(self, found: Mapping[Leaf, Found]) -> Reused:
        if not found:
            return NOTHING
        memory = disk = 0
        for leaf, there in found.items():
            if not there.blocks:
                continue
            in_memory = min(len(leaf.tokens), there.memory * self._keeping.chunk_tokens)
            memory += in_memory
            disk += len(leaf.tokens) - in_memory
        tokens = {("modules", "memory"): memory, ("modules", "disk"): disk}
        return Reused(tokens, is_exact=False)

    def _explained(self, asking: Asking, found: Mapping[Leaf, Found], costs: Costs) -> Explained:
        reused, prompt = self._reused(found), asking.prompt
        missed = sum(len(leaf.tokens) for leaf, there in found.items() if not there.blocks)
        cause = Missing(self._cause(asking, found))
        memory, disk = reused.on("memory"), reused.on("disk")
        told = Explained(len(prompt), memory, disk, cause, missed, costs, "modules")
        fidelity = self._watch.of_modules(asking) if self._watch is not None else None
        return replace(told, fidelity=fidelity)

    def _cause(self, asking: Asking, found: Mapping[Leaf, Found]) -> Cause:
        """Why the first leaf that was not known was not."""
        leaf = next((leaf for leaf, there in found.items() if not there.blocks), None)
        if leaf is None:
            return "tail_not_stored"
        if not asking.terms.reads:
            return "bypass"
        keeping, prompt = self._keeping, asking.prompt
        assert isinstance(prompt, ModulePrompt)
        owner = keeping.purges.era_of(asking.owner)
        chain = chain_of_leaf(keeping, prompt.layout, leaf, owner)
        missing = keeping.missing(chain, found[leaf])
        return "never_seen" if missing is None else missing.cause


def _rows(prompt: ModulePrompt) -> _Rows:
    leaves, new, row = list[tuple[int, Leaf]](), list[int](), 0
    for piece in prompt.pieces:
        if piece.leaf is not None:
            leaves.append((row, piece.leaf))
        else:
            new += range(row, row + len(piece.tokens))
        row += len(piece.tokens)
    if leaves and row - 1 not in new:
        new.append(row - 1)  # the last is computed in any case: its logits are wanted
    return _Rows(leaves, new)
