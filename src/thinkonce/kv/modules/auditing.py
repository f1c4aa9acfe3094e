"""A prompt of modules read both ways: its texts computed where they stand, and loaded.

Both are at the same positions, so what is told apart is what texts do not see of one another, not
what a schema's holes do to an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import torch

from thinkonce.kv.generation.generator import Read, TooLong
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reader import Reads
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.modules.gathering import NoRoom
from thinkonce.kv.modules.prompt import ModulePrompt
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Fidelity
from thinkonce.kv.reuse.audits import PLACES, Comparing, compared
from thinkonce.kv.reuse.meter import Audit

__all__ = ("Watch", "read_both")

Fill = Callable[[Slab], Reads]
"""What reads the prompt into a slab, from nothing, in one way."""


class Watch(Protocol):
    """Who measures what answers of modules are worth. `answered` is for the model's thread."""

    def modules_used(self, asking: Asking, saved: int, computed: int, both: Comparing) -> None:
        """A prompt of which `saved` tokens were loaded, and `computed` not; `both` audits it."""
        ...

    def of_modules(self, asking: Asking) -> Fidelity | None:
        """What is measured of such prompts. From any thread."""
        ...


def read_both(
    keeping: Keeping, prompt: ModulePrompt, exactly: Fill, approximately: Fill
) -> Generator[Read, None, Audit | None]:
    """None where memory has no room for it, or once one of them was cancelled."""
    try:
        slab = keeping.slabs.take(len(prompt) + PLACES)
    except TooLong:
        slab = None
    if slab is None:
        return None
    try:
        truth = yield from _answered(exactly(slab), prompt.end)
        if truth is None:
            return None
        found = yield from _answered(approximately(slab), prompt.end, truth[1])
        return None if found is None else compared(truth[0], found[0])
    except NoRoom:
        return None
    finally:
        keeping.slabs.give_back(slab)


def _answered(
    reads: Reads, end: int, shown: Sequence[int] | None = None
) -> Generator[Read, None, tuple[torch.Tensor, list[int]] | None]:
    """Logits [PLACES, vocabulary] after the prompt and these tokens, None: those it prefers."""
    reading = yield from reads
    if reading is None or reading.continued is None:
        return None
    rows, answer = [reading.logits], list(shown or [int(reading.logits.argmax())])
    while len(rows) < PLACES:
        rows.append(reading.continued.step(answer[len(rows) - 1], end + len(rows) - 1))
        if shown is None:
            answer.append(int(rows[-1].argmax()))
        yield Read(1)
    return torch.stack(rows), answer
