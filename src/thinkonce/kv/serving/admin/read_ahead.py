"""A request's prompts, read ahead of time and kept: by turns, and without an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import Kept
from thinkonce.kv.serving.answers.answer import Begun, Ended, Event, Spent, Work
from thinkonce.kv.serving.answers.delivery import Failed, error_of, events_of
from thinkonce.kv.serving.answers.explanation import Explanation, explanation
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.ticket import Turn
from thinkonce.web.exchange import ClientGone, Receive

__all__ = ("Preloaded", "Progress", "ReadAhead")


@dataclass(frozen=True, slots=True)
class Progress:
    """`tokens` of the prompts' full blocks are known by now, `of` so many."""

    tokens: int
    of: int


@dataclass(frozen=True, slots=True)
class Preloaded:
    """What became of prompts that were read ahead: of `whole_tokens` in full blocks, `kept_tokens`
    are kept, and `cached_tokens` were before.
    """

    prompt_tokens: int
    whole_tokens: int
    cached_tokens: int
    kept_tokens: int


class ReadAhead:
    """May be interrupted and begun anew, and goes on then. One thread at a time. `tokenizer`: that
    of who is told why not more was known, where the terms ask for it.

    Raises RequestError where nothing would be kept.
    """

    def __init__(self, engine: KvEngine, work: Work, tokenizer: Any = None) -> None:
        if not engine.keeps:
            raise RequestError("kv_cache.preload", True, f"nothing here: {engine.why}")
        if not work.terms.keeps:
            raise RequestError("kv_cache.enabled", False, "true, where a prompt is only read")
        self._engine, self._work = engine, work
        self._tokenizer = tokenizer
        # By the prompt's place: what was known before it was read, what is kept since, and why not
        # more was known.
        self._found: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._explained: dict[int, Explanation] = {}

    def steps(self, cancelled: Callable[[], bool]) -> Iterator[Progress | Preloaded | Turn]:
        """A Turn a forward pass at most, Preloaded at the end; without that once `cancelled`."""
        whole = list(map(self._engine.keepable, self._work.askings))
        kept = 0
        for place in range(len(whole)):
            yield from self._one(place, sum(whole[:place]), sum(whole), cancelled)
            if cancelled():
                return
            kept += self._kept
        prompts = sum(map(len, self._work.prompts))
        yield Preloaded(prompts, sum(whole), sum(self._found.values()), kept)

    async def in_line(
        self, scheduler: Scheduler, receive: Receive, demand: Demand
    ) -> AsyncGenerator[Progress | Preloaded, None]:
        """The same behind all requests, without the turns. Closing it gives up what is under way.

        Raises HttpError where it fails or the line is full, ClientGone where who asks has left.
        """
        events: AsyncGenerator[Progress | Preloaded | Failed, None] = events_of(
            self.steps, scheduler, receive, demand, is_ahead=True
        )
        is_over = False
        async with aclosing(events) as messages:
            async for message in messages:
                if isinstance(message, Failed):
                    raise error_of(message.error)
                yield message
                is_over = isinstance(message, Preloaded)
        if not is_over:
            raise ClientGone

    def as_answer(self, cancelled: Callable[[], bool]) -> Iterator[Event | Turn]:
        """The same as an answer of no tokens, told at once when all is read."""
        for step in self.steps(cancelled):
            if isinstance(step, Turn):
                yield step
            elif isinstance(step, Preloaded):
                yield from self._answer(step)

    def _one(
        self, place: int, before: int, whole: int, cancelled: Callable[[], bool]
    ) -> Iterator[Progress | Turn]:
        work, done = self._work, before
        self._kept = 0
        if work.terms.explains and self._tokenizer is not None and place not in self._explained:
            self._explained[place] = self._why(place)
        steps = self._engine.preload(work.asking(place), cancelled)
        with closing(steps):
            for step in steps:
                if isinstance(step, Kept):
                    self._kept = step.kept_tokens
                    self._written[place] = max(0, self._kept - self._found.get(place, 0))
                    continue
                if step.loaded is not None:
                    self._found.setdefault(place, step.loaded)
                done += step.tokens + (step.loaded or 0)
                yield Progress(done, whole)
                yield Turn(read=step.tokens)

    def _why(self, place: int) -> Explanation:
        work = self._work
        found = self._engine.explain(work.asking(place))
        return explanation(self._tokenizer, work.prompts[place], found, work.contents)

    def _answer(self, kept: Preloaded) -> Iterator[Event]:
        work = self._work
        for choice in range(len(work.prompts) * work.choices):
            place, repetition = divmod(choice, work.choices)
            told = self._explained.get(place) if repetition == 0 else None
            known = self._found.get(place, 0)
            written = self._written.get(place, 0)
            yield Begun(
                choice,
                len(work.prompts[place]),
                known,
                explanation=told,
                written_tokens=written,
            )
            yield Ended(choice, "length")
        every = (self._explained[place] for place in sorted(self._explained))
        written = sum(self._written.values())
        yield Spent(kept.prompt_tokens, 0, kept.cached_tokens, tuple(every), written_tokens=written)
