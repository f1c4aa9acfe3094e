"""One prompt put together from its head and its chunks, step by step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.generator import Read, TooLong
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Found, Put, Reading
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.blocks import unpacked
from thinkonce.kv.prefix.index import Hold
from thinkonce.kv.reuse.assembly import Assembly, Part
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.selective import computed, recomputed

__all__ = ("Joined", "Joining", "NoRoom")

_MOST_ROWS = 512  # in one forward pass, so that answers can take turns
_NO_LOGITS = torch.empty(0)  # of a prompt that is only read ahead


class NoRoom(Exception):
    """Memory has none for a second sequence, in which a chunk that is missing is encoded."""


@dataclass(frozen=True, slots=True)
class Joined:
    """`front`: how the head was read. `found`: of each chunk what was known, in blocks. `kept`:
    tokens of chunks that are kept now, `written` of them for the first time. `load` and `compute`
    in seconds, without the head's.
    """

    logits: torch.Tensor
    front: Reading
    found: tuple[Found, ...]
    kept: int
    written: int
    load: float
    compute: float


Steps = Generator[Read, None, None]


class Joining:
    """Used once, by one thread. `steps` ends early once `cancelled`; `joined` is None then."""

    def __init__(
        self,
        keeping: Keeping,
        exact: ExactReader,
        rotation: Rotation,
        assembly: Assembly,
        cancelled: Callable[[], bool],
    ) -> None:
        self._keeping, self._exact, self._rotation = keeping, exact, rotation
        self._assembly, self._cancelled = assembly, cancelled
        self._aside: Slab | None = None
        self._found: list[Found] = []
        self._kept, self._written = 0, 0
        self._load, self._compute = 0.0, 0.0
        self.joined: Joined | None = None

    def steps(self, slab: Slab) -> Steps:
        """Fill a slab. Raises NoRoom; what is kept by then stays, and the slab is free to use."""
        asking = self._assembly.asking
        with torch.inference_mode():
            slab.begin()
            slab.reserve(len(asking.prompt))
        try:
            front = yield from self._front(slab)
            for part in self._assembly.parts:
                if front is None or self._cancelled():
                    return
                yield from self._part(slab, part)
        finally:
            if self._aside is not None:
                self._keeping.slabs.give_back(self._aside)
        if front is None or self._cancelled():
            return
        logits = _NO_LOGITS
        if not asking.is_ahead:
            logits = yield from self._selected(slab)
        if not self._cancelled() or logits.numel():
            found = tuple(self._found)
            kept, written = self._kept, self._written
            self.joined = Joined(logits, front, found, kept, written, self._load, self._compute)

    def _front(self, slab: Slab) -> Generator[Read, None, Reading | None]:
        asking, head = self._assembly.asking, self._assembly.head
        if not head:
            return Reading(_NO_LOGITS, 0)
        part = replace(asking, prompt=head, is_ahead=False)
        return (yield from self._exact.beginning(slab, part, self._cancelled))

    # -- a chunk --------------------------------------------------------------------------------

    def _part(self, slab: Slab, part: Part) -> Steps:
        chain, terms = part.chain, self._assembly.asking.terms
        with self._keeping.held(chain, len(chain), terms) as hold:
            if len(hold.nodes) < len(chain):
                yield from self._encoded(slab, part, hold)
                return
            with self._timed_load(), torch.inference_mode():
                offset = 0
                for node in hold.nodes:
                    state = self._keeping.codec.decode(node.state).to(self._keeping.shape.device)
                    self._move(slab, state, part, offset)
                    offset += node.block.length
            self._found.append(Found(len(chain)))
            self._kept += part.tokens

    def _encoded(self, slab: Slab, part: Part, hold: Hold[torch.Tensor]) -> Steps:
        """Load what is known of it, encode the rest behind that, keep it, and move all."""
        aside = yield from self._behind()
        if aside is None:
            return
        keeping, chain, was = self._keeping, part.chain, part.was
        with self._timed_load():
            with torch.inference_mode():
                aside.resume(was)
            found = keeping.load(chain, hold, aside.load)
        self._kept += aside.length - was
        for place in range(found.blocks, len(chain)):
            if self._cancelled():
                return
            tokens, start = unpacked(chain.blocks[place].tokens), aside.length
            began = keeping.clock.monotonic()
            keeping.forward(aside, tokens, start)
            self._compute += keeping.clock.monotonic() - began
            put = keeping.keep(aside, start, hold, chain, place) if self._keeps else Put.NOWHERE
            self._kept += len(tokens) if put else 0
            self._written += len(tokens) if put is Put.NEW else 0
            yield Read(len(tokens))
        with torch.inference_mode():
            self._move(slab, aside.tensor[:, :, :, was : aside.length], part, 0)
        self._found.append(found)

    def _behind(self) -> Generator[Read, None, Slab | None]:
        """A second sequence that begins with what chunks are encoded behind; None: cancelled."""
        if self._aside is not None:
            return self._aside
        behind, asking = self._assembly.behind, self._assembly.asking
        room = len(behind) + max(part.tokens for part in self._assembly.parts)
        try:
            self._aside = self._keeping.slabs.take(room)
        except TooLong:
            raise NoRoom from None
        if self._aside is None:  # whoever has it may be waiting for ours
            raise NoRoom
        with torch.inference_mode():
            self._aside.begin()
        if behind:
            part = replace(asking, prompt=behind, is_ahead=False)
            part = replace(part, terms=replace(asking.terms, explains=False))
            if (yield from self._exact.beginning(self._aside, part, self._cancelled)) is None:
                return None
        return self._aside

    def _move(self, slab: Slab, state: torch.Tensor, part: Part, offset: int) -> None:
        now = part.span.start + offset
        slab.put(self._rotation.turned(state, part.was + offset, now), now)

    @property
    def _keeps(self) -> bool:
        return self._assembly.asking.terms.keeps

    @contextmanager
    def _timed_load(self) -> Iterator[None]:
        began = self._keeping.clock.monotonic()
        yield
        self._load += self._keeping.clock.monotonic() - began

    # -- what is computed over all of them -------------------------------------------------------

    def _selected(self, slab: Slab) -> Generator[Read, None, torch.Tensor]:
        """The logits after the last token; none once cancelled."""
        assembly, network = self._assembly, self._keeping.network
        tokens, layout, plan = assembly.asking.prompt, assembly.layout, assembly.plan
        self._blank(slab)
        logits, clock = _NO_LOGITS, self._keeping.clock.monotonic
        if not plan.is_static:
            began = clock()
            with torch.inference_mode():
                logits = recomputed(network, slab, tokens, layout, plan).logits
            self._compute += clock() - began
            yield Read(len(assembly.rows))
            return logits
        for start in range(0, len(assembly.rows), _MOST_ROWS):
            if self._cancelled():
                return _NO_LOGITS
            rows, began = assembly.rows[start : start + _MOST_ROWS], clock()
            with torch.inference_mode():
                logits = computed(network, slab, tokens, rows)
            self._compute += clock() - began
            yield Read(len(rows))
        return logits

    def _blank(self, slab: Slab) -> None:
        """What is computed later is zero until then: what lies there may be no number."""
        parts, size = self._assembly.parts, len(self._assembly.asking.prompt)
        known = [(0, len(self._assembly.head)), *(part.span[:2] for part in parts), (size, size)]
        with torch.inference_mode():
            for (_, end), (start, _) in pairwise(known):
                slab.tensor[:, :, :, end:start] = 0
            slab.resume(size)
