"""For a target: ends of conversations that are soon read again go earlier, and make room for what
takes long.

    key(b)   = rank(b) - shift * safe(b)          the smallest goes first; rank as `guarded` has it
    safe(b) :  start(b) >= L(b) + Q - within      all in tokens

`within` tokens can be read in the time that is the target; L(b) is the longest prompt ever seen
through b, and Q what a conversation grows by from one turn to the next (its 97th percentile:
with a smaller one, turns that grow by more are late for the end that was dropped). A safe block
can be lost without the next turn's being late. L outlives the block and never falls: else a
conversation whose end was dropped would seem shorter, and lose its end again and again.

The shift, in seconds, grows while prompts are late and is halved where less than 97 % is loaded
of what LRU would have loaded. Until Q is known nothing is shifted. The rule is that of Zhang, Li,
Moallemi, Peng: Tail-Optimized Caching for LLM Inference (2025), with a penalty in seconds in
place of their two classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import ClassVar, Self

from thinkonce.kv.prefix.eviction import Ranked, Room
from thinkonce.kv.prefix.policies.guarded import Guarded

__all__ = ("Tail",)

_FIRST, _MOST, _LEAST = 75.0, 150.0, 5.0  # seconds of shift; below the least there is none
_WIDER = 1.25
_PRICE = 0.97  # of what LRU would have loaded; below it the shift is halved
_WINDOW = 256  # requests after which shift and growth are looked at
_SHARE = 0.97
_CHANGE = 0.25  # by so much of it `within` or Q must change before all blocks are ordered anew


class Tail:
    """See `eviction.TreePolicy`. `blocks`, `most`: as `Guarded` has them; `within` as of `Room`."""

    name: ClassVar[str] = "tail"

    def __init__(self, blocks: int, most: int, within: Callable[[], float]) -> None:
        self.base = Guarded(blocks, most)  # the order before the shift
        self._most, self._asked = most, within
        self._within, self._growth = 0.0, inf
        self._shift = _FIRST
        self._longest: OrderedDict[bytes, int] = OrderedDict()  # L; unused for longest first
        self._growths: list[int] = []
        self._seen = self._late = self._known = self._wanted = self._turns = 0

    @classmethod
    def of(cls, room: Room) -> Self:
        return cls(room.blocks, room.remembered, room.within)

    @property
    def turns(self) -> int:
        return self._turns + self.base.turns

    def touch(self, path: Sequence[Ranked], now: float) -> None:
        self.base.touch(path, now)
        self._known += self.base.known
        self._wanted += self.base.wanted
        if len(path) > 1:
            self._measure(path)
        self._seen += 1
        if self._seen % _WINDOW == 0:
            self._look()
        within = self._asked()
        if _differ(within, self._within):
            self._within = within
            self._turns += 1

    def key(self, block: Ranked) -> tuple[float, ...]:
        rank, *rest = self.base.key(block)
        return (rank - self._shift * self._is_safe(block), *rest)

    def _is_safe(self, block: Ranked) -> bool:
        if not self._within:
            return False
        longest = self._longest.get(block.id, 0)
        return block.start >= longest + self._growth - self._within

    def _measure(self, path: Sequence[Ranked]) -> None:
        step = path[1].start
        length = path[-1].start + step
        self._late += length - self.base.known * step > self._within
        before = [self._longest.get(block.id) for block in path]
        known = next((each for each in reversed(before) if each is not None), None)
        if known is not None and length >= known:
            self._growths.append(length - known)
        for block, longest in zip(path, before, strict=True):
            self._longest[block.id] = max(length, longest or 0)
            self._longest.move_to_end(block.id)
        while len(self._longest) > self._most:
            self._longest.popitem(last=False)

    def _look(self) -> None:
        """How much conversations grow, and whether the shift costs too much or could do more."""
        shift, growth = self._shift, self._growth
        if self._growths:
            growth = float(sorted(self._growths)[int(_SHARE * (len(self._growths) - 1))])
        if self._known < _PRICE * self._wanted:
            shift = shift / 2 if shift > 2 * _LEAST else 0.0
        elif self._late:
            shift = min(_WIDER * max(shift, _LEAST), _MOST)
        if shift != self._shift or _differ(growth, self._growth):
            self._shift, self._growth = shift, growth
            self._turns += 1
        self._growths.clear()
        self._late = self._known = self._wanted = 0


def _differ(found: float, used: float) -> bool:
    return found != used and (used == inf or abs(found - used) > _CHANGE * used)
