"""The selective forward: any rows over exact state, all rows over none, and what must show."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reuse.controls import Everything, Naive, RandomLike, blend
from reuse.encoding import assembled, encoded, prefilled
from small_families import OWN, SHAPE, VOCABULARY
from transformers import AutoConfig, AutoModelForCausalLM

from thinkonce.errors import ThinkOnceError
from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import FAMILIES, shape_of
from thinkonce.kv.reuse.blend import Gradual
from thinkonce.kv.reuse.layout import Choice, Layout, Plan
from thinkonce.kv.reuse.link import Link
from thinkonce.kv.reuse.looked import Looked
from thinkonce.kv.reuse.looks import Looks, watched
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.selective import computed, recomputed

LENGTH, LAYERS = 90, 4
NOISE = 2e-3  # of logits that reach tens


@pytest.fixture(autouse=True)
def in_inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


@cache
def network(family: str, attention: str | None = None) -> Any:
    """Four layers, so that what is dropped behind one of them matters in others."""
    own = dict(OWN[family])
    if "layer_types" in own:
        own["layer_types"] = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    torch.manual_seed(len(family))
    shape = SHAPE | {"num_hidden_layers": LAYERS, "initializer_range": 0.2}
    config = AutoConfig.for_model(family, **shape, **own)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@cache
def prompt(seed: int = 0) -> tuple[int, ...]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCABULARY, (LENGTH,), generator=random).tolist())


LAYOUT = Layout(LENGTH, (range(10, 40), range(40, 75)), exact=10)


def cold(model: Any) -> torch.Tensor:
    slab = Slab(shape_of(model))
    slab.reserve(LENGTH)
    return forward(model, prompt(), 0, slab.cache)


def joined(model: Any, behind: tuple[int, ...] = ()) -> Slab:
    """The layout's state from chunks that were encoded behind `behind`."""
    tokens, slab = list(prompt()), Slab(shape_of(model))
    chunks = [encoded(model, tokens[each.start : each.stop], behind) for each in LAYOUT.chunks]
    exact = prefilled(model, tokens[: LAYOUT.exact]).copy(0, LAYOUT.exact)
    assembled(slab, Rotation(model), LAYOUT, exact, chunks)
    return slab


@pytest.mark.parametrize("attention", [None, "eager"], ids=["own attention", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_rows_over_nothing_are_a_cold_prefill(family: str, attention: str | None) -> None:
    model = network(family, attention)
    slab = Slab(shape_of(model))
    slab.reserve(LENGTH)
    slab.blank(LENGTH)
    found = computed(model, slab, prompt(), range(LENGTH))
    assert torch.allclose(found, cold(model), atol=NOISE)
    assert torch.allclose(
        slab.copy(0, LENGTH), prefilled(model, prompt()).copy(0, LENGTH), atol=NOISE
    )


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_rows_over_exact_state_are_exact(family: str, data: st.DataObject) -> None:
    model = network(family)
    rows = sorted(data.draw(st.sets(st.integers(0, LENGTH - 1))) | {LENGTH - 1})
    with torch.inference_mode():
        slab = prefilled(model, prompt())
        slab.tensor[:, :, :, rows] = 0
        assert torch.allclose(computed(model, slab, prompt(), rows), cold(model), atol=NOISE)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_grow_fewer_over_exact_state_are_exact(family: str) -> None:
    model = network(family)
    for choice in (blend(0.2), blend(0.3, "both", link=3), Gradual(0.25, "keys"), Looked(0.2, 2)):
        slab = prefilled(model, prompt())
        plan = choice.plan(LAYOUT, LAYERS)
        found = recomputed(model, slab, prompt(), LAYOUT, plan)
        assert torch.allclose(found.logits, cold(model), atol=NOISE), choice.name
        assert found.rows < LENGTH


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", [Link(4), blend(0.2)], ids=lambda each: each.name)
def test_a_wrong_row_shows(family: str, choice: Choice) -> None:
    """The control: a neighbour that no plan computes again."""
    model = network(family)
    slab = prefilled(model, prompt())
    slab.tensor[LAYERS - 1, 1, :, 73] += 4
    plan = choice.plan(Layout(LENGTH, (range(10, 60),), exact=10), LAYERS)
    layout = Layout(LENGTH, (range(10, 75),), exact=10)
    found = recomputed(model, slab, prompt(), layout, Plan(plan.places, plan.quotas))
    assert not torch.allclose(found.logits, cold(model), atol=10 * NOISE)


@pytest.mark.parametrize("family", FAMILIES)
def test_computing_all_of_moved_chunks_again_is_exact(family: str) -> None:
    model = network(family)
    slab = joined(model)
    naive = recomputed(model, slab, prompt(), LAYOUT, Naive().plan(LAYOUT, LAYERS)).logits
    assert not torch.allclose(naive, cold(model), atol=10 * NOISE), "chunks do see each other"
    for choice in (Everything(), Link(40), blend(1.0), Gradual(1.0), Looked(1.0)):
        found = recomputed(model, joined(model), prompt(), LAYOUT, choice.plan(LAYOUT, LAYERS))
        assert torch.allclose(found.logits, cold(model), atol=NOISE), choice.name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_decoded_behind_goes_on_from_there(family: str) -> None:
    model = network(family)
    slab, own = joined(model), prefilled(model, prompt())
    recomputed(model, slab, prompt(), LAYOUT, Everything().plan(LAYOUT, LAYERS))
    slab.reserve(LENGTH + 1)
    own.reserve(LENGTH + 1)
    one, other = (forward(model, [7], LENGTH, each.cache) for each in (slab, own))
    assert torch.allclose(one, other, atol=NOISE)


def test_rows_cut_into_calls_are_rows_in_one() -> None:
    model, rows = network("gemma3_text"), [12, 13, 40, 41, 75, 80, 89]
    one, other = prefilled(model, prompt()), prefilled(model, prompt())
    for slab in (one, other):
        slab.tensor[:, :, :, rows] = 0
    whole = computed(model, one, prompt(), rows)
    computed(model, other, prompt(), rows[:3])
    assert torch.allclose(computed(model, other, prompt(), rows[3:]), whole, atol=NOISE)


@pytest.mark.parametrize("family", FAMILIES)
def test_looks_are_the_attention_that_the_model_itself_pays(family: str) -> None:
    model, rows = network(family, "eager"), list(range(75, LENGTH))
    slab = prefilled(model, prompt())
    looks = Looks(slab, rows, 1)
    with watched(model, looks):
        computed(model, slab, prompt(), rows)
    once = looks.paid.clone()
    computed(model, slab, prompt(), rows)
    assert torch.equal(looks.paid, once), "nothing watches any more"
    ids = torch.tensor([prompt()])
    paid = model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    true = torch.stack([layer[0][:, rows].mean((0, 1)) for layer in paid[1:]]).sum(0)
    assert torch.allclose(looks.paid, true, atol=1e-4)
    assert looks.most(range(10, 75), 5) == sorted(
        sorted(range(10, 75), key=lambda place: -float(true[place]))[:5]
    )


def test_a_blank_is_no_garbage() -> None:
    slab = Slab(shape_of(network("llama")))
    slab.reserve(8)
    slab.tensor.fill_(float("nan"))
    slab.blank(8)
    assert slab.length == 8
    assert not slab.copy(0, 8).any()


def test_link_takes_the_ends_of_each_chunk() -> None:
    layout = Layout(40, (range(5, 20), range(20, 23), range(30, 38)), exact=5)
    assert Link(2).plan(layout, LAYERS).places == [5, 6, 20, 21, 30, 31]
    assert Link(1, last=2).plan(layout, LAYERS).places == [5, 18, 19, 20, 21, 22, 30, 36, 37]
    assert layout.unknown == [*range(23, 30), 38, 39]
    assert Link(0).plan(layout, LAYERS).places == []


def test_the_last_token_is_computed_even_in_a_chunk() -> None:
    assert Layout(20, (range(10, 20),), exact=10).unknown == [19]
    assert Layout(20, (), exact=20).unknown == [19]


@pytest.mark.parametrize(
    "chunks", [(range(5, 9),), (range(10, 10),), (range(20, 30), range(10, 20)), (range(90, 95),)]
)
def test_chunks_out_of_order_or_place_are_refused(chunks: tuple[range, ...]) -> None:
    with pytest.raises(ThinkOnceError, match="chunks lie in order"):
        Layout(LENGTH, chunks, exact=10)


@pytest.mark.parametrize("ratio", [0.05, 0.15, 0.3, 0.6])
def test_the_gradual_filter_narrows_to_the_same_mean(ratio: float) -> None:
    layout = Layout(1064, (range(1000),))
    quotas = Gradual(ratio).plan(layout, 30).quotas
    assert quotas is not None
    assert all(one >= next_one for one, next_one in pairwise(quotas))
    assert sum(quotas[2:]) / 28 == pytest.approx(1000 * ratio, abs=1)
    assert quotas[2] == min(1000, 2000 * ratio)
    assert quotas[:2] == [1000, 1000]


def test_blend_counts_linked_tokens_in_its_share() -> None:
    plan = blend(0.2, link=5).plan(LAYOUT, LAYERS)
    assert plan.quotas == [55, 55, 3, 3]
    assert plan.pinned == {10, 11, 12, 13, 14, 40, 41, 42, 43, 44}


@pytest.mark.parametrize(
    "choice",
    [Naive(), Link(4), blend(0.2), blend(0.2, link=5), Gradual(0.3), Looked(0.2), Looked(0.3, 4)],
    ids=lambda each: each.name,
)
def test_a_plan_tells_what_it_computes(choice: Choice) -> None:
    plan = choice.plan(LAYOUT, LAYERS)
    found = recomputed(network("llama"), joined(network("llama")), prompt(), LAYOUT, plan)
    assert plan.rows(LAYOUT, LAYERS) == pytest.approx(found.rows, abs=0.3)
    assert plan.is_static is isinstance(choice, Naive | Link)


def test_the_random_control_costs_what_it_controls() -> None:
    layout = Layout(600, (range(250), range(250, 500)))
    assert len(RandomLike(Link(16)).plan(layout, 30).places) == 32
    like = blend(0.1).plan(layout, 30)
    drawn = RandomLike(blend(0.1)).plan(layout, 30).places
    assert like.quotas is not None
    assert len(drawn) == round(sum(like.quotas) / 30)
    assert drawn == RandomLike(blend(0.1)).plan(layout, 30).places
    assert drawn != RandomLike(blend(0.1), seed=1).plan(layout, 30).places
