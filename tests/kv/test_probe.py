"""What a device must show before attention state on it is reused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_families import OWN, VOCABULARY, network

from thinkonce.errors import ConfigError
from thinkonce.kv.generation.probe import other_bits, prompts
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.weights.model import load

pytestmark = pytest.mark.usefixtures("one_thread")
CHUNK = 32
NO_END: frozenset[int] = frozenset()


@pytest.mark.parametrize("family", OWN)
def test_a_processor_gives_the_bits_of_reading_anew(family: str) -> None:
    assert other_bits(network(family, torch.bfloat16), NO_END, CHUNK) is None


def test_a_device_whose_sums_change_from_call_to_call_does_not() -> None:
    shaky = network("llama", torch.float32)

    def shake(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output + 1e-6 * torch.randn_like(output)

    hook = shaky.model.layers[1].mlp.register_forward_hook(shake)
    try:
        assert (other_bits(shaky, NO_END, CHUNK) or "").startswith("logits behind ")
    finally:
        hook.remove()


def test_state_that_comes_back_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Slab.load

    def load_rounded(slab: Slab, block: torch.Tensor) -> None:
        kept(slab, block.bfloat16().float())

    monkeypatch.setattr(Slab, "load", load_rounded)
    assert other_bits(network("llama", torch.float32), NO_END, CHUNK) is not None


def test_prompts_reach_across_the_edges_of_blocks() -> None:
    lengths = [len(prompt) % CHUNK for prompt in prompts(VOCABULARY, CHUNK)]
    assert {0, 1, CHUNK - 1} <= {*lengths}


@pytest.mark.parametrize("device", ["cuda:99", "meta", "abacus"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device.*{device}"):
        load(device=device)
