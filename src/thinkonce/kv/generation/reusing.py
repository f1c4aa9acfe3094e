"""Generation that reuses attention state, in whichever way a prompt asks for it.

    prompt ──► the first reader that takes it ──► slab, logits ──► tokens, one after the other

Slabs and their memory, decoding and counts are here, whoever read the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from thinkonce.kv.generation.attending import Decoder
from thinkonce.kv.generation.decode import decoded
from thinkonce.kv.generation.generator import Kept, Prefilled, Read, Sampling, Steps
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.rates import Rates
from thinkonce.kv.generation.reader import Reader
from thinkonce.kv.generation.reading import Continued, Reading, ReadingStats
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.slabs import Slabs
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.attended import Attended
from thinkonce.kv.prefix.causes import Explained
from thinkonce.kv.prefix.prompt import Prompt

__all__ = ("ReusingGenerator",)


class ReusingGenerator:
    """A `Generator`. `readers`: the first that takes a prompt reads it; the last takes all.
    `decoder`: how answers attend to prompts that are too long for them; None: to all of each.

    Answers may take turns, each in a slab of its own, on one thread. `known` and `explain` are
    for any thread.
    """

    def __init__(
        self,
        keeping: Keeping,
        end_ids: frozenset[int],
        readers: Sequence[Reader],
        decoder: Decoder | None = None,
    ) -> None:
        self.keeping, self._end_ids, self._readers = keeping, end_ids, readers
        self._decoder = decoder
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

    @property
    def is_exact(self) -> bool:
        """Whether answers are exact where no request asks for another method."""
        return self.keeping.codec.is_exact and self._decoder is None

    def generate(self, asking: Asking, sampling: Sampling, cancelled: Callable[[], bool]) -> Steps:
        prompt = asking.prompt
        tokens, room = len(prompt) + sampling.max_tokens, self.room(prompt)
        while (slabs := self.slabs.take_two(tokens, room)) is None:
            if cancelled():
                return
            yield Read(0)
        slab, memory = slabs
        try:
            reading = yield from self._reader(asking).read(slab, asking, cancelled)
            if reading is not None:
                yield self._prefilled(prompt, reading)
                how, ends = self._continued(prompt, reading, slab, memory), self._end_ids
                yield from decoded(
                    reading.logits, how.position, sampling, ends, how.step, cancelled
                )
        finally:
            for each in slabs:
                if each is not None:
                    self.slabs.give_back(each)

    def room(self, prompt: Prompt) -> int:
        """Tokens of memory that its answer takes besides both; 0 where no decoder takes it. From
        any thread.
        """
        if self._decoder is None or not prompt.is_plain:
            return 0
        return self._decoder.room(len(prompt))

    def read(self, asking: Asking, cancelled: Callable[[], bool]) -> Reading | None:
        """Fill `slab` with the prompt's keys and values; None where the caller left meanwhile.

        What is kept is kept as it is computed, so a reading that is given up helps the next.
        """
        steps = self._reader(asking).read(self.slab, asking, cancelled)
        while True:
            try:
                next(steps)
            except StopIteration as over:
                found: Reading | None = over.value
                return found

    def preload(
        self, asking: Asking, cancelled: Callable[[], bool]
    ) -> Generator[Read | Kept, None, None]:
        """Read and keep the full blocks of a prompt and nothing behind them, a forward pass a step.

        It ends at the first block that finds no room. Closed before its end and begun anew, it
        goes on where it was, as long as what it kept is there.
        """
        asking = replace(asking, is_ahead=True)
        reader = self._reader(asking)
        end = reader.keepable(asking)
        while (slab := self.slabs.take(asking.prompt.room_ahead(end))) is None:
            if cancelled():
                return
            yield Read(0)
        try:
            reading = yield from reader.read(slab, asking, cancelled)
            if reading is not None:
                yield Kept(end, reading.cached_tokens, reading.kept_tokens)
        finally:
            self.slabs.give_back(slab)

    def keepable(self, asking: Asking) -> int:
        """Tokens of the prompt that `preload` would keep. From any thread."""
        asking = replace(asking, is_ahead=True)
        return self._reader(asking).keepable(asking)

    def known(self, asking: Asking) -> Callable[[], int]:
        """What tells how many tokens of the prompt are in memory now, or were below when this was
        asked, where they are sooner loaded than computed. From any thread; what it gives asks
        nothing of a disk.
        """
        return self._reader(asking).known(asking)

    def explain(self, asking: Asking, *, is_admin: bool = False) -> Explained:
        """What of the prompt would be loaded now, and why not more; from any thread."""
        found = self._reader(asking).explain(asking, is_admin=is_admin)
        return replace(found, attended=self._attended(asking.prompt))

    def _reader(self, asking: Asking) -> Reader:
        return next(reader for reader in self._readers if reader.takes(asking))

    def _attended(self, prompt: Prompt) -> Attended | None:
        if self._decoder is None or not self.room(prompt):
            return None
        return self._decoder.attended(prompt)

    def _prefilled(self, prompt: Prompt, reading: Reading) -> Prefilled:
        """What is told of a prompt before its answer, and of how that will attend to it."""
        told, reused = reading.explained, reading.reused
        if self.room(prompt):
            reused = replace(reused, is_exact=False)
            told = told and replace(told, attended=self._attended(prompt))
        return Prefilled(len(prompt), reading.cached_tokens, told, reused, reading.written_tokens)

    def _continued(
        self, prompt: Prompt, reading: Reading, slab: Slab, memory: Slab | None
    ) -> Continued:
        if reading.continued is not None:
            return reading.continued
        if self._decoder is not None and memory is not None:
            return Continued(len(prompt), self._decoder.step(prompt, slab, memory))
        return Continued(
            len(prompt), lambda token, place: self.keeping.forward(slab, [token], place)
        )
