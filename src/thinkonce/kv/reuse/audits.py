"""Prompts read both ways while nothing else is to do: what approximate answers were worth.

    exact         |=============== every piece, from nothing ================| 16 tokens
    approximate   |=== as the setting under audit reads it ===|                the same 16 shown
                                                                  KL and agreement, place by place

The truth stands on nothing that is stored. It is computed again where an answer came between: what
that cost counts all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

import torch

from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.generator import Read
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Method
from thinkonce.kv.reuse.assembly import Assembly, assembly_of
from thinkonce.kv.reuse.joining import Joining, NoRoom
from thinkonce.kv.reuse.meter import Audit
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.ways import FixedWays, Way

__all__ = ("PLACES", "Audits", "Comparing", "Pending", "compared")

PLACES = 16
_MOST_KL = 100.0  # nats, of one place
_MOST_WAITING = 8  # prompts; their tokens are in memory meanwhile
_MOST_TRIES = 8  # an audit that answers keep interrupting is given up

Steps = Generator[Read, None, None]
Comparing = Callable[[Callable[[], bool]], Generator[Read, None, Audit | None]]
"""Reads a prompt both ways, until it is cancelled: a step a forward pass, and what came of it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A prompt to be read exactly and with a `setting`; `method` and `namespace` are whose effort
    it is. `named`: what its owner was called when it was answered. `both` reads it both ways.
    """

    asking: Asking
    setting: str
    method: str
    namespace: str
    named: Owner
    both: Comparing


Told = Callable[[Pending, Audit | None, int], None]
"""What an audit found, None where nothing, and the tokens that it computed."""


def compared(truth: torch.Tensor, found: torch.Tensor) -> Audit:
    """Of logits [places, vocabulary] in fp32. What is no number is as far off as can be told: the
    audit is finite, so that it can be compared and written down.
    """
    one, other = truth.log_softmax(-1), found.log_softmax(-1)
    # A token that cannot come counts for nothing, whether or not the other way gives it.
    each = (one.exp() * (one - other)).masked_fill(one == -inf, 0.0).sum(-1)
    divergence = each.nan_to_num(_MOST_KL, _MOST_KL).clamp(0, _MOST_KL).mean()
    agreed = int((one.argmax(-1) == other.argmax(-1)).sum())
    return Audit(float(divergence), agreed, len(truth))


class Audits:
    """Used by the model's thread; `waiting` and `purge` are for any."""

    def __init__(self, keeping: Keeping, exact: ExactReader, rotation: Rotation) -> None:
        self._keeping, self._exact, self._rotation = keeping, exact, rotation
        self._waiting: deque[Pending] = deque()
        self._tries = 0

    @property
    def waiting(self) -> int:
        """Prompts that are still to be read."""
        return len(self._waiting)

    def waits(self, namespace: str) -> bool:
        """Whether one of this namespace is still to be read."""
        return any(each.namespace == namespace for each in list(self._waiting))

    def offer(self, asking: Asking, way: Way, method: Method, namespace: str) -> bool:
        """Read it some time; whether there is room for it to wait."""
        both = partial(self._both, asking, way, method)
        return self.offer_both(asking, way.choice.name, method, namespace, both)

    def offer_both(
        self, asking: Asking, setting: str, method: str, namespace: str, both: Comparing
    ) -> bool:
        """The same of a prompt that is no row of chunks."""
        if len(self._waiting) >= _MOST_WAITING:
            return False
        named = self._named(asking)
        self._waiting.append(Pending(asking, setting, method, namespace, named, both))
        return True

    def purge(self, holds: Callable[[Owner], bool]) -> None:
        """Forget prompts of these owners."""
        self._waiting = deque(each for each in list(self._waiting) if not holds(each.named))

    def run(self, cancelled: Callable[[], bool], told: Told) -> Steps:
        """All that wait, a forward pass a step. Closed and begun anew, it goes on with the one it
        was at, from its beginning.
        """
        while not cancelled():
            pending = next(iter(self._waiting), None)  # purged meanwhile, it is none
            if pending is None:
                return
            yield from self._one(pending, cancelled, told)

    def _one(self, pending: Pending, cancelled: Callable[[], bool], told: Told) -> Steps:
        spent, audit = 0, None
        self._tries += 1
        is_over = self._tries >= _MOST_TRIES
        reading = self._read(pending, cancelled)
        try:
            with closing(reading):
                while True:
                    step = next(reading)
                    spent += step.tokens
                    yield step
        except StopIteration as over:
            audit, is_over = over.value, not cancelled()
        finally:
            if is_over:
                self._waiting = deque(each for each in self._waiting if each is not pending)
                self._tries = 0
            told(pending, audit, spent)

    def _read(
        self, pending: Pending, cancelled: Callable[[], bool]
    ) -> Generator[Read, None, Audit | None]:
        """None where memory has no room, where it was purged meanwhile, or once cancelled."""
        if self._named(pending.asking) != pending.named:
            return None
        return (yield from pending.both(cancelled))

    def _both(
        self, asking: Asking, way: Way, method: Method, cancelled: Callable[[], bool]
    ) -> Generator[Read, None, Audit | None]:
        keeping = self._keeping
        asking = replace(asking, terms=replace(asking.terms, explains=False), is_ahead=False)
        ways = FixedWays({method: way})
        assembly = assembly_of(keeping, ways, asking, keeping.shape.layers)
        slab = keeping.slabs.take(len(asking.prompt) + PLACES)
        if slab is None:
            return None
        try:
            if not isinstance(assembly, Assembly):
                return None
            truth, answer = yield from self._truth(slab, asking.prompt)
            joining = Joining(keeping, self._exact, self._rotation, assembly, cancelled)
            yield from joining.steps(slab)
            if joining.joined is None or not joining.joined.logits.numel():
                return None
            shown = self._shown(slab, answer[:-1])
            yield Read(len(answer) - 1)
            return compared(truth, torch.cat((joining.joined.logits[None], shown)))
        except NoRoom:
            return None
        finally:
            keeping.slabs.give_back(slab)

    def _named(self, asking: Asking) -> Owner:
        """Another one after a purge that its prompt is touched by."""
        owner = asking.owner.with_documents(asking.prompt.documents)
        return self._keeping.purges.era_of(owner)

    def _truth(
        self, slab: Slab, prompt: Sequence[int]
    ) -> Generator[Read, None, tuple[torch.Tensor, list[int]]]:
        """Logits [PLACES, vocabulary] after the prompt and the tokens it prefers, and those."""
        size, logits = self._keeping.chunk_tokens, torch.empty(0)
        slab.begin()
        for start in range(0, len(prompt), size):
            piece = prompt[start : start + size]
            logits = self._keeping.forward(slab, piece, start)
            yield Read(len(piece))
        rows, answer = [logits], [int(logits.argmax())]
        while len(answer) < PLACES:
            rows.append(self._keeping.forward(slab, answer[-1:], slab.length))
            answer.append(int(rows[-1].argmax()))
            yield Read(1)
        return torch.stack(rows), answer

    def _shown(self, slab: Slab, tokens: Sequence[int]) -> torch.Tensor:
        """The fp32 logits after each of these, which go on from the slab's end."""
        network: Any = self._keeping.network
        start, device = slab.length, network.device
        with torch.inference_mode():
            slab.reserve(start + len(tokens))
            output = network(
                input_ids=torch.tensor([list(tokens)], device=device),
                position_ids=torch.arange(start, start + len(tokens), device=device)[None],
                past_key_values=slab.cache,
                use_cache=True,
            )
            found: torch.Tensor = output.logits[0].float().cpu()
        return found
