"""Keys turned to another position are those that a model computes there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reuse.encoding import encoded, encoded_behind, prefilled
from small_families import OWN, SHAPE, VOCABULARY
from transformers import AutoConfig, AutoModelForCausalLM

from thinkonce.kv.generation.support import FAMILIES
from thinkonce.kv.reuse.rotation import NotRelocatable, Rotation

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 256},
}


def network(family: str, dtype: torch.dtype = torch.float32, **own: Any) -> Any:
    torch.manual_seed(len(family))
    config = AutoConfig.for_model(family, **SHAPE, **OWN[family], **own)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def rope(kind: str) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **SCALINGS.get(kind, {"factor": 2.0})}


def check(model: Any, tolerance: float) -> None:
    """Layer 0 sees the tokens alone, so there a moved chunk must be right."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, VOCABULARY, (700,), generator=random).tolist()
    for was, start in ((0, 640), (5, 640), (0, 1), (30, 7)):
        chunk = encoded(model, tokens[start : start + 60], tokens[:was])
        before = chunk.state.clone()
        found = Rotation(model).turned(chunk.state, chunk.was, start)
        true = prefilled(model, tokens[: start + 60]).copy(start, start + 60)
        assert torch.allclose(found[0].float(), true[0].float(), atol=tolerance, rtol=tolerance)
        assert torch.equal(found[:, 1], before[:, 1]), "values have no position"
        assert torch.equal(chunk.state, before), "what is stored stays as it was"
        assert not torch.allclose(before[0, 0].float(), true[0, 0].float(), atol=10 * tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_moved_chunk_is_right_in_the_first_layer(family: str) -> None:
    check(network(family), 1e-4)


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaled_embeddings_turn_as_the_model_scales_them(kind: str) -> None:
    check(network("llama", rope_parameters=rope(kind)), 1e-4)


def test_a_chunk_behind_a_known_state_is_the_chunk_behind_its_tokens() -> None:
    model = network("gemma3_text")
    front, chunk = list(range(3, 40)), list(range(50, 90))
    state = prefilled(model, front).copy(0, len(front))
    one, other = encoded_behind(model, chunk, state), encoded(model, chunk, front)
    assert one.was == other.was == len(front)
    assert one.tokens == len(chunk)
    assert torch.allclose(one.state, other.state, atol=1e-4)
    assert not torch.allclose(one.state, encoded(model, chunk).state, atol=1e-2)


def test_bfloat16_is_turned_in_fp32_and_rounded_once() -> None:
    model = network("llama", torch.bfloat16)
    check(model, 5e-2)
    state = encoded(model, range(3, 60)).state
    rotation = Rotation(model)
    whole = rotation.turned(state.float(), 0, 900)
    assert torch.equal(rotation.turned(state, 0, 900), whole.bfloat16())


def test_local_and_global_layers_turn_by_their_own_theta() -> None:
    """Keys made by hand: what layer 1 has of other tokens must not matter here."""
    parameters = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
    }
    model = network("gemma3_text", rope_parameters=parameters)
    keys, embedding = torch.randn(2, 3, 8), model.model.rotary_emb
    block = torch.zeros(2, 2, 2, 3, 8)
    true = torch.zeros(2, 2, 3, 8)
    for layer, kind in enumerate(model.config.layer_types):
        for into, start in ((block[:, 0], 0), (true, 500)):
            places = torch.arange(start, start + 3)[None]
            cosine, sine = embedding(keys, places, kind)
            half = torch.cat((-keys[..., 4:], keys[..., :4]), dim=-1)
            into[layer] = keys * cosine + half * sine
    found = Rotation(model).turned(block, 0, 500)[:, 0]
    assert torch.allclose(found, true, atol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=0.1)


@pytest.mark.parametrize("start", [100, 8000, 100_000])
def test_far_from_the_beginning_keys_are_as_exact_as_the_models_own(start: int) -> None:
    model = network("llama")
    keys, embedding = torch.randn(1, 4, 8), model.model.rotary_emb

    def at(place: int) -> torch.Tensor:
        cosine, sine = embedding(keys, torch.arange(place, place + 4)[None])
        return keys * cosine + torch.cat((-keys[..., 4:], keys[..., :4]), dim=-1) * sine

    block = torch.zeros(2, 2, 1, 4, 8)
    block[:, 0] = at(0)
    found = Rotation(model).turned(block, 0, start)[:, 0]
    assert torch.allclose(found[0], at(start), atol=2e-6)


def test_an_embedding_that_depends_on_the_length_is_refused() -> None:
    with pytest.raises(NotRelocatable, match="'dynamic' turns keys by the length of the prompt"):
        Rotation(network("llama", rope_parameters=rope("dynamic")))
