"""The slab: appending, growing, loading blocks, and writing over chosen tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_families import VOCABULARY, network
from transformers import DynamicCache

from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import KvShape, Slab
from thinkonce.kv.generation.support import shape_of

SHAPE = KvShape(layers=2, kv_heads=3, head_dim=4, dtype=torch.bfloat16, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def in_inference_mode() -> Any:
    with torch.inference_mode():
        yield


def random_tokens(length: int) -> list[int]:
    random = torch.Generator().manual_seed(length)
    found: list[int] = torch.randint(0, VOCABULARY, (length,), generator=random).tolist()
    return found


def filled(model: Any, tokens: list[int]) -> Slab:
    slab = Slab(shape_of(model))
    slab.reserve(len(tokens))
    forward(model, tokens, 0, slab.cache)
    return slab


def test_growing_keeps_what_is_there_and_doubles() -> None:
    slab = Slab(SHAPE)
    assert (slab.capacity, slab.bytes) == (0, 0)
    slab.reserve(1)
    first = slab.capacity
    blocks = [torch.randn(2, 2, 3, 100, 4).bfloat16() for _ in range(5)]
    for number, block in enumerate(blocks, start=1):
        slab.reserve(100 * number)
        slab.load(block)
    assert slab.length == 500
    assert slab.capacity == 2 * first
    assert slab.bytes == slab.capacity * SHAPE.bytes_a_token
    assert torch.equal(slab.copy(0, 500), torch.cat(blocks, dim=3))
    assert torch.equal(slab.copy(150, 250), torch.cat(blocks, dim=3)[:, :, :, 150:250])


def test_a_block_is_a_copy_of_its_own() -> None:
    slab = Slab(SHAPE)
    slab.reserve(8)
    slab.load(torch.ones(2, 2, 3, 8, 4).bfloat16())
    block = slab.copy(2, 6)
    slab.tensor.zero_()
    assert block.is_contiguous()
    assert block.nbytes == 4 * SHAPE.bytes_a_token
    assert bool((block == 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_gives_the_bits_that_transformers_own_cache_gives(dtype: torch.dtype) -> None:
    model = network("llama", dtype)
    tokens = random_tokens(70)
    slab, own = Slab(shape_of(model)), DynamicCache(config=model.config)
    for start in range(0, 70, 16):
        piece = tokens[start : start + 16]
        slab.reserve(start + len(piece))
        logits = forward(model, piece, start, slab.cache)
        assert torch.equal(logits, forward(model, piece, start, own))
    for number, layer in enumerate(own.layers):
        assert torch.equal(slab.tensor[number, 0, :, :70], layer.keys[0])
        assert torch.equal(slab.tensor[number, 1, :, :70], layer.values[0])


def test_states_of_another_type_or_of_two_sequences_are_refused() -> None:
    model = network("llama", torch.float32)
    slab = Slab(shape_of(network("llama", torch.bfloat16)))
    slab.reserve(4)
    with pytest.raises(TypeError, match=r"one sequence of torch\.bfloat16, not torch\.float32"):
        forward(model, [1, 2, 3], 0, slab.cache)


def rewritten(model: Any, slab: Slab, tokens: list[int], places: list[int]) -> None:
    """Compute the tokens at `places` again, over what is there."""
    slots = torch.tensor(places)
    model(
        input_ids=torch.tensor([[tokens[place] for place in places]]),
        position_ids=slots.unsqueeze(0),
        attention_mask=(torch.arange(len(tokens)) <= slots[:, None])[None, None],
        past_key_values=slab.scattered(slots),
        use_cache=True,
    )


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_chosen_tokens_are_computed_again_where_they_stand(family: str) -> None:
    model = network(family, torch.float32)
    tokens, places = random_tokens(40), [3, 4, 17, 18, 19, 33]
    slab = filled(model, tokens)
    true = slab.copy(0, 40)
    slab.tensor[:, :, :, places] = 0
    rewritten(model, slab, tokens, places)
    assert slab.length == 40
    assert torch.allclose(slab.copy(0, 40), true, atol=1e-4)


def test_what_chosen_tokens_are_computed_from_shows_in_them() -> None:
    """The control: over a wrong neighbour they come out wrong."""
    model = network("llama", torch.float32)
    tokens = random_tokens(40)
    slab = filled(model, tokens)
    true = slab.copy(0, 40)
    slab.tensor[0, :, :, 5] += 4
    rewritten(model, slab, tokens, [17, 18, 19, 33])
    found = slab.copy(0, 40)
    assert not torch.allclose(found[1, :, :, 17:20], true[1, :, :, 17:20], atol=1e-4)
    assert torch.equal(found[:, :, :, 20:33], true[:, :, :, 20:33]), "the others were left alone"
