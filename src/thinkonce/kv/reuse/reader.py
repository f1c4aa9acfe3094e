"""Reading a prompt whose documents were read before, in another order or behind other text.

    found        each chunk by its own names, in memory or below; the others are encoded, and kept
    moved        keys turned to their place in fp32, once, from what was stored
    computed     the rows that the method chooses, over all that is there; then the answer

The first of these is as isolated as exact reading is: names, owners, purges, lives and budgets are
the same. What the last one writes is never kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reader import Reads
from thinkonce.kv.generation.reading import Found, Reading
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Chunk, Costs, Explained, Fidelity, Missing, WhyExact
from thinkonce.kv.prefix.reused import Reused
from thinkonce.kv.reuse.assembly import Assembly, Part, assembly_of, method_of
from thinkonce.kv.reuse.joining import Joined, Joining, NoRoom
from thinkonce.kv.reuse.ladder import EXACT
from thinkonce.kv.reuse.rotation import NotRelocatable, Rotation
from thinkonce.kv.reuse.ways import FixedWays, Ways

__all__ = ("ChunkReader",)

_NO_HEAD = Explained(0, 0, 0, Missing("too_short"))


class ChunkReader:
    """A `Reader` of prompts with marked parts. `exact` reads what stands in front of the first,
    and prompts for which this is not worth it. `ways`: None for a model whose keys cannot be moved.
    """

    def __init__(self, keeping: Keeping, exact: ExactReader, ways: Ways | None) -> None:
        self._keeping, self._exact = keeping, exact
        self._ways: Ways = ways or FixedWays({})
        self._rotation: Rotation | None = None
        with suppress(NotRelocatable):  # without it prompts are read exactly, and say why
            self._rotation = Rotation(keeping.network)

    def takes(self, asking: Asking) -> bool:
        """What is not looked for is computed as it stands."""
        is_marked = method_of(asking.prompt) is not None
        return is_marked and self._keeping.kept is not None and asking.terms.reads

    def read(self, slab: Slab, asking: Asking, cancelled: Callable[[], bool]) -> Reads:
        found = self._assembly(asking)
        if not isinstance(found, Assembly):
            return (yield from self._exactly(slab, asking, cancelled, found))
        if asking.is_ahead:
            yield Read(0, loaded=self.known(asking)())
        assert self._rotation is not None
        joining = Joining(self._keeping, self._exact, self._rotation, found, cancelled)
        try:
            yield from joining.steps(slab)
        except NoRoom:
            return (yield from self._exactly(slab, asking, cancelled, "no_room"))
        if joining.joined is None:
            return None
        reading = self._reading(found, joining.joined)
        if not asking.is_ahead:
            self._keeping.count(prompts=1, prompt_tokens=len(asking.prompt))
            self._keeping.count_reused(reading.reused)
            self._ways.used(found.way, asking, reading)
        return reading

    def keepable(self, asking: Asking) -> int:
        found = self._assembly(asking)
        if not isinstance(found, Assembly):
            return self._exact.keepable(asking)
        size = self._keeping.chunk_tokens
        return len(found.head) // size * size + sum(part.tokens for part in found.parts)

    def known(self, asking: Asking) -> Callable[[], int]:
        found = self._assembly(asking)
        if not isinstance(found, Assembly):
            return self._exact.known(asking)
        parts = [(part, self._keeping.found(part.chain).below) for part in found.parts]
        head = self._exact.known(found.front)

        def now() -> int:
            each = ((part, self._keeping.found(part.chain, below)) for part, below in parts)
            return head() + sum(_lengths(part, there)[2] for part, there in each)

        return now

    def explain(self, asking: Asking, *, is_admin: bool = False) -> Explained:
        found = self._assembly(asking)
        if not isinstance(found, Assembly):
            told = self._exact.explain(asking, is_admin=is_admin)
            return replace(told, why_exact=found, fidelity=self._of_exact(asking, found))
        rates, head = self._keeping.rates, self._exact.explain(found.front, is_admin=is_admin)
        each = [self._keeping.found(part.chain) for part in found.parts]
        chunks = self._chunks(found, each)
        below = sum(chunk.disk_tokens for chunk in chunks)
        missing = sum(c.tokens - c.memory_tokens - c.disk_tokens for c in chunks)
        rest = len(found.head) - head.memory_tokens - head.disk_tokens + missing + found.cost
        load, compute = rates.load.a_token * below, rates.prefill.a_token * rest
        costs = Costs(head.costs.lookup, head.costs.load + load, compute)
        return _told(found, head, chunks, costs, self._fidelity(found))

    # -- which way ------------------------------------------------------------------------------

    def _assembly(self, asking: Asking) -> Assembly | WhyExact:
        if self._rotation is None:
            return "not_relocatable"
        layers = self._keeping.shape.layers
        found = assembly_of(self._keeping, self._ways, asking, layers)
        if asking.is_ahead or not isinstance(found, Assembly):
            return found
        # What is exact, and as soon done, is better.
        rest = len(asking.prompt) - self._exact.known(asking)()
        return "known_exactly" if rest <= found.cost else found

    def _exactly(
        self, slab: Slab, asking: Asking, cancelled: Callable[[], bool], why: WhyExact
    ) -> Reads:
        reading = yield from self._exact.read(slab, asking, cancelled)
        if reading is not None and why == "not_faithful" and not asking.is_ahead:
            self._ways.answered_exactly(asking)
        if reading is None or reading.explained is None:
            return reading
        told = replace(reading.explained, why_exact=why, fidelity=self._of_exact(asking, why))
        return replace(reading, explained=told)

    # -- what is told ---------------------------------------------------------------------------

    def _fidelity(self, assembly: Assembly) -> Fidelity | None:
        return self._ways.fidelity(assembly.method, assembly.way.choice.name, assembly.asking)

    def _of_exact(self, asking: Asking, why: WhyExact) -> Fidelity | None:
        """Where audits are why a prompt is read exactly."""
        method = method_of(asking.prompt)
        if why != "not_faithful" or method is None:
            return None
        return self._ways.fidelity(method, EXACT, asking)

    def _reading(self, assembly: Assembly, joined: Joined) -> Reading:
        front, chunks = joined.front, self._chunks(assembly, joined.found)
        reused = front.reused + _reused(assembly, chunks)
        explained = None
        if front.explained is not None or (assembly.asking.terms.explains and not assembly.head):
            costs = (front.explained or _NO_HEAD).costs
            costs = Costs(costs.lookup, costs.load + joined.load, costs.compute + joined.compute)
            told = self._fidelity(assembly)
            explained = _told(assembly, front.explained or _NO_HEAD, chunks, costs, told)
        kept = front.kept_tokens + joined.kept
        written = front.written_tokens + joined.written
        return Reading(joined.logits, reused.total, explained, kept, reused, written_tokens=written)

    def _chunks(self, assembly: Assembly, found: Sequence[Found]) -> tuple[Chunk, ...]:
        return tuple(map(self._chunk, [assembly] * len(found), assembly.parts, found))

    def _chunk(self, assembly: Assembly, part: Part, found: Found) -> Chunk:
        memory, below, _ = _lengths(part, found)
        again = assembly.recomputed(part)
        span, missing = part.span, self._keeping.missing(part.chain, found)
        cause, length = None if missing is None else missing.cause, part.tokens
        return Chunk(span.document, span.start, length, part.was, memory, below, again, cause)


def _lengths(part: Part, found: Found) -> tuple[int, int, int]:
    """Tokens of a chunk's blocks that are in memory, below it, and together."""
    each = [block.length for block in part.chain.blocks]
    memory, both = sum(each[: found.memory]), sum(each[: found.blocks])
    return memory, both - memory, both


def _reused(assembly: Assembly, chunks: Sequence[Chunk]) -> Reused:
    """Of chunks; what was found and is computed again counts as computed."""
    tokens: Counter[tuple[str, str]] = Counter()
    for chunk in chunks:
        disk = max(0, chunk.disk_tokens - chunk.recomputed)
        memory = max(0, chunk.memory_tokens - max(0, chunk.recomputed - chunk.disk_tokens))
        tokens[assembly.method, "memory"] += memory
        tokens[assembly.method, "disk"] += disk
    again = sum(chunk.recomputed for chunk in chunks)
    return Reused(tokens, again, is_exact=False)


def _told(
    assembly: Assembly,
    head: Explained,
    chunks: tuple[Chunk, ...],
    costs: Costs,
    fidelity: Fidelity | None,
) -> Explained:
    """The cause is the head's where not all of it was loaded, else that of the first chunk."""
    of_chunks = next((chunk.cause for chunk in chunks if chunk.cause is not None), None)
    missing = head.missing if of_chunks is None or head.missed_tokens else Missing(of_chunks)
    return Explained(
        len(assembly.asking.prompt),
        head.memory_tokens + sum(chunk.memory_tokens for chunk in chunks),
        head.disk_tokens + sum(chunk.disk_tokens for chunk in chunks),
        missing,
        head.missed_tokens + sum(c.tokens - c.memory_tokens - c.disk_tokens for c in chunks),
        costs,
        assembly.way.choice.name,
        chunks,
        fidelity=fidelity,
    )
