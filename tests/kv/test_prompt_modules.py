"""Prompts put together from a schema: exact where one scaffold holds all, apart by tenant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import VOCABULARY, network, never

from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.generator import Kept, Prefilled, Read, Sampling, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.support import FAMILIES
from thinkonce.kv.modules.laying import laid_out
from thinkonce.kv.modules.layout import Layout
from thinkonce.kv.modules.prompt import ModulePrompt, SchemaPrompt, put_together
from thinkonce.kv.modules.reader import ModuleReader
from thinkonce.kv.modules.schema import Module, Parameter, Schema, Union
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import PurgeRule, Purges
from thinkonce.kv.prefix.terms import Terms

CHUNK = 16
NOISE = 2e-3  # of logits that reach tens
TELL = Terms(explains=True)
UNKNOWN = 3


def cut(text: str) -> list[int]:
    """As many tokens as the text has words; the same word is the same token."""
    return [sum(map(ord, word)) * 7 % (VOCABULARY - 4) + 4 for word in text.split()]


def words(count: int, seed: str) -> str:
    return " ".join(f"{seed}{number}" for number in range(count))


SCHEMA = Schema(
    "s",
    (
        words(20, "begin"),
        Module("plan", ("for", Parameter("days", 4), words(30, "plan"))),
        Union(
            (
                Module("sea", (words(40, "sea"),)),
                Module("hills", (words(25, "hills"), Module("hut", (words(18, "hut"),)))),
            )
        ),
        words(5, "end"),
    ),
)
LAYOUT = laid_out(SCHEMA, cut, UNKNOWN)


def prompt(
    *modules: str, layout: Layout = LAYOUT, ask: str = "and then", **said: str
) -> ModulePrompt:
    return put_together(layout, modules, said, cut(ask), cut)


class Modular(ReusingGenerator):
    """Reads prompts of schemas, with blocks of 16 tokens."""

    def __init__(
        self,
        model: Any,
        memory: int | None = None,
        below: DiskTier | None = None,
        purges: Purges | None = None,
    ) -> None:
        self.index: PrefixIndex[torch.Tensor] = PrefixIndex(memory or 1 << 24, ghosts=Ghosts())
        keeping = Keeping(
            model,
            chunk_tokens=CHUNK,
            fingerprint=bytes(32),
            kept=self.index,
            below=below,
            memory=memory,
            purges=purges,
        )
        super().__init__(keeping, frozenset(), [ModuleReader(keeping), ExactReader(keeping)])

    def once(self, asked: Sequence[int], owner: Owner = NOBODY, terms: Terms = TELL) -> Reading:
        found = self.read(Asking.of(asked, owner, terms), never)
        assert found is not None
        return found

    def ahead(self, layout: Layout = LAYOUT, owner: Owner = NOBODY) -> Kept:
        steps = list(self.preload(Asking.of(SchemaPrompt.made(layout), owner), never))
        assert isinstance(steps[-1], Kept)
        return steps[-1]


def llama() -> Any:
    return network("llama", torch.float32)


def cold(model: Any, asked: ModulePrompt) -> torch.Tensor:
    """The logits of one pass over the same tokens at the same positions, nothing stored.

    By the model's own masks: every token among as many rows as positions, its place one of them.
    """
    ids = torch.full((1, asked.end), UNKNOWN)
    there = torch.zeros(asked.end, dtype=torch.bool)
    places = torch.tensor(asked.positions)
    ids[0, places], there[places] = torch.tensor(list(asked)), True
    with torch.inference_mode():
        found: torch.Tensor = model(
            input_ids=ids,
            attention_mask=there[None].long(),
            position_ids=torch.arange(asked.end)[None],
        ).logits[0, -1]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_computed_at_its_position_is_the_models_own_answer(family: str) -> None:
    """Holes are tokens that the model's own attention mask hides; windows count positions."""
    model = network(family, torch.float32)
    asked = prompt("plan", "hills/hut", days="three long")
    found = Modular(model).once(asked, terms=Terms(reads=False, keeps=False))
    assert (found.logits - cold(model, asked)).abs().max() < NOISE
    assert found.reused.is_exact


ONE = Schema("one", (words(20, "begin"), Module("plan", (words(70, "plan"),)), words(9, "end")))
ONE_LAYOUT = laid_out(ONE, cut, UNKNOWN)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_one_scaffold_that_holds_all_a_prompt_is_a_cold_one_but_for_rounding(
    family: str,
) -> None:
    model = network(family, torch.float32)
    asked = prompt("plan", layout=ONE_LAYOUT, ask=words(6, "ask"))
    modular = Modular(model)
    first, second = modular.once(asked), modular.once(asked)
    assert (first.cached_tokens, second.cached_tokens) == (0, 99)
    for found in (first, second):
        assert (found.logits - cold(model, asked)).abs().max() < NOISE
        assert not found.reused.is_exact, "nobody promises it"


def test_what_stands_in_front_of_a_text_in_its_scaffold_shows_in_its_state() -> None:
    """A control: a union's other member sees the default's, and not what a prompt has there."""
    asked = prompt("hills")
    found = Modular(llama()).once(asked)
    assert (found.logits - cold(llama(), asked)).abs().max() > 10 * NOISE


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral"])
def test_an_answer_goes_on_at_the_position_behind_the_last(family: str) -> None:
    model = network(family, torch.float32)
    asked = prompt("plan", days="three")
    steps = list(
        Modular(model).generate(
            Asking.of(asked, terms=Terms(False, False)), Sampling(6, temperature=0), never
        )
    )
    made = [step.id for step in steps if isinstance(step, Token)]
    expected = list[int]()
    for _ in range(6):
        more = ModulePrompt.made(LAYOUT, [*asked.pieces])
        logits = cold(
            model,
            put_together(LAYOUT, ["plan"], {"days": "three"}, [*cut("and then"), *expected], cut),
        )
        expected.append(int(logits.argmax()))
        assert more.end == LAYOUT.length + 2
    assert made == expected


def test_another_member_of_a_union_computes_nothing_of_the_modules() -> None:
    modular = Modular(llama())
    ahead = modular.ahead()
    assert (
        ahead.kept_tokens
        == ahead.whole_tokens
        == sum(len(s.tokens) for s in LAYOUT.scaffolds.values())
    )
    for taken in (["sea"], ["hills"], ["hills/hut"], []):
        asked = prompt("plan", *taken, days="two")
        steps = list(
            modular.generate(Asking.of(asked, terms=TELL), Sampling(1, temperature=0), never)
        )
        read = sum(step.tokens for step in steps if isinstance(step, Read))
        prefilled = next(step for step in steps if isinstance(step, Prefilled))
        assert read == 3, "the argument and what follows"
        assert prefilled.cached_tokens == len(asked) - 3
        assert prefilled.reused.by_method == {"exact": 0, "modules": len(asked) - 3}
        assert prefilled.explained is not None
        assert prefilled.explained.missing.cause == "tail_not_stored"


def test_arguments_are_read_where_they_stand() -> None:
    modular = Modular(llama())
    modular.ahead()
    two, three, none = (
        modular.once(prompt("plan", days=days)) for days in ("two by two we", "three", "")
    )
    assert (two.logits - three.logits).abs().max() > 10 * NOISE
    assert (two.logits - none.logits).abs().max() > 10 * NOISE


def test_what_is_known_of_a_schema_is_not_encoded_again() -> None:
    modular = Modular(llama())
    first, second = modular.ahead(), modular.ahead()
    assert (first.cached_tokens, second.cached_tokens) == (0, second.whole_tokens)
    blocks = modular.index.stats().added
    changed = laid_out(Schema("s", (*SCHEMA.children[:-1], "another end")), cut, UNKNOWN)
    again = modular.ahead(changed)
    assert again.cached_tokens == len(changed.scaffolds["hills",].tokens), (
        "it has no part of the end"
    )
    assert modular.index.stats().added == blocks + 1, "one text is new"


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_member_is_encoded_over_what_stands_in_front_of_it_elsewhere_too(family: str) -> None:
    """Of its scaffold only a parameter's place and its own texts are computed."""
    model, read = network(family, torch.float32), list[int]()
    lent, alone = Modular(model), Modular(model)
    for modular, terms in ((lent, Terms()), (alone, Terms(reads=False))):
        steps = list(modular.preload(Asking.of(SchemaPrompt.made(LAYOUT), terms=terms), never))
        read.append(sum(step.tokens for step in steps if isinstance(step, Read)))
        told = sum(step.tokens + (step.loaded or 0) for step in steps if isinstance(step, Read))
        assert told == sum(len(each.tokens) for each in LAYOUT.scaffolds.values())
    own = 25 + 18 + len(LAYOUT.slots[0].scaffold)
    assert read == [100 + own, 100 + 98]
    asked = prompt("plan", "hills", "hut", days="two")
    one, other = lent.once(asked), alone.once(asked)
    assert one.cached_tokens == other.cached_tokens > 0
    assert (one.logits - other.logits).abs().max() < NOISE


def test_blocks_lie_under_no_name_of_an_exact_prefix() -> None:
    modular = Modular(llama())
    asked = prompt("plan", layout=ONE_LAYOUT)
    modular.once(asked)
    plain = modular.once(tuple(asked))
    assert plain.cached_tokens == 0
    assert modular.once(asked).cached_tokens == 99
    assert modular.once(tuple(asked)).reused.is_exact


def test_tenants_and_namespaces_find_nothing_of_each_other() -> None:
    modular = Modular(llama())
    owners = [Owner("a"), Owner("b"), Owner("a", namespace="n"), Owner("a", tags=("t",))]
    for owner in owners:
        assert modular.once(prompt("sea"), owner).cached_tokens == 0
    for owner in owners:
        assert modular.once(prompt("sea"), owner).cached_tokens == 65


def test_a_purge_takes_modules_too_and_nobody_elses() -> None:
    purges = Purges()
    modular = Modular(llama(), purges=purges)
    for tenant in ("a", "b"):
        modular.ahead(owner=Owner(tenant))
    purges.add(PurgeRule(tenant="a"))
    modular.index.purge(PurgeRule(tenant="a").holds)
    again = modular.once(prompt("sea"), Owner("a"))
    assert again.cached_tokens == 0
    assert again.explained is not None
    assert again.explained.missing.cause == "purged"
    assert modular.once(prompt("sea"), Owner("b")).cached_tokens == 65


def test_terms_hold_for_modules() -> None:
    modular = Modular(llama())
    modular.once(prompt("sea"), terms=Terms(reads=False, keeps=False, explains=True))
    assert modular.index.stats().blocks == 0
    modular.once(prompt("sea"))
    added = modular.index.stats().added
    refreshed = modular.once(prompt("sea"), terms=Terms(reads=False, explains=True))
    assert refreshed.cached_tokens == 0
    assert modular.index.stats().added == added
    assert modular.once(prompt("sea")).cached_tokens == 65


def test_a_module_that_is_not_to_be_kept_is_computed_each_time() -> None:
    schema = Schema("s", (words(20, "begin"), Module("now", (words(10, "now"),), cache=False)))
    modular, layout = Modular(llama()), laid_out(schema, cut, UNKNOWN)
    modular.ahead(layout)
    assert modular.once(prompt("now", layout=layout)).cached_tokens == 20


def test_where_memory_holds_no_scaffold_everything_is_computed() -> None:
    model = llama()
    keeping = Modular(model).keeping
    room = 256 * keeping.shape.bytes_a_token
    modular = Modular(model, memory=room)
    steps = list(
        modular.generate(Asking.of(prompt("hills"), terms=TELL), Sampling(1, temperature=0), never)
    )
    prefilled = next(step for step in steps if isinstance(step, Prefilled))
    assert prefilled.cached_tokens == 0
    assert prefilled.reused.is_exact
    assert any(isinstance(step, Token) for step in steps)


def test_modules_that_left_memory_are_encoded_again_and_served() -> None:
    modular = Modular(llama())
    before = modular.once(prompt("hills"))
    modular.index.resize(0)
    modular.index.resize(1 << 24)
    again = modular.once(prompt("hills"))
    assert again.cached_tokens == 0
    assert again.explained is not None
    assert again.explained.missing.cause == "evicted"
    assert torch.equal(again.logits, before.logits)


def test_modules_are_found_on_disk_after_a_restart(tmp_path: Path) -> None:
    fingerprint = bytes(32)
    disk = DiskTier(tmp_path, fingerprint, 1 << 24)
    Modular(llama(), below=disk).ahead()
    assert disk.flush(30)
    disk.close()
    disk = DiskTier(tmp_path, fingerprint, 1 << 24)
    try:
        modular = Modular(llama(), below=disk)
        found = modular.once(prompt("plan", "hills", days=""))
        assert found.cached_tokens == found.reused.on("disk") == 81
        assert modular.once(prompt("plan", "hills", days="")).reused.on("memory") == 81
    finally:
        disk.close()


def test_what_is_not_to_be_kept_ends_no_reading_ahead() -> None:
    members = tuple(Module(name, ("text " * 20,), name != "b") for name in "abc")
    layout = laid_out(Schema("s", (Union(members),)), cut, UNKNOWN)
    modular, anew = Modular(llama()), Terms(reads=False)
    *_, told = modular.preload(Asking.of(SchemaPrompt.made(layout), terms=anew), never)
    assert told == Kept(40, 0, 40)


def test_reading_that_is_given_up_leaves_no_sequence_taken() -> None:
    modular = Modular(llama(), memory=1 << 22)
    steps = modular.generate(Asking.of(prompt("hills")), Sampling(2, temperature=0), never)
    next(steps)
    steps.close()
    assert modular.slabs.under_way == 0
    assert list(modular.generate(Asking.of(prompt("hills")), Sampling(2), lambda: True)) == []
    assert modular.slabs.under_way == 0


def test_known_tells_the_tokens_of_modules_that_are_whole() -> None:
    modular = Modular(llama())
    assert modular.known(Asking.of(prompt("sea")))() == 0
    modular.ahead()
    assert modular.known(Asking.of(prompt("sea")))() == 65
    assert modular.explain(Asking.of(prompt("sea"), terms=TELL)).memory_tokens == 65
