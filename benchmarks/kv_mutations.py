"""Prompts that were read, and requests made of them by one change whose effect is known.

Every case says which cause the explanation must tell, and where that follows from the change the
message, character or token as well. Nothing is guessed from the answer: what is edited, evicted,
purged or renamed is known because it was done here.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from thinkonce.clock import Clock
from thinkonce.kv.engine import KvEngine, open_engine
from thinkonce.kv.generation.rates import TRY_AGAIN
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.terms import USUAL, Terms
from thinkonce.kv.serving.answers.explanation import Explanation, explanation
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

__all__ = ("KINDS", "Scored", "scores", "small_model")

CHUNK, CONTEXT, LIFE = 16, 2048, 300.0
WORDS, LETTERS = 400, "aeioubcdfglmnprst"
SPECIAL = ("<|im_start|>", "<|im_end|>")

Message = tuple[str, str]  # role, content


@dataclass(frozen=True)
class Prompt:
    """Tokens as the model gets them; `messages` as the template got them, none for a text."""

    tokens: tuple[int, ...]
    messages: tuple[Message, ...] = ()

    @property
    def contents(self) -> tuple[str, ...]:
        return tuple(content for _, content in self.messages)

    @property
    def full(self) -> int:
        """Tokens of blocks that could be loaded."""
        return (len(self.tokens) - 1) // CHUNK * CHUNK


@dataclass(frozen=True)
class Case:
    """`asked` of `owner` must be explained by `cause`, and by `by_reading` once it has been read.

    Of the place and of `fields` only what is not None follows from the change.
    """

    asked: Prompt
    owner: Owner
    cause: str
    by_reading: str = ""
    terms: Terms = USUAL
    message: int | None = None
    character: int | None = None
    token: int | None = None
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Scored:
    """What one change was told to be: by a look-up, and by the reading that followed it."""

    kind: str
    case: Case
    told: Explanation
    told_by_reading: Explanation

    @property
    def cause_is_right(self) -> bool:
        return self.told.cause == self.case.cause and self.told_by_reading.cause == (
            self.case.by_reading or self.case.cause
        )

    @property
    def place_is_right(self) -> bool:
        """Message, character, token and fields, as far as they follow from the change."""
        found = self.told.difference
        for name in ("message", "character", "token"):
            wanted = getattr(self.case, name)
            if wanted is not None and (found is None or getattr(found, name) != wanted):
                return False
        return self.case.fields is None or set(self.case.fields) <= set(self.told.fields)


class Hands:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(lambda: self.now, lambda: self.now)


def small_model(
    tokenizer: Any, seed: int = 1, dtype: torch.dtype = torch.float32, context: int = CONTEXT
) -> Model:
    """One layer with random weights: what is explained does not depend on what it says."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
    )
    network = LlamaForCausalLM(config).to(dtype).eval()
    return Model("small", network, tokenizer, context, frozenset({1}), 1.0, 1.0, 0)


def trained_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


class Corpus:
    """Makes prompts, and changes of them, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        lengths = [self.random.randint(2, 9) for _ in range(WORDS)]
        self._words = ["".join(self.random.choices(LETTERS, k=length)) for length in lengths]
        self.tokenizer = trained_tokenizer([self.text(40) for _ in range(200)])
        self._owners = 0

    def text(self, words: int) -> str:
        return " ".join(self.random.choice(self._words) for _ in range(words))

    def owner(self) -> Owner:
        """One that nobody was before."""
        self._owners += 1
        return Owner(f"tenant {self._owners}")

    def chat(self, messages: Sequence[Message]) -> Prompt:
        begin, end = SPECIAL
        rendered = "".join(f"{begin}{role}\n{content}{end}\n" for role, content in messages)
        return Prompt(self.ids(rendered + f"{begin}assistant\n"), tuple(messages))

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def conversation(self) -> Prompt:
        """Of three to six messages, none of which ends within the first block."""
        roles = ["system", *("user", "assistant") * 3][: self.random.randint(3, 6)]
        return self.chat([(role, self.text(self.random.randint(14, 40))) for role in roles])

    def edited(self, prompt: Prompt) -> tuple[Prompt, int, int]:
        """One character changed where a full block has it; which message, and which character."""
        while True:
            number = self.random.randrange(len(prompt.messages))
            role, content = prompt.messages[number]
            at = self.random.randrange(len(content))
            other = self.random.choice([letter for letter in LETTERS if letter != content[at]])
            changed = (role, content[:at] + other + content[at + 1 :])
            made = self.chat([*prompt.messages[:number], changed, *prompt.messages[number + 1 :]])
            if departs(prompt, made):
                return made, number, at

    def cut_otherwise(self, prompt: Prompt) -> tuple[Prompt, int]:
        """The same text with one token of a full block in two; and which token."""
        vocabulary = self.tokenizer.get_vocab()
        names = self.tokenizer.convert_ids_to_tokens(list(prompt.tokens))
        while True:
            at = self.random.randrange(min(prompt.full, len(names)))
            name = names[at]
            if name in SPECIAL or len(name) < 2:
                continue
            cut = self.random.randrange(1, len(name))
            halves = [vocabulary.get(name[:cut]), vocabulary.get(name[cut:])]
            if None not in halves:
                tokens = (*prompt.tokens[:at], *halves, *prompt.tokens[at + 1 :])
                return replace(prompt, tokens=tokens), at


def departs(prompt: Prompt, other: Prompt) -> bool:
    """Whether `other` lacks a full block because of tokens of a full block of `prompt`."""
    same = common(prompt.tokens, other.tokens)
    kept = len(prompt.tokens) // CHUNK * CHUNK
    return same < min(kept, other.full)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


class World:
    """An engine, and the clock that it looks at. Cases have owners of their own."""

    MEMORY = 2**28

    def __init__(self, corpus: Corpus, model: Model, store: str = "", chunk: int = CHUNK) -> None:
        self.corpus, self.hands = corpus, Hands()
        self.random = corpus.random
        kv = Kv(memory=self.MEMORY, store=store, chunk=chunk)
        self.engine: KvEngine = open_engine(model, kv, self.hands.clock)

    def read(self, prompt: Prompt, owner: Owner, terms: Terms = USUAL) -> Any:
        assert self.engine.reusing is not None
        return self.engine.reusing.read(Asking.of(prompt.tokens, owner, terms), lambda: False)

    def known(self, terms: Terms = USUAL) -> tuple[Prompt, Owner]:
        """A conversation that was read, and whose it is."""
        prompt, owner = self.corpus.conversation(), self.corpus.owner()
        self.read(prompt, owner, terms)
        return prompt, owner

    def scored(self, kind: str, case: Case) -> Scored:
        asked, tokenizer = case.asked, self.corpus.tokenizer
        looked = self.engine.explain(Asking.of(asked.tokens, case.owner, case.terms), is_admin=True)
        told = explanation(tokenizer, asked.tokens, looked, asked.contents)
        read = self.read(asked, case.owner, replace(case.terms, explains=True))
        by_reading = explanation(tokenizer, asked.tokens, read.explained, asked.contents)
        return Scored(kind, case, told, by_reading)

    def resize(self, blocks: int) -> None:
        assert self.engine.reusing is not None
        a_block = CHUNK * self.engine.reusing.slab.shape.bytes_a_token
        self.engine.resize(blocks * a_block)

    # -- changes, each of a prompt of its own -------------------------------------------------

    def a_character(self) -> Case:
        prompt, owner = self.known()
        made, message, character = self.corpus.edited(prompt)
        return Case(made, owner, "content", message=message, character=character)

    def a_message_less(self) -> Case:
        while True:
            prompt, owner = self.known()
            number = self.random.randrange(len(prompt.messages))
            left = [*prompt.messages[:number], *prompt.messages[number + 1 :]]
            made = self.corpus.chat(left)
            if departs(prompt, made):
                return Case(made, owner, "content", message=number)

    def a_message_more(self) -> Case:
        while True:
            prompt, owner = self.known()
            number = self.random.randrange(1, len(prompt.messages))
            added = ("tool", self.corpus.text(20))
            made = self.corpus.chat([*prompt.messages[:number], added, *prompt.messages[number:]])
            if departs(prompt, made):
                return Case(made, owner, "content", message=number)

    def another_role(self) -> Case:
        while True:
            prompt, owner = self.known()
            number = self.random.randrange(len(prompt.messages))
            changed = ("tool", prompt.messages[number][1])
            made = self.corpus.chat(
                [*prompt.messages[:number], changed, *prompt.messages[number + 1 :]]
            )
            if departs(prompt, made):
                return Case(made, owner, "content", message=number)

    def cut_elsewhere(self) -> Case:
        prompt, owner = self.known()
        made, token = self.corpus.cut_otherwise(prompt)
        return Case(made, owner, "tokenizer_boundary", token=token)

    def a_word_goes_on(self) -> Case:
        """A text that ended with a full block, within a word, and now goes on."""
        while True:
            text = self.corpus.text(60)
            end = self.random.randrange(len(text) // 2, len(text) - 40)
            first, second = (Prompt(self.corpus.ids(part)) for part in (text[:end], text))
            same, whole = common(first.tokens, second.tokens), len(first.tokens)
            if whole % CHUNK == 0 and same < whole and departs(first, second):
                owner = self.corpus.owner()
                self.read(first, owner)
                return Case(second, owner, "tokenizer_boundary", token=same)

    def other_names(self) -> Case:
        prompt, owner = self.known()
        names: dict[str, Any] = {"namespace": "v2", "cache_key": "k", "tags": ("a",)}
        chosen = self.random.sample(sorted(names), self.random.randint(1, 3))
        names = {name: names[name] for name in chosen}
        return Case(prompt, replace(owner, **names), "salt", fields=tuple(names))

    def another_tenant(self) -> Case:
        prompt, _ = self.known()
        return Case(prompt, self.corpus.owner(), "other_tenant", "never_seen")

    def pushed_out(self) -> Case:
        prompt, owner = self.known()
        self.resize(len(prompt.tokens) // CHUNK)
        self.known()
        self.resize(self.MEMORY)
        return Case(prompt, owner, "evicted")

    def no_room(self) -> Case:
        prompt, owner = self.corpus.conversation(), self.corpus.owner()
        self.resize(self.random.randint(1, 5))
        self.read(prompt, owner)
        self.resize(self.MEMORY)
        return Case(prompt, owner, "no_room")

    def out_of_time(self) -> Case:
        prompt, owner = self.known(Terms(life=LIFE))
        self.hands.now += LIFE + self.random.randint(1, 1000)
        return Case(prompt, owner, "expired")

    def purged(self) -> Case:
        prompt, owner = self.corpus.conversation(), self.corpus.owner()
        owner = replace(owner, tags=("a", "b")) if self.random.random() < 0.5 else owner
        self.read(prompt, owner)
        rule = PurgeRule(tags=("b",)) if owner.tags else PurgeRule(tenant=owner.tenant)
        self.engine.purge(rule)
        return Case(prompt, owner, "purged")

    def a_few_words(self) -> Case:
        prompt = Prompt(self.corpus.ids(self.corpus.text(9))[: self.random.randint(1, CHUNK)])
        return Case(prompt, self.known()[1], "too_short")

    def nothing(self) -> Case:
        prompt, owner = self.known()
        return Case(prompt, owner, "tail_not_stored")

    def a_turn_more(self) -> Case:
        """The answer was in no prompt before: it is computed, whatever it was."""
        prompt, owner = self.known()
        more = [("assistant", self.corpus.text(12)), ("user", self.corpus.text(20))]
        return Case(self.corpus.chat([*prompt.messages, *more]), owner, "tail_not_stored")

    def another_text(self) -> Case:
        _, owner = self.known()
        return Case(self.corpus.conversation(), owner, "never_seen")

    def not_to_be_read(self) -> Case:
        prompt, owner = self.known()
        terms = self.random.choice([Terms(reads=False), Terms(reads=False, keeps=False)])
        return Case(prompt, owner, "bypass", terms=terms)


IN_MEMORY: dict[str, Callable[[World], Case]] = {
    "a character": World.a_character,
    "a message less": World.a_message_less,
    "a message more": World.a_message_more,
    "another role": World.another_role,
    "tokens cut elsewhere": World.cut_elsewhere,
    "a word goes on": World.a_word_goes_on,
    "namespace, key or tags": World.other_names,
    "another tenant": World.another_tenant,
    "pushed out": World.pushed_out,
    "no room": World.no_room,
    "out of time": World.out_of_time,
    "purged": World.purged,
    "a few words": World.a_few_words,
    "nothing": World.nothing,
    "a turn more": World.a_turn_more,
    "another text": World.another_text,
    "may not be read": World.not_to_be_read,
}
ON_DISK = (
    *("restart", "restart without a folder", "restart and a character", "slow disk"),
    *("damaged file", "other weights", "other number type", "other chunks"),
)
KINDS = (*IN_MEMORY, *ON_DISK)


def scores(seed: int, each: int) -> Iterator[Scored]:
    """`each` cases of every kind."""
    corpus = Corpus(seed)
    model = small_model(corpus.tokenizer)
    world = World(corpus, model)
    for kind, change in IN_MEMORY.items():
        for _ in range(each):
            yield world.scored(kind, change(world))
    with tempfile.TemporaryDirectory() as folder:
        yield from _on_disk(corpus, model, Path(folder), each)


def _on_disk(corpus: Corpus, model: Model, folder: Path, each: int) -> Iterator[Scored]:
    """Processes that follow each other: what one has read is on disk for the next."""
    read: dict[str, list[tuple[Prompt, Owner]]] = {}
    with _opened(corpus, model, str(folder)) as first:
        for kind in ON_DISK:
            read[kind] = [first.known() for _ in range(each)]
    for kind in ("restart", "restart and a character", "slow disk", "damaged file"):
        with _opened(corpus, model, str(folder)) as again:
            if kind == "damaged file":
                _damage(folder)
            for number, (prompt, owner) in enumerate(read[kind], start=1):
                yield again.scored(kind, _after_restart(again, kind, prompt, owner, number))
    with _opened(corpus, model) as bare:
        for prompt, owner in read["restart without a folder"]:
            yield bare.scored("restart without a folder", Case(prompt, owner, "never_seen"))
    others = {
        "other weights": (small_model(corpus.tokenizer, seed=2), CHUNK, "weights"),
        "other number type": (small_model(corpus.tokenizer, dtype=torch.bfloat16), CHUNK, "dtype"),
        "other chunks": (model, 2 * CHUNK, "chunk_tokens"),
    }
    for kind, (other, chunk, field) in others.items():
        with _opened(corpus, other, str(folder), chunk) as world:
            for prompt, owner in read[kind]:
                yield world.scored(kind, Case(prompt, owner, "fingerprint", fields=(field,)))


def _after_restart(world: World, kind: str, prompt: Prompt, owner: Owner, number: int) -> Case:
    assert world.engine.reusing is not None
    rates = world.engine.reusing.rates
    # What either takes is said here: on a clock that stands still nothing takes any time.
    rates.load.add(CHUNK, 1000.0 if kind == "slow disk" else 0.0)
    rates.prefill.add(CHUNK, 1.0)
    if kind == "restart and a character":
        made, message, character = world.corpus.edited(prompt)
        return Case(made, owner, "content", message=message, character=character)
    if kind == "slow disk":
        # Now and then it is tried all the same.
        is_loaded = number % TRY_AGAIN == 0
        by_reading = "tail_not_stored" if is_loaded else "slower_than_recompute"
        return Case(prompt, owner, "slower_than_recompute", by_reading)
    if kind == "damaged file":
        return Case(prompt, owner, "tail_not_stored", "load_error")
    return Case(prompt, owner, "tail_not_stored")


def _damage(folder: Path) -> None:
    """Turn over bytes in the midst of every record's state."""
    for path in folder.glob("*/*.blocks"):
        data = bytearray(path.read_bytes())
        for at in range(1024, len(data), 4096):
            data[at] ^= 0xFF
        path.write_bytes(data)


@contextmanager
def _opened(corpus: Corpus, model: Model, store: str = "", chunk: int = CHUNK) -> Iterator[World]:
    world = World(corpus, model, store, chunk)
    try:
        yield world
    finally:
        world.engine.close()
