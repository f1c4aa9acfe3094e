"""One request's question against what is stored of its partition: the flow's `Likeness`.

find   eligible? ──► the same plain words? ──► guards ──────────────► hit (lexical)
           │ no          └► vector in time? ──► nearest ──► verdict ─► hit (semantic)
           ▼
         never compared, nor stored for comparing
hint   what the next question is compared with
made   the model's answer, compared with the one that was given or would have been
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from thinkonce.entry import Entry
from thinkonce.likeness import Hint, Matched, Wording
from thinkonce.meaning.text.eligible import Ineligible, ineligible
from thinkonce.tiers.tier import Key

if TYPE_CHECKING:
    from thinkonce.meaning.finding import Finding, Place
    from thinkonce.meaning.matching import Meaning

__all__ = ("Comparison",)


class Comparison:
    """`place`: under which namespace's rules."""

    def __init__(self, meaning: Meaning, key: Key, wording: Wording, place: Place) -> None:
        self._meaning, self._key, self._wording, self._place = meaning, key, wording, place
        self._finding: Finding | None = None

    @cached_property
    def _ineligible(self) -> Ineligible | None:
        return ineligible(self._wording.text)

    def find(self) -> Matched | None:
        if self._ineligible is not None:
            self._meaning.counts.passed_over(self._ineligible)
            return None
        self._finding = self._meaning.search(self._wording, self._place)
        return self._finding.matched

    async def find_async(self) -> Matched | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._meaning.threads, self.find)

    def peek(self) -> tuple[Matched | None, dict[str, Any]]:
        if self._ineligible is not None:
            return None, {"why": self._ineligible.value}
        finding = self._meaning.peek(self._wording, self._place)
        return finding.matched, finding.told()

    def refuse(self) -> bool:
        matched, _ = self.peek()
        entry = None if matched is None else self._meaning.stored.entry(matched.key.digest)
        return entry is not None and self._meaning.wrong(entry, self._wording.text).learned

    def hint(self) -> Hint | None:
        if self._ineligible is not None:
            return None
        if self._finding is not None and self._finding.is_crowded:
            self._meaning.counts.crowded()
            return None
        return self._meaning.hint(self._wording, self._place.tenant)

    def made(self, entry: Entry) -> None:
        if entry.hint is not None:
            self._meaning.spaces.add(self._key, entry.hint)
        if self._finding is not None:
            self._meaning.answered(self._finding, entry, self._place)
