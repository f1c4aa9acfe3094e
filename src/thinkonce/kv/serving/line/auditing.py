"""Audits of approximate answers, by turns, while nothing else is to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from thinkonce.kv.engine import KvEngine
from thinkonce.kv.serving.line.ticket import Turn

__all__ = ("Auditing",)


class Auditing:
    """A `Spare`: prompts whose answers were approximate, read again exactly and compared."""

    def __init__(self, engine: KvEngine) -> None:
        self._ways = engine.ways

    @property
    def waiting(self) -> int:
        """Prompts that are to be read both ways."""
        return 0 if self._ways is None else self._ways.audits.waiting

    def steps(self, cancelled: Callable[[], bool]) -> Iterator[Turn]:
        """A Turn a forward pass."""
        if self._ways is None:
            return
        with closing(self._ways.audits.run(cancelled, self._ways.told)) as steps:
            for step in steps:
                yield Turn(read=step.tokens)
