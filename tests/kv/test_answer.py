"""From a generator's steps to an answer's events, whatever the generator knows already."""

from __future__ import annotations

import json
from collections.abc import Callable

from small_model import make_tokenizer

from thinkonce.kv.generation.generator import Prefilled, Sampling, Steps, Token
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.serving.answers.answer import Begun, Ended, Event, Said, Spent, Work, answer
from thinkonce.kv.serving.answers.reply import ChatDialect
from thinkonce.kv.serving.line.ticket import Turn

TOKENIZER = make_tokenizer()


class Remembering:
    """A generator that knows every prompt it has read before, but for its last token.

    It says one fixed text; `seeds` lists what it was asked with.
    """

    def __init__(self, text: str) -> None:
        self._tokens = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        self._known: set[tuple[int, ...]] = set()
        self.seeds: list[int] = []

    def generate(self, asking: Asking, sampling: Sampling, cancelled: Callable[[], bool]) -> Steps:
        self.seeds.append(sampling.seed)
        prompt = asking.prompt
        known = tuple(prompt) in self._known
        self._known.add(tuple(prompt))
        yield Prefilled(len(prompt), len(prompt) - 1 if known else 0)
        for token in self._tokens[: sampling.max_tokens]:
            if cancelled():
                return
            yield Token(token, ends=False)
        if len(self._tokens) < sampling.max_tokens:
            yield Token(2, ends=True)


def events(generator: Remembering, work: Work) -> list[Event]:
    made = answer(generator, TOKENIZER, work, lambda: False)
    return [event for event in made if not isinstance(event, Turn)]


def test_cached_tokens_count_once_for_each_prompt_like_the_prompt_itself() -> None:
    generator = Remembering("quick")
    prompts = (Prompt((5, 6, 7)), Prompt((8, 9)))
    first = events(generator, Work(prompts, 3, Sampling(max_tokens=50)))
    made = 6 * (len(TOKENIZER("quick")["input_ids"]) + 1)
    assert first[-1] == Spent(5, made, 0), "a prompt repeated for its choices is no cache hit"
    again = events(generator, Work(prompts, 3, Sampling(max_tokens=50)))
    assert again[-1] == Spent(5, made, 3)
    usage = json.loads(ChatDialect("m", TOKENIZER).whole(again))["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}


def test_events_come_in_order_and_each_choice_has_its_own_seed() -> None:
    generator = Remembering("quick fox")
    told = events(generator, Work((Prompt((5,)),), 2, Sampling(max_tokens=50, seed=10)))
    kinds = [type(event) for event in told if not isinstance(event, Said)]
    assert kinds == [Begun, Ended, Begun, Ended, Spent]
    assert generator.seeds == [10, 11]
    for choice in (0, 1):
        said = [e.piece.text for e in told if isinstance(e, Said) and e.choice == choice]
        assert "".join(said) == "quick fox"


def test_text_held_back_for_a_stop_text_comes_out_at_the_end() -> None:
    generator = Remembering("quick fo")
    told = events(generator, Work((Prompt((5,)),), 1, Sampling(max_tokens=50), stops=("fox",)))
    assert "".join(e.piece.text for e in told if isinstance(e, Said)) == "quick fo"
    assert [e.reason for e in told if isinstance(e, Ended)] == ["stop"]


def test_a_cancelled_answer_has_no_end() -> None:
    left = False
    steps = answer(
        Remembering("quick fox jumps"),
        TOKENIZER,
        Work((Prompt((5,)),), 1, Sampling(max_tokens=50)),
        lambda: left,
    )
    assert isinstance(next(steps), Begun)
    assert isinstance(next(steps), Said)
    assert next(steps) == Turn(made=1), "others have their turn once the text is out"
    left = True
    assert list(steps) == []
