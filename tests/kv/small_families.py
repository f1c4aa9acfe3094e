"""A tiny model with random weights of every family whose attention state is reused."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 200
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    # Wide enough that answers differ from prompt to prompt instead of repeating one token.
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
# Windows shorter than the prompts of the tests, one layer with and one without.
SLIDING = {"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]}
OWN: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 24},
    "qwen2": SLIDING | {"use_sliding_window": True},
    "qwen3": {},
    "gemma2": SLIDING | {"query_pre_attn_scalar": 8},
    "gemma3_text": SLIDING | {"query_pre_attn_scalar": 8},
}


@cache
def network(family: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(len(family))
    config = AutoConfig.for_model(family, **SHAPE, **OWN[family])
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def never() -> bool:
    return False


def tokens(count: int, seed: int) -> list[int]:
    drawn = torch.Generator().manual_seed(seed)
    found: list[int] = torch.randint(3, VOCABULARY, (count,), generator=drawn).tolist()
    return found
