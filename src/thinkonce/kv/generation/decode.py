"""What all generators share: one forward pass, and the tokens that follow a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from thinkonce.kv.generation.attending import Step
from thinkonce.kv.generation.generator import Sampling, Token
from thinkonce.kv.generation.masks import for_model, masks_at
from thinkonce.kv.generation.sampler import Sampler
from thinkonce.kv.generation.slab import Slab

__all__ = ("decoded", "forward", "forward_at")


def forward(
    network: Any, tokens: Sequence[int], position: int, past: Any, mask: Any = None
) -> torch.Tensor:
    """The fp32 logits after the last of `tokens`, the first being at `position`.

    `past` is a transformers Cache and takes their keys and values. `mask`: who sees what of it,
    where that is not what transformers takes from the cache.
    """
    # Entered for each call: a generator that yields inside the mode leaks it to its caller.
    with torch.inference_mode():
        output = network(
            input_ids=torch.tensor([list(tokens)], device=network.device),
            position_ids=torch.arange(
                position, position + len(tokens), device=network.device
            ).unsqueeze(0),
            attention_mask=mask,
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        )
        row: torch.Tensor = output.logits[0, -1].float().cpu()
    return row


def forward_at(
    network: Any, slab: Slab, ids: Sequence[int], rows: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """The same of `ids` at `rows` (sorted) of a slab, written over what lies there; the slab's rows
    are at `positions` ([rows of the slab], sorted). Both int64, on the model's device. Call it in
    inference mode.
    """
    places = positions[rows]
    found = masks_at(network, places, positions)
    output = network(
        input_ids=torch.tensor([ids], device=network.device),
        position_ids=places[None],
        attention_mask=for_model(network.config, found),
        past_key_values=slab.scattered(rows),
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[0, -1].float().cpu()
    return logits


def decoded(
    logits: torch.Tensor,
    position: int,
    sampling: Sampling,
    end_ids: frozenset[int],
    step: Step,
    cancelled: Callable[[], bool],
) -> Iterator[Token]:
    """The answer's tokens, the first of them from `logits` and at `position`."""
    sampler = Sampler(sampling, vocabulary=logits.numel())
    end = position + sampling.max_tokens
    for place in range(position, end):
        token = _chosen(sampler, sampling, logits, end_ids)
        yield token
        if token.ends or place + 1 == end or cancelled():
            return
        logits = step(token.id, place)


def _chosen(
    sampler: Sampler, sampling: Sampling, logits: torch.Tensor, end_ids: frozenset[int]
) -> Token:
    with torch.inference_mode():
        token = sampler.choose(logits)
        ends = token in end_ids
        if sampling.logprobs is None:
            return Token(token, ends)
        row = logits.log_softmax(-1)
        values, ids = row.topk(min(sampling.logprobs, row.numel()))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Token(token, ends, float(row[token]), top)
