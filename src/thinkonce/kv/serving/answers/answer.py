"""From prompts to events: every choice of one request, in order, on the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from thinkonce.kv.generation.generator import Generator, Prefilled, Read, Sampling, Steps
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Explained, Missing
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.reused import NOTHING, Reused
from thinkonce.kv.prefix.terms import USUAL, Terms
from thinkonce.kv.serving.answers.detokenise import Detokeniser
from thinkonce.kv.serving.answers.explanation import Explanation, explanation
from thinkonce.kv.serving.answers.transcript import Piece, Transcript
from thinkonce.kv.serving.line.ticket import Turn

__all__ = ("Begun", "Ended", "Event", "Said", "Spent", "Work", "answer")

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Work:
    """What one request asks of the model: `choices` answers to each prompt.

    `owner` is whose attention state may be used, and whose it becomes, on which `terms`.
    `contents` are the texts of a chat's messages, to tell in which of them it differs.
    """

    prompts: tuple[Prompt, ...]
    choices: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    owner: Owner = NOBODY
    terms: Terms = USUAL
    contents: tuple[str, ...] = ()

    def asking(self, place: int) -> Asking:
        """Of prompt number `place`."""
        return Asking(self.prompts[place], self.owner, self.terms)

    @property
    def askings(self) -> tuple[Asking, ...]:
        return tuple(map(self.asking, range(len(self.prompts))))

    @property
    def is_ahead(self) -> bool:
        """The prompts are only read, for requests that are to come."""
        return not self.sampling.max_tokens


@dataclass(frozen=True, slots=True)
class Begun:
    """The first token of a choice is about to be made; its prompt, what of it was known, by
    method where parts of it are marked, and what is kept that was not before.

    `explanation`: where it was asked for, of the first choice of each prompt.
    """

    choice: int
    prompt_tokens: int = field(default=0, compare=False)
    cached_tokens: int = field(default=0, compare=False)
    explanation: Explanation | None = field(default=None, compare=False)
    reused: Reused | None = field(default=None, compare=False)
    written_tokens: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Said:
    """Text of a choice, with the tokens it came from."""

    choice: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class Ended:
    """A choice is complete; `stop` is the text of the request's that ended it, if one did."""

    choice: int
    reason: FinishReason
    stop: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the whole request cost, in tokens; the last event of an answer that was finished.

    A prompt counts once, however many choices it has; an end-of-answer token counts as made.
    `explanations`: one a prompt, where they were asked for. `reused`: what was known, by method,
    where parts of prompts are marked or something is not exact. `written_tokens`: of prompts,
    those that are kept now and were not before.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    explanations: tuple[Explanation, ...] = field(default=(), compare=False)
    reused: Reused | None = field(default=None, compare=False)
    written_tokens: int = field(default=0, compare=False)


Event = Begun | Said | Ended | Spent


def answer(
    generator: Generator, tokenizer: Any, work: Work, cancelled: Callable[[], bool]
) -> Iterator[Event | Turn]:
    """Every choice of `work`, one after the other. Ends without Spent once `cancelled`.

    A Turn comes after each step of the model, behind what it said. Closing the iterator frees
    what the answer holds.

    Choices differ by their seed only: choice i takes `seed + i`.
    """
    made = cached = written = 0
    reused, is_exact, is_told = NOTHING, True, False
    explanations: list[Explanation] = []
    for choice in range(len(work.prompts) * work.choices):
        place, repetition = divmod(choice, work.choices)
        sampling = replace(work.sampling, seed=work.sampling.seed + choice)
        asking = work.asking(place)
        tally = _Tally(is_marked=bool(asking.prompt.spans))
        explain = _explains(tokenizer, work, place) if repetition == 0 else None
        tokens = generator.generate(asking, sampling, cancelled)
        transcript = Transcript(Detokeniser(tokenizer), work.stops)
        with closing(tokens):
            yield from _choice(choice, tokens, transcript, tally, cancelled, explain)
        if cancelled():
            return
        made += tally.made
        explanations += tally.explanations
        # Each choice reads its prompt anew, and what is true of one must be of all of them.
        is_exact &= tally.reused.is_exact
        is_told |= tally.is_told
        if repetition == 0:
            cached, reused = cached + tally.cached, reused + tally.reused
            written += tally.written
    prompt_tokens = sum(len(prompt) for prompt in work.prompts)
    told = replace(reused, is_exact=is_exact) if is_told else None
    yield Spent(prompt_tokens, made, cached, tuple(explanations), told, written)


@dataclass(slots=True)
class _Tally:
    is_marked: bool = False
    made: int = 0
    cached: int = 0
    written: int = 0
    reused: Reused = NOTHING
    explanations: list[Explanation] = field(default_factory=list)

    @property
    def is_told(self) -> bool:
        """Whether it is said by which methods; of all other answers it goes without saying."""
        return self.is_marked or not self.reused.is_exact


_Explain = Callable[[Prefilled], Explanation]


def _explains(tokenizer: Any, work: Work, place: int) -> _Explain | None:
    """What tells of prompt number `place` why not more was loaded; None where nobody asks."""
    if not work.terms.explains:
        return None

    def explain(prefilled: Prefilled) -> Explanation:
        prompt = work.prompts[place]
        found = prefilled.explained or Explained(len(prompt), 0, 0, Missing("bypass"))
        return explanation(tokenizer, prompt, found, work.contents)

    return explain


def _choice(
    choice: int,
    tokens: Steps,
    transcript: Transcript,
    tally: _Tally,
    cancelled: Callable[[], bool],
    explain: _Explain | None,
) -> Iterator[Event | Turn]:
    reason: FinishReason = "length"
    for step in tokens:
        if isinstance(step, Read):
            yield Turn(read=step.tokens)
            continue
        if isinstance(step, Prefilled):
            tally.cached, tally.reused = step.cached_tokens, step.reused
            tally.written = step.written_tokens
            told = explain(step) if explain is not None else None
            tally.explanations += [told] if told is not None else []
            by_method = step.reused if tally.is_told else None
            yield Begun(
                choice,
                step.prompt_tokens,
                step.cached_tokens,
                told,
                by_method,
                step.written_tokens,
            )
            continue
        tally.made += 1
        if step.ends:
            reason = "stop"
            break
        if (piece := transcript.push(step)).text:
            yield Said(choice, piece)
        if transcript.stopped:
            yield Ended(choice, "stop", transcript.stop)
            return
        yield Turn(made=1)
    if not cancelled():
        rest = transcript.finish()
        if rest.text or rest.tokens:
            yield Said(choice, rest)
        yield Ended(choice, reason)
