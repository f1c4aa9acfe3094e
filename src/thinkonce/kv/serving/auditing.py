"""Audits of approximate answers, by turns, while nothing else is to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from thinkonce.kv.reuse.measured import MeasuredWays
from thinkonce.kv.serving.ticket import Turn

__all__ = ("Auditing",)


class Auditing:
    """A `Spare`: what `ways` wants measured."""

    def __init__(self, ways: MeasuredWays) -> None:
        self._ways = ways

    @property
    def waiting(self) -> int:
        """Prompts that are to be read both ways."""
        return self._ways.audits.waiting

    def steps(self, cancelled: Callable[[], bool]) -> Iterator[Turn]:
        """A Turn a forward pass."""
        with closing(self._ways.audits.run(cancelled, self._ways.told)) as steps:
            for step in steps:
                yield Turn(read=step.tokens)
