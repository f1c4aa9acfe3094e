"""Generation that reuses attention state, in whichever way a prompt asks for it.

    prompt ──► the first reader that takes it ──► slab, logits ──► tokens, one after the other

Slabs and their memory, decoding and counts are here, whoever read the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import torch

from thinkonce.kv.generation.decode import decoded
from thinkonce.kv.generation.generator import Prefilled, Preloaded, Read, Sampling, Steps, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.rates import Rates
from thinkonce.kv.generation.reader import Asking, Reader
from thinkonce.kv.generation.reading import Continued, Reading, ReadingStats
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.slabs import Slabs
from thinkonce.kv.prefix.causes import Explained
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.terms import USUAL, Terms

__all__ = ("ReusingGenerator",)


class ReusingGenerator:
    """A `Generator`. `readers`: the first that takes a prompt reads it; the last takes all.

    Answers may take turns, each in a slab of its own, on one thread. `known` and `explain` are
    for any thread.
    """

    def __init__(
        self, keeping: Keeping, end_ids: frozenset[int], readers: Sequence[Reader]
    ) -> None:
        self.keeping, self._end_ids, self._readers = keeping, end_ids, readers
        self.slab = Slab(keeping.shape)  # of `read`; answers borrow theirs

    @property
    def chunk_tokens(self) -> int:
        return self.keeping.chunk_tokens

    @property
    def fingerprint(self) -> bytes:
        return self.keeping.fingerprint

    @property
    def slabs(self) -> Slabs:
        return self.keeping.slabs

    @property
    def rates(self) -> Rates:
        return self.keeping.rates

    @property
    def stats(self) -> ReadingStats:
        return self.keeping.stats

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
            asking = Asking(Prompt.of(prompt), owner, terms)
            reading = yield from self._reader(asking).read(slab, asking, cancelled)
            if reading is not None:
                known, told = reading.cached_tokens, reading.explained
                yield Prefilled(len(prompt), known, told, reading.reused)
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

        What is kept is kept as it is computed, so a reading that is given up helps the next.
        """
        asking = Asking(Prompt.of(prompt), owner, terms)
        steps = self._reader(asking).read(self.slab, asking, cancelled)
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
        asking = Asking(Prompt.of(prompt), owner, terms, is_ahead=True)
        reader = self._reader(asking)
        end = reader.keepable(asking)
        while (slab := self.slabs.take(asking.prompt.room_ahead(end))) is None:
            if cancelled():
                return
            yield Read(0)
        try:
            reading = yield from reader.read(slab, asking, cancelled)
            if reading is not None:
                yield Preloaded(end, reading.cached_tokens, reading.kept_tokens)
        finally:
            self.slabs.give_back(slab)

    def keepable(self, prompt: Sequence[int], owner: Owner = NOBODY, terms: Terms = USUAL) -> int:
        """Tokens of the prompt that `preload` would keep. From any thread."""
        asking = Asking(Prompt.of(prompt), owner, terms, is_ahead=True)
        return self._reader(asking).keepable(asking)

    def known(self, prompt: Sequence[int], owner: Owner, terms: Terms = USUAL) -> Callable[[], int]:
        """What tells how many tokens of the prompt are in memory now, or were below when this was
        asked, where they are sooner loaded than computed. From any thread; what it gives asks
        nothing of a disk.
        """
        asking = Asking(Prompt.of(prompt), owner, terms)
        return self._reader(asking).known(asking)

    def explain(
        self,
        prompt: Sequence[int],
        owner: Owner = NOBODY,
        terms: Terms = USUAL,
        *,
        is_admin: bool = False,
    ) -> Explained:
        """What of the prompt would be loaded now, and why not more; from any thread."""
        asking = Asking(Prompt.of(prompt), owner, terms)
        return self._reader(asking).explain(asking, is_admin=is_admin)

    def _reader(self, asking: Asking) -> Reader:
        return next(reader for reader in self._readers if reader.takes(asking))

    def _decoded(
        self,
        slab: Slab,
        reading: Reading,
        position: int,
        sampling: Sampling,
        cancelled: Callable[[], bool],
    ) -> Iterator[Token]:
        def step(token: int, place: int) -> torch.Tensor:
            return self.keeping.forward(slab, [token], place)

        how = reading.continued or Continued(position, step)
        return decoded(reading.logits, how.position, sampling, self._end_ids, how.step, cancelled)
