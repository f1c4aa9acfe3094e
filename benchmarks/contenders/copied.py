"""The recipe of transformers' documentation: read the prefix once, copy its cache for each prompt.

Source: huggingface.co/docs/transformers/kv_cache, "Re-use cache to continue generation" and
"prefill a cache".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import transformers
from lines import Ask, Setting, serve
from transformers import AutoModelForCausalLM, DynamicCache


def opened(setting: Setting) -> tuple[str, Ask]:
    torch.set_num_threads(setting["threads"])
    model = AutoModelForCausalLM.from_pretrained(
        setting["model"], dtype=getattr(torch, setting["dtype"])
    ).eval()
    kept: list[tuple[list[int], DynamicCache]] = []

    def prefill(prompt: Sequence[int]) -> None:
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(torch.tensor([list(prompt)]), past_key_values=cache)
        kept[:] = [(list(prompt), cache)]

    def ask(prompt: Sequence[int], tokens: int, known: bool) -> tuple[list[int], int]:
        cache, cached = DynamicCache(config=model.config), 0
        if known and kept and list(prompt[: len(kept[0][0])]) == kept[0][0]:
            cached, cache = len(kept[0][0]), copy.deepcopy(kept[0][1])
        elif known:
            prefill(prompt)
            return [], 0
        ids = torch.tensor([list(prompt)])
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return found[0, len(prompt) :].tolist(), cached

    return transformers.__version__, ask


if __name__ == "__main__":
    serve(opened)
